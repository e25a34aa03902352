"""The simulator's time: one clock, driven by the event loop or by hand in tests, and every timer in one heap.

All timers share one callback of the event loop, so stopping the simulator cancels one call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

log = logging.getLogger(__name__)


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


# The longest stretch of timer calls before heartbeats and commands, which share the event loop, can run.
SLICE_S = 0.004


class Timer:
    """One pending call. Calls of equal time run in the order in which they were made, which `loop.call_at` does not
    promise.
    """

    __slots__ = ("callback", "number", "when")

    def __init__(self, when: float, number: int, callback: Callable[[], object]) -> None:
        self.when = when
        self.number = number
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.number) < (other.when, other.number)

    def cancel(self) -> None:
        """Keep the call from happening."""
        self.callback = None


class Timers:
    """Runs calls after delays until closed; `failed` gets the error of a call that raised, which is a bug."""

    def __init__(self, clock: Clock, failed: Callable[[str], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._heap: list[Timer] = []
        self._number = 0
        self._armed: Cancellable | None = None
        self._armed_for = 0.0
        self._running = False
        self._closed = False

    def after(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `delay_s` seconds from now and never from within this call."""
        return self.at(self._clock.monotonic() + delay_s, callback)

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, when the monotonic clock has reached `when`."""
        timer = Timer(when, self._number, callback)
        if not self._closed:
            self._number += 1
            heappush(self._heap, timer)
            if not self._running and self._heap[0] is timer:
                self._arm()
        return timer

    def close(self) -> None:
        """Drop every pending call, and ignore later ones."""
        self._closed = True
        self._heap.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self) -> None:
        if self._armed is not None:
            if self._heap and self._armed_for <= self._heap[0].when:
                # The scheduled callback runs early enough. Running too early costs less than cancelling it every time.
                return
            self._armed.cancel()
            self._armed = None
        if self._heap:
            self._armed_for = self._heap[0].when
            self._armed = self._clock.call_at(self._armed_for, self._run)

    def _run(self) -> None:
        self._armed = None
        self._running = True
        now = self._clock.monotonic()
        deadline = now + SLICE_S
        # Calls that these calls schedule wait for the next turn: a call that repeats itself must not block the event
        # loop.
        last_number = self._number
        try:
            while self._heap and self._heap[0].when <= now and self._heap[0].number < last_number:
                callback = heappop(self._heap).callback
                if callback is not None:
                    callback()
                    if self._clock.monotonic() >= deadline:
                        break
        except Exception:
            log.exception("a timer call of the simulator raised")
            self._failed("the simulator has a bug: see the worker's log")
        finally:
            self._running = False
            if not self._closed:
                self._arm()
