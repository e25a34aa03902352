"""Did a piece of third-party code hold up the event loop?"""

from __future__ import annotations

import sys
import time
from types import TracebackType

if sys.platform != "win32":
    import resource


class Budget:
    """Measures a block; `overrun_s` is how long it took when it took too long through its own fault, else 0.

    A block that was merely interrupted (another process had the CPU) is not to blame: it is one that used more CPU
    than its budget, or gave the CPU away by sleeping or waiting.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._began = (0.0, 0.0, 0)
        self.overrun_s = 0.0

    def __enter__(self) -> Budget:
        self._began = (time.perf_counter(), time.thread_time(), _waits())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, cpu, waits = self._began
        wall_s = time.perf_counter() - wall
        if wall_s > self._budget_s and (time.thread_time() - cpu > self._budget_s or _waits() > waits):
            self.overrun_s = wall_s


def _waits() -> int:
    """Return how often this thread gave the CPU away of its own accord."""
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
