"""The cases by name."""

from __future__ import annotations

from collections.abc import Callable

from bench.cases import latency, throughput
from bench.context import Context
from bench.measuring import Result

CASES: dict[str, tuple[str, Callable[[Context], Result]]] = {
    "throughput": (throughput.TITLE, throughput.run),
    "latency": (latency.TITLE, latency.run),
}
