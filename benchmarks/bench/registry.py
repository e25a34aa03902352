"""All cases by their names."""

from __future__ import annotations

from collections.abc import Callable

from bench.cases import client, filters, growth, latency, memory, opening, plugins, replay, snapshot, throughput, worker
from bench.context import Context
from bench.measuring import Result

CASES: dict[str, tuple[str, Callable[[Context], Result]]] = {
    "throughput": (throughput.TITLE, throughput.run),
    "latency": (latency.TITLE, latency.run),
    "growth": (growth.SUBSCRIBERS_TITLE, growth.subscribers),
    "sessions": (growth.SESSIONS_TITLE, growth.sessions),
    "replay": (replay.TITLE, replay.run),
    "snapshot": (snapshot.TITLE, snapshot.run),
    "filters": (filters.TITLE, filters.run),
    "plugins": (plugins.TITLE, plugins.run),
    "opening": (opening.TITLE, opening.run),
    "memory": (memory.TITLE, memory.run),
    "client": (client.TITLE, client.run),
    "worker": (worker.TITLE, worker.run),
}
