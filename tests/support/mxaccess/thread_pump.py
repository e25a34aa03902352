"""A message pump for the thread of an apartment, on any system."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from mxgw_worker.backends.sim.timers import Cancellable

T = TypeVar("T")


class _Call:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ThreadPump:
    """Implements `Pump` with a condition, and `Clock` with timers that it runs as messages are dispatched."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self._condition = threading.Condition()
        self._is_woken = False
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()
        self._given: deque[Callable[[], None]] = deque()

    def run(self, function: Callable[[], T]) -> T:
        """Run a function in the thread of this pump, and return its result to another thread."""
        done = threading.Event()
        results: list[T] = []
        errors_: list[Exception] = []

        def run() -> None:
            try:
                results.append(function())
            except Exception as error:
                errors_.append(error)
            done.set()

        self._given.append(run)
        self.wake()
        assert done.wait(30), "the thread of the double has ended"
        if errors_:
            raise errors_[0]
        return results[0]

    def enter(self) -> None:
        self.thread = threading.get_ident()

    def wait(self) -> None:
        with self._condition:
            if not self._is_woken:
                left = self._timers[0][0] - time.perf_counter() if self._timers else None
                if left is None or left > 0:
                    self._condition.wait(left)
            self._is_woken = False

    def dispatch(self) -> bool:
        if self._given:
            self._given.popleft()()
            return True
        if not self._timers or self._timers[0][0] > time.perf_counter():
            return False
        call = heappop(self._timers)[2]
        if call.callback is not None:
            call.callback()
        return True

    def wake(self) -> None:
        with self._condition:
            self._is_woken = True
            self._condition.notify()

    def leave(self) -> None:
        self.thread = None

    def monotonic(self) -> float:
        return time.perf_counter()

    def wall_ns(self) -> int:
        return time.time_ns()

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        call = _Call(callback)
        heappush(self._timers, (when, next(self._numbers), call))
        return call
