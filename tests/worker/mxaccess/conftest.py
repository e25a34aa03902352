"""Starts backends for MXAccess on doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from support.mxaccess.rigs import Rig, Start


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
        await rig.backend.stop()

        assert len(rig.sink.failures) == rig.expected_failures
        assert rig.doubled.pump.thread is None
