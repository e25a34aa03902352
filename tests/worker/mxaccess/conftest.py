"""Starts backends for MXAccess on doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from support.mxaccess import sources
from support.mxaccess.rigs import Rig, Start
from support.mxaccess.sources import Source


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Starts backends on doubles, and stops them after the test. None may have failed unexpectedly."""
    rigs: list[Rig] = []

    async def started(
        options: dict[str, object] | None = None, sim: dict[str, object] | None = None, **knobs: Any
    ) -> Rig:
        rig = Rig(options or {}, {"resolve_delay_s": 0.001, "completion_delay_s": 0.001, **(sim or {})}, **knobs)
        rigs.append(rig)
        return await rig.start()

    yield started
    for rig in rigs:
        rig.double.released.set()
        rig.doubled.alarm_manager.go_on.set()
        await rig.backend.stop()

        assert len(rig.sink.failures) == rig.expected_failures
        assert rig.doubled.pump.thread is None


@pytest_asyncio.fixture(params=[*sources.NAMES, pytest.param(sources.GALAXY, marks=pytest.mark.mxaccess)])
async def source(request: pytest.FixtureRequest) -> AsyncIterator[Source]:
    """Each source that behaves as MXAccess does."""
    why = sources.missing(request.param)
    if why:
        pytest.skip(why)
    source = Source(request.param)
    await source.start()
    yield source
    await source.stop()

    assert not source.sink.failures
    assert not source.sink.gaps
