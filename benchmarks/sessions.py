"""How long a session takes to open, how many stand at once, and the memory they need.

    python benchmarks/sessions.py --sessions 64

Opens 20 sessions one after another, then as many as asked at once. Memory of a worker is given as resident (shared
pages counted in each) and as its own (what ending it would free). Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from mxgw_client import Gateway, connect

from processes import Server, gateway

SEQUENTIAL = 20
OPEN_TIMEOUT_S = 50.0
MIB = 1024 * 1024


async def sequential(client: Gateway) -> list[float]:
    """Return the seconds from OpenSession to READY, one session at a time."""
    durations: list[float] = []
    for _ in range(SEQUENTIAL):
        began = time.perf_counter()
        async with client.open_session(client_name="bench"):
            durations.append(time.perf_counter() - began)
    return durations


async def at_once(client: Gateway, server: Server, sessions: int) -> dict[str, float]:
    """Open sessions at once, and return how long that took and what memory all of them use."""
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        async with asyncio.timeout(OPEN_TIMEOUT_S), asyncio.TaskGroup() as tasks:
            for number in range(sessions):
                tasks.create_task(stack.enter_async_context(client.open_session(client_name=f"bench {number}")))
        took_s = time.perf_counter() - began
        workers = server.process.children()
        resident = [worker.memory_info().rss for worker in workers]
        own = [worker.memory_full_info().uss for worker in workers]
        return {
            "open_at_once": len(workers),
            "open_all_s": round(took_s, 2),
            "worker_rss_mib": mib(statistics.median(resident)),
            "worker_own_mib": mib(statistics.median(own)),
            "gateway_rss_mib": mib(server.rss_bytes()),
        }


async def measure(server: Server, sessions: int) -> dict[str, float]:
    idle_bytes = server.rss_bytes()
    async with connect(server.target, timeout_s=OPEN_TIMEOUT_S) as client:
        durations = await sequential(client)
        crowd = await at_once(client, server, sessions)
    return {
        "sequential": SEQUENTIAL,
        "open_median_ms": round(statistics.median(durations) * 1000, 1),
        "open_max_ms": round(max(durations) * 1000, 1),
        **crowd,
        "gateway_idle_rss_mib": mib(idle_bytes),
        "left_over_processes": len([child for child in server.process.children() if psutil.pid_exists(child.pid)]),
    }


def mib(size_bytes: float) -> float:
    return round(size_bytes / MIB, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64, help="sessions open at once")
    parser.add_argument("--seconds", type=float, help="taken and ignored, so that `make bench ARGS=` serves both")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name:
        settings = f"[limits]\nsessions = {max(64, options.sessions)}\n"
        with gateway(Path(name) / "g", settings) as running:
            print(json.dumps(asyncio.run(measure(running, options.sessions))))
