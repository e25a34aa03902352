"""The data directory by another path, moved, copied and restored; and what clients learn of sessions that ended."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from support.adoption import LOAD, adopted, follow
from support.clients import client_of, refused
from support.keys import client_with, opened_store
from support.restarts import Restarts, restarts
from support.waiting import until

from mxgw.v1 import session_service_pb2 as ss
from mxgw_acl.keys import Scope
from mxgw_acl.store import KeyWishes
from mxgw_core.testing.checker import StreamChecker

pytestmark = pytest.mark.asyncio

PATIENCE_S = 60.0


@asynccontextmanager
async def beside(gateway: Restarts, copy_of: Path) -> AsyncIterator[Restarts]:
    """Offer a second gateway, on a copy of a data directory."""
    directory = gateway.directory / "beside"
    directory.mkdir()
    other = Restarts(directory, LOAD)
    # Sockets cannot be copied, and SQLite makes its -shm anew.
    shutil.copytree(copy_of, other.data, ignore=shutil.ignore_patterns("*.sock", "*-shm"))
    try:
        yield other
    finally:
        if other.process is not None:
            await other.kill()


async def test_a_gateway_on_a_copy_touches_no_worker_and_tells_how_its_sessions_ended() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(gateway.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, ["Load.Item00001"])
            await follow(client, session.session_id, checker, 20)
            (worker,) = gateway.workers()
            async with beside(gateway, gateway.data) as copy:
                await copy.start()
                async with client_of(copy.target) as at_copy:
                    gone = await refused(at_copy.stream(session.session_id))

                    assert (gone.reason, gone.metadata["close_reason"]) == ("SESSION_GONE", "GATEWAY_SHUTDOWN")
                    assert "copy of the data directory" in gone.text

                await copy.terminate()

                assert "takes a new instance id" in copy.log
                assert "leaves 1 workers of the original alone" in copy.log

                await copy.start()

                assert copy.log.count("takes a new instance id") == 1

            await follow(client, session.session_id, checker, 20)

            assert [alive.pid for alive in gateway.workers()] == [worker.pid]
            assert not checker.violations, checker.report()

            await client.close(session.session_id)
        await gateway.all_is_gone(PATIENCE_S)


async def test_a_copy_cannot_take_workers_that_wait_for_the_next_gateway_either() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.kill()
        async with beside(gateway, gateway.data) as copy:
            await copy.start()
            await copy.terminate()
        assert len(gateway.workers()) == 1

        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id, PATIENCE_S)
            await client.close(session.session_id)
        await gateway.all_is_gone(PATIENCE_S)


@pytest.mark.parametrize("way", ["link", "link above", "move"])
async def test_the_same_directory_by_another_path_has_its_sessions(way: str) -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(gateway.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, ["Load.Item00001"])
            await follow(client, session.session_id, checker, 20)
        await gateway.terminate()
        old = gateway.data
        match way:
            case "link":
                gateway.data = gateway.directory / "link"
                gateway.data.symlink_to(old)
            case "link above":
                (gateway.directory / "up").symlink_to(gateway.directory)
                gateway.data = gateway.directory / "up" / "d"
            case _:
                gateway.data = gateway.directory / "moved"
                old.rename(gateway.data)
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id, PATIENCE_S)
            await follow(client, session.session_id, checker, 20)
            await client.close(session.session_id)

        assert not checker.violations, checker.report()
        assert checker.gaps == 0, checker.report()
        assert "takes a new instance id" not in gateway.log

        gateway.data = gateway.data.resolve()
        await gateway.all_is_gone(PATIENCE_S)


async def test_a_copy_in_place_of_the_directory_leaves_its_workers_alone_and_they_leave_when_their_time_is_over() -> (
    None
):
    async with restarts(
        LOAD + "\n[plugins.reattach]\nadopt_within_seconds = 1\nmax_orphan_lifetime_seconds = 6\n"
    ) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.kill()
        aside = gateway.directory / "aside"
        shutil.copytree(gateway.data, aside, ignore=shutil.ignore_patterns("*.sock", "*-shm"))
        before = (gateway.data / "run").stat().st_ino
        shutil.rmtree(gateway.data)
        # Were the worker not holding on to its directory of sockets, one of these would get the inode.
        others = [gateway.directory / f"other-{number}" for number in range(100)]
        for other in others:
            other.mkdir()

        assert before not in [other.stat().st_ino for other in others]

        shutil.copytree(aside, gateway.data)
        await gateway.start()

        assert "takes a new instance id" in gateway.log

        async with client_of(gateway.target) as client:
            gone = await refused(client.stream(session.session_id))

            assert gone.metadata["close_reason"] == "GATEWAY_SHUTDOWN"

        await gateway.no_worker_is_left(PATIENCE_S)


async def test_a_manifest_restored_over_the_one_that_runs_ends_at_most_workers_of_this_directory() -> None:
    settings = LOAD + "\n[plugins.reattach]\nadopt_within_seconds = 1\n[workers]\nstop_grace_s = 0.5\n"
    async with restarts(settings) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            kept = await client.open()
            await gateway.kill()
        backup = (gateway.data / "manifest.sqlite3").read_bytes(), (gateway.data / "manifest.sqlite3-wal").read_bytes()
        await gateway.start()  # the worker proves itself, and has another secret than the backup knows
        async with client_of(gateway.target) as client:
            await adopted(client, kept.session_id, PATIENCE_S)
        await gateway.kill()
        for name, content in zip(("manifest.sqlite3", "manifest.sqlite3-wal"), backup, strict=True):
            (gateway.data / name).write_bytes(content)
        (gateway.data / "manifest.sqlite3-shm").unlink(missing_ok=True)
        await gateway.start()
        async with client_of(gateway.target) as client:
            await gateway.all_is_gone(PATIENCE_S)
            gone = await refused(client.stream(kept.session_id))

            assert gone.reason == "SESSION_GONE"
            assert "BAD_PROOF" in gateway.log


# what clients learn


async def test_who_comes_back_after_a_restart_is_told_how_the_session_ended() -> None:
    async with restarts(LOAD + "\n[limits]\nsweep_interval_s = 0.1\n") as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            closed, expired, going = [await client.open(tag=tag) for tag in ("a", "b", "c")]
            await client.close(closed.session_id)
            short = await client.open(tag="short", lease_s=0.2)
            await until(lambda: "LEASE_EXPIRED" in gateway.log)
        await gateway.kill()
        for worker in gateway.workers():
            if worker.pid == expired.worker_pid:
                worker.kill()
        for _ in range(2):  # what is remembered outlives the next restart as well
            await gateway.start()
            async with client_of(gateway.target) as client:
                await adopted(client, going.session_id, PATIENCE_S)
                await until(lambda: len(gateway.rows()) == 1, PATIENCE_S)
                for session, reason in (
                    (closed, "CLIENT"),
                    (expired, "WORKER_EXITED"),
                    (short, "LEASE_EXPIRED"),
                ):
                    gone = await refused(client.stream(session.session_id))

                    assert (gone.reason, gone.metadata["close_reason"]) == ("SESSION_GONE", reason)

                    shown = (
                        await client.sessions.GetSession(ss.GetSessionRequest(session_id=session.session_id))
                    ).session

                    assert (shown.tag, shown.owner) == (session.tag, session.owner)
                    assert ss.CloseReason.Name(shown.close_reason) == f"CLOSE_REASON_{reason}"
            await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, going.session_id, PATIENCE_S)
            await client.close(going.session_id)
        await gateway.all_is_gone(PATIENCE_S)


async def test_nobody_but_its_owner_is_told_after_a_restart_how_a_session_ended() -> None:
    settings = LOAD.replace('"replay"', '"acl", "replay"') + '\n[plugins.acl]\nenvironment = "test"\n'
    async with restarts(settings) as gateway:
        (gateway.data / "acl").mkdir(parents=True, mode=0o700)
        with opened_store(gateway.data / "acl") as store:
            keys = [
                store.create(KeyWishes(name, frozenset(Scope) - {Scope.ALL_SESSIONS, Scope.ADMIN}), "test")[1].text()
                for name in ("owner", "stranger")
            ]
        owner, stranger = keys
        await gateway.start()
        async with client_with(gateway.target, owner) as client:
            session = await client.open()
            await client.close(session.session_id)
        await gateway.kill()
        await gateway.start()
        async with client_with(gateway.target, owner) as mine, client_with(gateway.target, stranger) as other:
            gone = await refused(mine.register(session.session_id))

            assert (gone.reason, gone.metadata["close_reason"]) == ("SESSION_GONE", "CLIENT")

            known, unknown = [await refused(other.register(name)) for name in (session.session_id, "A" * 24)]

            assert known.reason == "ACCESS_DENIED"
            assert (known.code, known.reason, known.text, known.metadata) == (
                unknown.code,
                unknown.reason,
                unknown.text,
                unknown.metadata,
            )
            listed = await other.sessions.ListSessions(ss.ListSessionsRequest(include_ended=True))

            assert not listed.sessions
        await gateway.all_is_gone(PATIENCE_S)


@pytest.mark.parametrize("is_directory", [False, True])
async def test_a_foreign_file_as_manifest_does_not_stop_the_start_and_a_directory_is_named(is_directory: bool) -> None:
    async with restarts(LOAD) as gateway:
        gateway.data.mkdir(mode=0o700)
        path = gateway.data / "manifest.sqlite3"
        if is_directory:
            path.mkdir()

            assert await gateway.started() == ""
            assert await gateway.ended() == 1
            assert f"{path} cannot be used" in gateway.log
            return
        with closing(sqlite3.connect(path)) as db:
            db.executescript("PRAGMA user_version = 1; CREATE TABLE song (title TEXT);")
        await gateway.start()
        async with client_of(gateway.target) as client:
            await client.close((await client.open()).session_id)

        assert "set aside as manifest.sqlite3.unreadable" in gateway.log
        await gateway.all_is_gone(PATIENCE_S)
