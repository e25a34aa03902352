"""A third party's store of older events in front of the log: history, then live, with nothing twice or missing between.

The store is the example mxgw-plugin-sqlite-history, installed as the distribution it is; it follows the session.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.adoption import LOAD, adopted
from support.clients import client_of, refused
from support.recording import double_of
from support.replaying import replay_settings, subscribe_load
from support.repository import ROOT
from support.restarts import restarts
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2_grpc import EventServiceStub
from mxgw_client import Session, connect
from mxgw_core.api.errors import InvalidRequest, PositionForeign, SessionNotFound
from mxgw_core.api.types import Position
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_core.testing.checker import Lost, RoundRobin, StreamChecker, observed

EXAMPLE = ROOT / "examples" / "mxgw-plugin-sqlite-history"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example, from a copy of its source, into a directory of its own."""
    folder = tmp_path_factory.mktemp("history")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(folder / "site"), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55)

    assert done.returncode == 0, done.stderr

    return folder / "site"


@pytest.fixture
def installed(distribution: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(distribution))
    yield distribution
    for name in [name for name in sys.modules if name.startswith("mxgw_plugin_sqlite_history")]:
        del sys.modules[name]


class Site:
    """A gateway with little retention and the store, and a session under load."""

    def __init__(self, gateway: RunningGateway, session: Session, oracle: RoundRobin, file: Path) -> None:
        self.gateway = gateway
        self.session = session
        self.oracle = oracle
        self._file = file

    @property
    def info(self) -> Any:
        return self.gateway.api.session(self.session.session_id)

    def forget(self, first: int, last: int) -> tuple[int, int]:
        """Delete the batches between two sequences from the file, and return the range that is missing then."""
        connection = sqlite3.connect(self._file, timeout=60)
        with connection:
            chosen = "FROM batches WHERE first >= ? AND last <= ?"
            hole = connection.execute(f"SELECT min(first), max(last) {chosen}", (first, last)).fetchone()
            connection.execute(f"DELETE {chosen}", (first, last))
        connection.close()
        return hole[0], hole[1]

    async def follow(
        self, channel: grpc.aio.Channel, after: int, beyond: int, checker: StreamChecker
    ) -> e.StreamOpened:
        """Resume after a position and judge everything until `beyond`; return StreamOpened."""
        position = e.Position(epoch=self.info.epoch, sequence=after)
        request = es.StreamEventsRequest(session_id=self.session.session_id, start=es.StartPosition(after=position))
        checker.attach(Position(position.epoch, after))
        stream = EventServiceStub(channel).StreamEvents(request)
        opened: e.StreamOpened | None = None
        while checker.position is None or checker.position.sequence < beyond:
            frame = await stream.read()
            opened = opened or frame.opened
            for observation in observed(frame, double_of):
                checker.observe(observation)
        stream.cancel()
        checker.end("CLIENT")
        assert opened is not None
        return opened


@asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[tuple[Site, grpc.aio.Channel]]:
    file = tmp_path / "history.db"
    settings = {
        # Readers may be seconds late on a busy machine: what is judged is how store and log meet.
        **replay_settings(1_500),
        "plugins.enabled": ["backpressure", "replay", "sqlite_history"],
        "plugins.backpressure.queue_events": 3_000,
        "plugins.backpressure.queue_bytes": 4 * MIB,
        "plugins.replay.events": 6_000,
        "plugins.replay.bytes": 8 * MIB,
        "plugins.sqlite_history.file": str(file),
    }
    async with (
        running_gateway(settings) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        yield Site(gateway, session, await subscribe_load(session), file), channel


@pytest.mark.asyncio
async def test_history_and_live_meet_without_a_seam_and_a_hole_in_the_file_is_a_gap_in_its_place(
    installed: Path, tmp_path: Path
) -> None:
    async with site(tmp_path) as (here, channel):
        # Once a subscriber was attached, the log does not hold everything for the first one any more.
        checker = StreamChecker(here.oracle, may_lose=lambda _: False)
        await here.follow(channel, 0, 100, checker)
        await until(lambda: here.info.oldest_sequence > 1_600, 60)
        for position in (0, 1, 777, 1_500, here.info.oldest_sequence - 2):
            checker = StreamChecker(here.oracle, may_lose=lambda _: False)
            opened = await here.follow(channel, position, here.info.head_sequence + 300, checker)

            assert not checker.violations, f"after {position}: {checker.report()}"
            assert (opened.was_resuming, opened.recovered, opened.from_sequence) == (True, True, position)
            # The first part came from the store, the last was live.
            assert opened.oldest_sequence - 1 > position
            assert opened.head_sequence < checker.position.sequence

        first, last = here.forget(400, 1_200)
        losses: list[Lost] = []
        checker = StreamChecker(here.oracle, may_lose=lambda lost: not losses.append(lost))
        opened = await here.follow(channel, 10, here.info.head_sequence + 200, checker)

        assert not checker.violations, checker.report()
        assert not opened.recovered
        assert [(lost.first, lost.last, lost.reason) for lost in losses] == [(first, last, "RING_EVICTED")]

        start = es.StartPosition(after=e.Position(epoch=here.info.epoch, sequence=10))
        request = es.StreamEventsRequest(session_id=here.session.session_id, start=start, on_gap=es.ON_GAP_REFUSE)
        refusal = await refused(EventServiceStub(channel).StreamEvents(request))

        assert refusal.reason == "POSITION_LOST"

        # What `follow` refuses, it refuses in words.
        info, api = here.info, here.gateway.api
        with pytest.raises(SessionNotFound):
            api.follow("unknown")
        with pytest.raises(TypeError, match="after must be a Position"):
            api.follow(info.session_id, 0)
        for wrong in ("x", None, 1.5):
            with pytest.raises(TypeError, match="the sequence of after must be a whole number"):
                api.follow(info.session_id, Position(info.epoch, wrong))
            with pytest.raises(TypeError, match="batch_bytes must be a whole number"):
                api.follow(info.session_id, batch_bytes=wrong)
        for wrong in (0, -1):
            with pytest.raises(ValueError, match=f"batch_bytes is {wrong}; it must be 1 or more"):
                api.follow(info.session_id, batch_bytes=wrong)
        with pytest.raises(ValueError, match="the sequence of after is -1"):
            api.follow(info.session_id, Position(info.epoch, -1))
        with pytest.raises(PositionForeign):
            api.follow(info.session_id, Position(bytes(16), 1))
        with pytest.raises(InvalidRequest, match="ahead of the newest event"):
            api.follow(info.session_id, Position(info.epoch, 1 << 40))

        lag = {metric.name: metric for metric in here.gateway.api.observation.metrics()}

        assert [sample.labels for sample in lag["mxgw_followers"].samples] == [("sqlite_history",)]
        assert lag["mxgw_follower_lost_events_total"].samples[0].value == 0


@pytest.mark.asyncio
async def test_a_killed_gateway_has_written_every_event_once(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    settings = LOAD.replace('"replay", "reattach"', '"reattach", "sqlite_history"').replace("500.0", "2000.0")
    async with restarts(settings) as gateway:
        await gateway.start()

        def written() -> list[tuple[int, int, bytes]]:
            connection = sqlite3.connect(gateway.data / "history.db", timeout=60)
            rows = connection.execute("SELECT first, last, events FROM batches ORDER BY first").fetchall()
            connection.close()
            return rows

        async with client_of(gateway.target) as client:
            session = await client.open(lease_s=900)
            await client.subscribe(session.session_id, [f"Load.Item{number:05d}" for number in range(1, 11)])
            await until(lambda: len(written()) > 20, 60)
            # The gateway is killed while the plugin writes, twice.
            for _ in range(2):
                await gateway.kill()
                before = written()[-1][1]
                await gateway.start()
                await until(lambda before=before: written()[-1][1] > before + 500, 60)
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await client.close(session.session_id)
        await gateway.terminate()
        rows = written()
        sequences = [event.sequence for _, _, events in rows for event in e.EventBatch.FromString(events).events]

        assert sequences == list(range(1, rows[-1][1] + 1))
        assert "lost" not in gateway.log
        await gateway.all_is_gone()


def test_the_example_s_own_tests_pass(distribution: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE / "tests")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MXGW_", "PYTEST"))}
    done = subprocess.run(
        [*command, str(EXAMPLE / "tests")],
        cwd=distribution,
        env={**clean, "PYTHONPATH": str(distribution), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=55,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
