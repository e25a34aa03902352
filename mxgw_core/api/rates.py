"""A rate that is kept in the long run, with some at once after a while without: the token bucket of every limit."""

from __future__ import annotations

import time
from collections.abc import Callable

# Whoever has waited as long as was said must not be a rounding error too early.
_ROUNDING = 1e-9


class TokenBucket:
    """Holds at most `capacity` tokens and gets `per_s` a second back; it begins full. Not safe between threads."""

    __slots__ = ("_at", "_clock", "_tokens", "capacity", "per_s")

    def __init__(self, per_s: float, capacity: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self.capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    @property
    def is_full(self) -> bool:
        """Whether it is as good as a new one."""
        return self._filled() >= self.capacity

    def wait_s(self) -> float:
        """Return how many seconds from now a whole token is there; 0 when one is."""
        missing = 1 - self._filled()
        return missing / self.per_s if missing > _ROUNDING else 0.0

    def spend(self, tokens: float = 1.0) -> None:
        """Take tokens; what is not there is owed."""
        self._tokens = self._filled() - tokens

    def give_back(self, tokens: float = 1.0) -> None:
        """Put tokens back that were taken, up to the capacity."""
        self._tokens = min(self.capacity, self._filled() + tokens)

    def _filled(self) -> float:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        return self._tokens
