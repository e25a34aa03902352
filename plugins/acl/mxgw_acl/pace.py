"""How many events a second a key may have: a bucket that all its streams empty."""

from __future__ import annotations

import time
from collections.abc import Callable

from mxgw_core.api import TokenBucket

# What may go out at once after a while without events, in seconds of the rate; at least one event.
_BURST_S = 1.0


class KeyPace:
    """Implements `StreamPace` for all streams of one key; lives in the event loop."""

    def __init__(self, events_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = TokenBucket(events_per_s, max(1.0, events_per_s * _BURST_S), clock=clock)

    @property
    def events_per_s(self) -> float:
        """The rate."""
        return self._bucket.per_s

    def wait_s(self) -> float:
        """Return for how many seconds no events may go out; 0: they may now."""
        return self._bucket.wait_s()

    def sent(self, events: int) -> None:
        """So many events went out; what was not due yet is owed."""
        self._bucket.spend(events)
