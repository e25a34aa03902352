"""How many events a second a key may have: a bucket that all its streams empty."""

from __future__ import annotations

import time
from collections.abc import Callable

# What may go out at once after a while without events, in seconds of the rate.
_BURST_S = 1.0


class KeyPace:
    """Implements `StreamPace` for all streams of one key; lives in the event loop."""

    def __init__(self, events_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.events_per_s = events_per_s
        self._clock = clock
        self._tokens = events_per_s * _BURST_S
        self._at = clock()

    def wait_s(self) -> float:
        """Return for how many seconds no events may go out; 0: they may now."""
        self._fill()
        return 0.0 if self._tokens > 0 else -self._tokens / self.events_per_s + 1 / self.events_per_s

    def sent(self, events: int) -> None:
        """So many events went out; what was not due yet is owed."""
        self._fill()
        self._tokens -= events

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self.events_per_s * _BURST_S, self._tokens + (now - self._at) * self.events_per_s)
        self._at = now
