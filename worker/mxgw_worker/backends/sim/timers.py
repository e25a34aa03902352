"""The simulator's time: one clock, which the event loop drives (in tests a test drives it), and a heap of all timers.

All timers share one callback of the event loop, so stopping the simulator cancels only one call.
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
    """A scheduled callback that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the callback. Nothing happens when it has run already."""


class Clock(Protocol):
    """Gives monotonic seconds for scheduling, wall time for source times, and callbacks at a given time."""

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back."""

    def wall_ns(self) -> int:
        """Return the wall-clock time in nanoseconds since 1970 (UTC)."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        """Call `callback` in the event loop once `monotonic()` has reached `when`, but never before this method has
        returned.
        """


class LoopClock:
    """The clock of the running event loop. It must be created inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def wall_ns(self) -> int:
        return time.time_ns()

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        return self._loop.call_at(when, callback)


# The longest time for which timer calls run before the event loop can run heartbeats and commands.
SLICE_S = 0.004


class Timer:
    """One pending call. Calls of equal time run in the order in which they were scheduled, which `loop.call_at` does
    not promise.
    """

    __slots__ = ("callback", "number", "when")

    def __init__(self, when: float, number: int, callback: Callable[[], object]) -> None:
        self.when = when
        self.number = number
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.number) < (other.when, other.number)

    def cancel(self) -> None:
        """Cancel the call."""
        self.callback = None


class Timers:
    """Runs calls after delays, until it is closed. `failed` is called when a call has raised an error, which is a
    bug.
    """

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
        """Call `callback` once, `delay_s` seconds from now, but never before this method has returned."""
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
        """Drop all pending calls, and ignore later requests for calls."""
        self._closed = True
        self._heap.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self) -> None:
        if self._armed is not None:
            if self._heap and self._armed_for <= self._heap[0].when:
                # The scheduled callback runs early enough. Running it too early costs less than cancelling it every
                # time.
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
        # Calls that are scheduled meanwhile run in a later iteration of the event loop, because a call that repeats
        # itself must not block the event loop.
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
