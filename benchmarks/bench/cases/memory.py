"""The memory of the gateway and its workers: at rest, per session with eight subscribers, and under load.

A new gateway is started for every turn, so that memory left by an earlier turn is not counted.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.context import Context
from bench.gateway import Mxgw, children_of
from bench.measuring import Result
from bench.processes import environment, rss_bytes
from bench.systems import Load

TITLE = "Memory"
SESSIONS, SUBSCRIBERS, RATE = 8, 8, 1_000
SECONDS = 4.0
MIB = 1024 * 1024
IDLE_GOAL_MIB, SESSION_GOAL_MIB, WORKER_GOAL_MIB = 60.0, 8.0, 30.0
BARE = """
import asyncio, google.protobuf.message
print([line for line in open("/proc/self/status") if line.startswith("VmRSS")][0].split()[1])
"""


def run(context: Context) -> Result:
    """Measure with the default limits and the default retention."""
    result = Result(
        "memory",
        TITLE,
        {"sessions": SESSIONS, "subscribers of each": SUBSCRIBERS, "events/s of each": RATE, "seconds": SECONDS},
    )
    runs = context.alternate(
        "memory", {"mxgw": lambda: measured(context), "bare Python": lambda: {"worker_mib": bare_mib()}}
    )
    circumstance = f"{SESSIONS} sessions of {SUBSCRIBERS}"
    result.add(runs, circumstance, idle_mib="MiB", session_mib="MiB", loaded_session_mib="MiB", worker_mib="MiB")
    result.add(runs, circumstance, worker_own_mib="MiB")
    result.limit(runs, "mxgw", "idle_mib", circumstance, IDLE_GOAL_MIB)
    result.limit(runs, "mxgw", "loaded_session_mib", circumstance, SESSION_GOAL_MIB)
    result.limit(runs, "mxgw", "worker_mib", circumstance, WORKER_GOAL_MIB)
    result.compare(runs, "worker_mib", "mxgw", "bare Python", circumstance)
    result.notes.append("session: gateway memory per session with quiet streams; loaded: the same at its events/s")
    result.notes.append("worker: resident, pages shared with other workers counted in each; own: what ending it frees")
    result.notes.append("bare Python: a process that imported asyncio and protobuf")
    return context.finish(result)


def measured(context: Context) -> Mapping[str, Any]:
    """Start a gateway and return its figures."""
    number = len(list(context.directory.iterdir()))
    system = Watched(name=f"mxgw-{number}", roomy=False)
    with context.running([system]):
        idle = rss_bytes(system.server_pid)
        system.turn(Load(SUBSCRIBERS, 0.5, rate=1, sessions=SESSIONS))
        quiet = system.gateway_bytes
        system.turn(Load(SUBSCRIBERS, context.seconds(SECONDS), rate=RATE, sessions=SESSIONS))
    return {
        "idle_mib": idle / MIB,
        "session_mib": (quiet - idle) / SESSIONS / MIB,
        "loaded_session_mib": (system.gateway_bytes - idle) / SESSIONS / MIB,
        "worker_mib": statistics.median(system.worker_bytes) / MIB,
        "worker_own_mib": statistics.median(system.worker_own_bytes) / MIB,
    }


class Watched(Mxgw):
    """Reads the memory of all processes after the readers have finished and before the sessions are closed."""

    gateway_bytes = 0
    worker_bytes: tuple[int, ...] = ()
    worker_own_bytes: tuple[int, ...] = ()

    def read(self, load: Load, pids: list[list[int]], **arguments: object) -> dict[str, Any]:
        result = super().read(load, pids, **arguments)
        workers = children_of(self.server_pid)
        self.gateway_bytes = rss_bytes(self.server_pid)
        self.worker_bytes = tuple(map(rss_bytes, workers))
        self.worker_own_bytes = tuple(map(own_bytes, workers))
        return result


def own_bytes(pid: int) -> int:
    """Return the memory of a process that it shares with no other process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))


def bare_mib() -> float:
    done = subprocess.run(
        [sys.executable, "-I", "-c", BARE], check=True, capture_output=True, text=True, env=environment()
    )
    return int(done.stdout) / 1024
