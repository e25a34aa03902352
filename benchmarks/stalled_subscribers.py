"""Whether a healthy subscriber is disturbed when seven others of its session stop reading.

    python benchmarks/stalled_subscribers.py --seconds 20

There is one gateway and one session with a load of 10,000 events/s. A healthy subscriber in a separate process measures
the delay of every event from the worker's clock to its own, without a pause. Phases without and with stalled
subscribers take turns, so that other work on the machine disturbs both kinds alike. The stalled subscribers run in
another process. Each has its own connection with gRPC's default options, which takes megabytes before a write blocks.
All this is done for each overflow policy: with `disconnect` the gateway cuts the stalled subscribers, with the other
policies they stay.

The output is one JSON line. `rss_growth_mib` is, per stalled subscriber, the largest memory of the gateway in a phase,
less its memory before. `held_mib` is what the gateway itself reports that it holds for each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from mxgw_client import Gateway, Session, connect

from bench.listener import Child, stream
from bench.serving import Server, gateway

ITEMS, RATE, STALLED, ROUNDS = 1_000, 10_000, 7, 2
POLICIES = ("disconnect", "drop_oldest", "conflate")
ALONE_PART = 0.5
SETTLE_S = 1.0
LOOK_S = 0.2
MIB = 1024 * 1024
SETTINGS = f"""
[plugins]
enabled = ["backpressure"]
[backends.sim]
profile = "load"
rate = {RATE}
items = {ITEMS}
"""


# The stalled subscribers


async def stalled(target: str, session_id: str, policy: str) -> None:
    """Read two frames of each stream, and then nothing until stdin ends."""
    calls = [stream(target, session_id, policy) for _ in range(STALLED)]
    for call in calls:
        await call.read()
        await call.read()
    print(json.dumps("stalled"), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # end like a client that crashes, without closing its stream


# The phases


@asynccontextmanager
async def loaded_session(server: Server) -> AsyncIterator[tuple[Gateway, Session, Child]]:
    """Yield a session under load with its healthy subscriber."""
    async with connect(server.target) as client, client.open_session() as session:
        reader = Child.listener(server.target, session.session_id)
        try:
            while not (await session.subscribers()).subscribers:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.05)
            await session.subscribe(*(f"Load.Item{number:05d}" for number in range(1, ITEMS + 1)))
            await asyncio.sleep(SETTLE_S)
            yield client, session, reader
        finally:
            reader.end()


async def measured(policy: str, seconds: float) -> dict[str, object]:
    """Measure with one policy, and return the figures."""
    alone: list[dict[str, float]] = []
    beside: list[dict[str, float]] = []
    growth_mib, left, cut_after_s, held_mib = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name, gateway(Path(name) / "g", SETTINGS) as server:
        async with loaded_session(server) as (_, session, reader):
            for _ in range(ROUNDS):
                await reader.ask()
                await asyncio.sleep(seconds * ALONE_PART)
                alone.append(await reader.ask())
                before = server.rss_bytes()
                described = {"target": server.target, "session_id": session.session_id, "policy": policy}
                child = Child([sys.executable, __file__, "--stalled", json.dumps(described)])
                try:
                    await child.line()
                    await reader.ask()
                    peak, began, gone_s, held = before, time.monotonic(), 0.0, 0
                    while time.monotonic() - began < seconds:
                        await asyncio.sleep(LOOK_S)
                        peak = max(peak, server.rss_bytes())
                        others = (await session.subscribers()).subscribers[1:]
                        held = max(held, sum(subscriber.backlog_bytes for subscriber in others))
                        if not others and not gone_s:
                            gone_s = time.monotonic() - began
                    beside.append(await reader.ask())
                    growth_mib.append((peak - before) / MIB / STALLED)
                    held_mib.append(held / MIB / STALLED)
                    left.append(len(others))
                    cut_after_s.append(gone_s)
                finally:
                    child.end()
                await asyncio.sleep(SETTLE_S)
    p99_alone, p99_beside = ([run["p99_ms"] for run in runs] for runs in (alone, beside))
    return {
        "p50_ms_alone": rounded(run["p50_ms"] for run in alone),
        "p50_ms_beside_stalled": rounded(run["p50_ms"] for run in beside),
        "p99_ms_alone": rounded(p99_alone),
        "p99_ms_beside_stalled": rounded(p99_beside),
        "p99_ms_difference": round(statistics.median(p99_beside) - statistics.median(p99_alone), 2),
        "events": int(sum(run["events"] for run in (*alone, *beside))),
        "missed": int(beside[-1]["missed"]),
        "gaps": int(beside[-1]["gaps"]),
        "stalled_left": left,
        "cut_after_s": rounded(cut_after_s),
        "rss_growth_mib": rounded(growth_mib),
        "held_mib": rounded(held_mib),
    }


def rounded(figures: Any) -> list[float]:
    return [round(figure, 2) for figure in figures]


async def main(seconds: float, policies: list[str]) -> None:
    began = time.monotonic()
    result = {policy: await measured(policy, seconds) for policy in policies}
    figures = {"events_per_s": RATE, "stalled": STALLED, "seconds": seconds, "rounds": ROUNDS, **result}
    print(json.dumps({**figures, "elapsed_s": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the stalled ones do not read, each time")
    parser.add_argument("--policy", action="append", default=[], help="one policy; may be given several times")
    parser.add_argument("--stalled", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stalled:
        uvloop.run(stalled(**options.stalled))
    else:
        asyncio.run(main(options.seconds, options.policy or list(POLICIES)))
