"""The simulator's only source of time: the event loop in a worker, a hand-driven clock in tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Cancellable(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Keep it from running; harmless when it already has."""


class Clock(Protocol):
    """Monotonic seconds for scheduling, wall time for source times, and a way to be called back."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970 (UTC)."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        """Call `callback` in the event loop once `monotonic()` has reached `when`; never from within this call."""


class LoopClock:
    """The running event loop's clock. Create it inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def wall_ns(self) -> int:
        return time.time_ns()

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        return self._loop.call_at(when, callback)
