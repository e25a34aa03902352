"""The time from OpenSession to READY: without and with a warm pool, compared with the start of a plain Python process.

The Python process imports as much as a worker.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from mxgw_core.config.models import WorkerSettings

from bench.context import Context
from bench.gateway import Mxgw
from bench.measuring import Result
from bench.processes import environment
from bench.systems import System

TITLE = "OpenSession to READY"
OPENED = 5
# The pause between two openings. In this time the next spare worker becomes ready, so that its start does not slow down
# the opening that is measured.
PAUSE_S = 0.4
COLD_GOAL_MS, WARM_GOAL_MS = 150.0, 25.0
POOL = "[workers]\nwarm_pool = 2\n"
IMPORTS = "import asyncio, google.protobuf.message, mxgw_worker.worker, mxgw_worker.backends.sim"


def run(context: Context) -> Result:
    """Measure openings one after the other, with the real worker and the backend `sim`."""
    result = Result("opening", TITLE, {"opened per turn": OPENED, "backend": "sim"})
    systems: list[System] = [Plain(name="cold", roomy=False)]
    has_pool = "warm_pool" in WorkerSettings.model_fields
    if has_pool:
        systems.append(Plain(name="warm pool", roomy=False, settings=POOL))
    else:
        result.notes.append("this version has no warm pool (workers.warm_pool)")
    with context.running(systems):
        turns = {system.name: (lambda system=system: opened(system)) for system in systems}
        runs = context.alternate("sim", {**turns, "bare Python": python_started})
    result.add(runs, "sim", median_ms="ms", slowest_ms="ms")
    result.limit(runs, "cold", "median_ms", "sim", COLD_GOAL_MS)
    if has_pool:
        result.limit(runs, "warm pool", "median_ms", "sim", WARM_GOAL_MS)
        result.compare(runs, "median_ms", "warm pool", "cold", "sim")
    result.compare(runs, "median_ms", "cold", "bare Python", "sim")
    return context.finish(result)


class Plain(Mxgw):
    """The unchanged command `mxgw serve`."""

    @property
    def launcher(self) -> tuple[str, ...]:
        return ("-m", "mxgw_cli")


def opened(system: Mxgw) -> Mapping[str, Any]:
    return asyncio.run(_opened(system))


async def _opened(system: Mxgw) -> Mapping[str, Any]:
    took: list[float] = []
    async with system.connect() as gateway:
        for _ in range(OPENED):
            await asyncio.sleep(PAUSE_S)
            began = time.perf_counter()
            async with gateway.open_session(backend="sim"):
                took.append((time.perf_counter() - began) * 1000)
    return {"median_ms": statistics.median(took), "slowest_ms": max(took)}


def python_started() -> Mapping[str, Any]:
    took: list[float] = []
    for _ in range(OPENED):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", IMPORTS], check=True, env=environment())
        took.append((time.perf_counter() - began) * 1000)
    return {"median_ms": statistics.median(took), "slowest_ms": max(took)}
