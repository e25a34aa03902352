"""Did a piece of third-party code hold up the event loop?"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from types import TracebackType

if sys.platform != "win32":
    import resource


class Budget:
    """Measures a block; `overrun_s` is how long it took when it took too long through its own fault, else 0.

    A block that was merely interrupted (another process had the CPU) is not to blame: it is one that used more CPU
    than its budget, or gave the CPU away by sleeping or waiting. Nor is it to blame for a collection of all the
    gateway's garbage that falls due in it, so that is put off.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._began = (0.0, 0.0, 0)
        self._collects = False
        self.overrun_s = 0.0

    def __enter__(self) -> Budget:
        self._collects = gc.isenabled()
        gc.disable()
        self._began = (time.perf_counter(), time.thread_time(), _waits())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._collects:
            gc.enable()
        wall, cpu, waits = self._began
        wall_s = time.perf_counter() - wall
        if wall_s > self._budget_s and (time.thread_time() - cpu > self._budget_s or _waits() > waits):
            self.overrun_s = wall_s


class OverBudget(Exception):
    """A piece of third-party code took too long; the text says how long."""


class BudgetedKeep:
    """A policy's `keep`: asked once per item and kind, and given up when the answers take too long.

    Called as `keep`; raises `OverBudget`, or what `keep` raises.
    """

    def __init__(self, keep: Callable[[int, int, int], bool], budget_s: float, per_answer_s: float) -> None:
        self._keep = keep
        self._budget_s = budget_s
        self._per_answer_s = per_answer_s
        self._taken_s = 0.0
        self._answers: dict[tuple[int, int, int], bool] = {}

    def __call__(self, server_handle: int, item_handle: int, kind: int) -> bool:
        item = server_handle, item_handle, kind
        answer = self._answers.get(item)
        if answer is None:
            answer = self._answers[item] = self._ask(item)
        return answer

    def _ask(self, item: tuple[int, int, int]) -> bool:
        with Budget(self._per_answer_s) as budget:
            answer = bool(self._keep(*item))
        # Only answers that took longer than one may are added up: the clock itself is most of the others.
        self._taken_s += budget.overrun_s
        if self._taken_s > self._budget_s:
            raise OverBudget(f"took {self._taken_s * 1000:.1f} ms for {len(self._answers) + 1} items")
        return answer


def _waits() -> int:
    """Return how often this thread gave the CPU away of its own accord."""
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
