"""How much the Python client adds to the cost of reading a stream with grpc.aio and the protobuf library alone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Result
from bench.processes import answer
from bench.window import Window

TITLE = "Python client alone"
SECONDS = 0.8
GOAL = 0.6


def run(context: Context) -> Result:
    """Measure the applications in turn, on a gateway that has more events than they can read.

    Each checks every sequence.
    """
    result = Result("client", TITLE, {"seconds": context.seconds(SECONDS)})
    system = MxgwPremade()
    with context.running([system]):
        ways = {"batches": "library", "one by one": "each", "batch.raw": "raw", "bare": "bare"}
        turns = {name: partial(turn, system, way, context.seconds(SECONDS)) for name, way in ways.items()}
        runs = context.alternate("N=1", turns)
    result.add(runs, "N=1", events_per_cpu_s="events/s", events_per_s="events/s")
    for name in ("batches", "one by one", "batch.raw"):
        goal = None if name == "batch.raw" else GOAL
        result.compare(runs, "events_per_cpu_s", name, "bare", "N=1", goal=goal)
    result.notes.append("bare: grpc.aio, FromString, and the same two fields of every event; per processor second")
    return context.finish(result)


def turn(system: MxgwPremade, way: str, seconds: float) -> dict[str, Any]:
    """Open a session and let one application read it."""
    return asyncio.run(_turn(system, way, seconds))


async def _turn(system: MxgwPremade, way: str, seconds: float) -> dict[str, Any]:
    Window.named().reset()
    async with system.connect() as gateway, gateway.open_session() as session:
        described = {"way": way, "target": system.target, "session_id": session.session_id, "seconds": seconds}
        return await asyncio.to_thread(answer, "application", described, "the application")
