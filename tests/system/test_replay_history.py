"""A third party's store of older events in front of the log: history, then live, with nothing twice or missing between.

The store is the example mxgw-plugin-sqlite-history, installed as the distribution it is; its recorder is a process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import refused
from support.recording import double_of
from support.replaying import replay_settings, subscribe_load
from support.repository import ROOT
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2_grpc import EventServiceStub
from mxgw_client import Session, connect
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
    """A gateway with little retention and the store, a session under load, and the recorder's process."""

    def __init__(self, gateway: RunningGateway, session: Session, oracle: RoundRobin, file: Path, site: Path) -> None:
        self.gateway = gateway
        self.session = session
        self.oracle = oracle
        self._file = file
        self._site = site
        self._recorder: asyncio.subprocess.Process | None = None

    @property
    def info(self) -> Any:
        return self.gateway.api.session(self.session.session_id)

    async def record(self) -> None:
        self._recorder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mxgw_plugin_sqlite_history.recorder"),
            *("--target", self.gateway.target, "--session", self.session.session_id, "--file", str(self._file)),
            env={**os.environ, "PYTHONPATH": str(self._site)},
        )
        await until(lambda: self.stored() is not None, 60)

    async def stop_recording(self) -> None:
        if self._recorder is not None and self._recorder.returncode is None:
            self._recorder.kill()
            await self._recorder.wait()

    def stored(self) -> tuple[int, int] | None:
        from mxgw_plugin_sqlite_history import EventStore

        store = EventStore(self._file)
        try:
            return store.span(self.info.epoch)
        finally:
            store.close()

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
async def site(installed: Path, tmp_path: Path) -> AsyncIterator[tuple[Site, grpc.aio.Channel]]:
    file = tmp_path / "history.db"
    settings = {
        # Recorder and readers may be seconds late on a busy machine: what is judged is how store and log meet.
        **replay_settings(1_500),
        "plugins.enabled": ["backpressure", "replay", "sqlite_history"],
        "plugins.backpressure.queue_events": 3_000,
        "plugins.backpressure.queue_bytes": 4 * MIB,
        "plugins.replay.events": 6_000,
        "plugins.replay.bytes": 8 * MIB,
        "plugins.sqlite_history.file": str(file),
        "plugins.sqlite_history.page_events": 300,
    }
    async with (
        running_gateway(settings) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        made = Site(gateway, session, await subscribe_load(session), file, installed)
        try:
            yield made, channel
        finally:
            await made.stop_recording()


@pytest.mark.asyncio
async def test_history_and_live_meet_without_a_seam(installed: Path, tmp_path: Path) -> None:
    async with site(installed, tmp_path) as (here, channel):
        await here.record()
        await until(lambda: here.info.oldest_sequence > 1_600, 60)
        for position in (0, 1, 777, 1_500, here.info.oldest_sequence - 2):
            checker = StreamChecker(here.oracle, may_lose=lambda _: False)
            opened = await here.follow(channel, position, here.info.head_sequence + 500, checker)

            assert not checker.violations, f"after {position}: {checker.report()}"
            assert (opened.was_resuming, opened.recovered, opened.from_sequence) == (True, True, position)
            # The first part came from the store, the last was live.
            assert opened.oldest_sequence - 1 > position
            assert opened.head_sequence < checker.position.sequence


@pytest.mark.asyncio
async def test_what_the_store_does_not_have_is_a_gap_in_its_place(installed: Path, tmp_path: Path) -> None:
    async with site(installed, tmp_path) as (here, channel):
        await here.record()
        await until(lambda: here.info.head_sequence > 500, 60)
        await here.stop_recording()
        newest = here.stored()[1]
        await until(lambda: here.info.oldest_sequence > newest + 500, 60)
        losses: list[Lost] = []
        checker = StreamChecker(here.oracle, may_lose=lambda lost: not losses.append(lost))
        opened = await here.follow(channel, 10, here.info.head_sequence + 200, checker)

        # In front of the hole what is stored, behind it what the log holds: no promise of completeness.
        assert not checker.violations, checker.report()
        assert not opened.recovered
        assert [(lost.first, lost.last, lost.reason) for lost in losses] == [
            (newest + 1, opened.oldest_sequence - 1, "RING_EVICTED")
        ]

        start = es.StartPosition(after=e.Position(epoch=here.info.epoch, sequence=10))
        request = es.StreamEventsRequest(session_id=here.session.session_id, start=start, on_gap=es.ON_GAP_REFUSE)
        refusal = await refused(EventServiceStub(channel).StreamEvents(request))

        assert refusal.reason == "POSITION_LOST"

        # The recorder goes on behind what it wrote, and is told of the hole itself; it stays one for all.
        await here.record()
        await until(lambda: here.stored()[1] > newest and here.stored()[1] > here.info.oldest_sequence, 60)
        losses.clear()
        checker = StreamChecker(here.oracle, may_lose=lambda lost: not losses.append(lost))
        opened = await here.follow(channel, 10, here.info.head_sequence + 200, checker)

        assert not checker.violations, checker.report()
        assert not opened.recovered, "the store reaches to the log, and has a hole"
        assert len(losses) == 1
        assert losses[0].first == newest + 1


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
