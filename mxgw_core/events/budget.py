"""Did a piece of third-party code hold up the event loop?"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeAlias

if sys.platform != "win32":
    import resource


class Budget:
    """Measures a block; `overrun_s` is how long it took when it took too long through its own fault, else 0.

    A block that was merely interrupted (another process had the CPU) is not to blame: it is one that used more CPU
    than its budget, or gave the CPU away by sleeping or waiting. Nor is it to blame for a collection of all the
    gateway's garbage that falls due in it, so that is put off.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
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
        if wall_s > self.budget_s and (time.thread_time() - cpu > self.budget_s or _waits() > waits):
            self.overrun_s = wall_s


# Server handle, item handle and kind of an event.
Item: TypeAlias = tuple[int, int, int]


class OverBudget(Exception):
    """A piece of third-party code took too long; the text says how long."""


def wanted(
    keep: Callable[[int, int, int], bool], items: Iterable[Item], budget_s: float, per_answer_s: float
) -> set[Item]:
    """Return the items that `keep(server_handle, item_handle, kind)` wants.

    Raises:
        OverBudget: all answers together took longer than `budget_s` and `per_answer_s` for each.
        Exception: what `keep` raises.
    """
    found: set[Item] = set()
    rest, asked = iter(items), 0
    while True:  # once more when the time was gone, and through no fault of `keep`
        with Budget(budget_s) as budget:
            began = time.perf_counter()
            until = began + budget_s
            for item in rest:
                asked += 1
                until += per_answer_s
                if keep(*item):
                    found.add(item)
                if time.perf_counter() > until:
                    budget.budget_s = until - began
                    break
            else:
                return found
        if budget.overrun_s:
            raise OverBudget(f"took {budget.overrun_s * 1000:.1f} ms for {asked} items")


def _waits() -> int:
    """Return how often this thread gave the CPU away of its own accord."""
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
