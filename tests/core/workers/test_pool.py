"""Spare workers: taken alive, replaced when they are gone, and never left behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil
import pytest
from support.waiting import until
from support.workers import started_workers

from mxgw_core.removals import Removals
from mxgw_core.workers import process
from mxgw_core.workers.pool import WarmPool

pytestmark = pytest.mark.asyncio

Running = Callable[..., AbstractAsyncContextManager[WarmPool]]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    """Keep a pool of so many spares filled while the block runs; `taken` processes are ended afterwards."""

    @asynccontextmanager
    async def run(size: int, kind: str = "sim") -> AsyncIterator[WarmPool]:
        pool = WarmPool(size, kind, lambda name: tmp_path / f"spare-{name}.log", remove=Removals().remove)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pool.run(), name="pool")
            try:
                yield pool
            finally:
                pool.stop()

    return run


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_spares_get_ready_and_the_one_that_is_taken_lives_on_with_the_log_of_its_session(
    running: Running, tmp_path: Path
) -> None:
    async with running(2) as pool:
        await until(lambda: pool.ready == 2, 60)
        before = started_workers()
        taken = pool.take(tmp_path / "worker.log")

        assert taken is not None
        assert taken.pid in before
        assert (tmp_path / "worker.log").exists()
        assert len(_names(tmp_path)) == 2

    assert taken.is_alive()

    taken.dismiss()

    assert await taken.exited == 0


async def test_a_taken_spare_is_replaced_only_when_its_session_says_so(running: Running, tmp_path: Path) -> None:
    async with running(1) as pool:
        await until(lambda: pool.ready, 60)
        taken = pool.take(tmp_path / "worker.log")

        assert taken is not None
        assert pool.take(tmp_path / "other.log") is None

        for _ in range(10):
            await asyncio.sleep(0)

        assert started_workers() == [taken.pid]

        pool.refill()
        await until(lambda: pool.ready, 60)
        taken.dismiss()
        await taken.exited


async def test_a_spare_that_is_killed_is_replaced(running: Running, tmp_path: Path) -> None:
    async with running(1) as pool:
        await until(lambda: pool.ready, 60)
        (killed,) = started_workers()
        psutil.Process(killed).kill()
        await until(lambda: pool.ready and started_workers() not in ([], [killed]), 60)

    assert _names(tmp_path) == ["spare-ended.log"]


async def test_a_spare_that_died_a_moment_ago_is_not_given_to_a_session(running: Running, tmp_path: Path) -> None:
    async with running(1) as pool:
        await until(lambda: pool.ready, 60)
        (pid,) = started_workers()
        killed = psutil.Process(pid)
        killed.kill()
        while not _has_ended(killed):
            pass  # the event loop must not have its turn: it would hear of the end

        assert pool.take(tmp_path / "worker.log") is None


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_spares_that_cannot_live_are_not_started_over_and_over(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "python_command", lambda *_: ([sys.executable, "-c", "raise SystemExit(1)"], {}))
    async with running(3) as pool:
        await until(lambda: "exit code 1" in caplog.text, 60)
        for _ in range(100):
            await asyncio.sleep(0.001)

        assert pool.ready == 0
        assert caplog.text.count("exit code 1") == 1


async def test_a_kind_of_backend_that_cannot_be_imported_is_no_matter_for_a_spare(running: Running) -> None:
    async with running(1, "nonsense") as pool:
        await until(lambda: pool.ready, 60)


async def test_a_pool_that_is_stopped_while_a_spare_imports_leaves_none(running: Running, tmp_path: Path) -> None:
    async with running(1):
        await until(started_workers)

    assert not started_workers()
    assert not _names(tmp_path)


async def test_logs_that_cannot_be_removed_or_renamed_cost_spares_and_nothing_else(
    running: Running, tmp_path: Path
) -> None:
    async with running(1) as pool:
        await until(lambda: pool.ready == 1, 60)
        (pid,) = started_workers()
        log = tmp_path / _names(tmp_path)[0]
        log.unlink()
        log.mkdir()  # it can replace neither a file nor be unlinked
        (tmp_path / "worker.log").touch()

        assert pool.take(tmp_path / "worker.log") is None

        pool.refill()
        await until(lambda: pool.ready == 1 and not psutil.pid_exists(pid), 60)

        assert log.is_dir()


async def test_a_spare_whose_log_cannot_become_that_of_a_session_is_replaced(running: Running, tmp_path: Path) -> None:
    async with running(1) as pool:
        await until(lambda: pool.ready == 1, 60)
        (pid,) = started_workers()
        (tmp_path / "worker.log").mkdir()

        assert pool.take(tmp_path / "worker.log") is None

        pool.refill()
        await until(lambda: pool.ready == 1 and not psutil.pid_exists(pid), 60)
