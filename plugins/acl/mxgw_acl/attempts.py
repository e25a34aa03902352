"""Failed attempts, limited by token buckets: some at once, then so many a minute."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Whoever has failed longest ago is forgotten beyond this many names.
_CAPACITY = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Attempts:
    """Counts failures by name (a peer, a key id, a user). A success costs nothing."""

    def __init__(
        self, per_minute: float, burst: int, *, clock: Callable[[], float] = time.monotonic, capacity: int = _CAPACITY
    ) -> None:
        self._rate = per_minute / 60
        self._burst = float(burst)
        self._clock = clock
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def failed(self, *names: str) -> float:
        """Count a failure for each name; return 0, or for how many seconds a name of them is over its limit."""
        return max(self._take(name) for name in names)

    def wait_s(self, *names: str) -> float:
        """Return for how many seconds a name of these is over its limit, 0 when none is; counts nothing."""
        return max(self._wait_s(self._filled(self._buckets[name])) if name in self._buckets else 0.0 for name in names)

    def _take(self, name: str) -> float:
        bucket = self._buckets.pop(name, None) or _Bucket(self._burst, self._clock())
        self._buckets[name] = self._filled(bucket)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return self._wait_s(bucket)
        bucket.tokens -= 1
        return 0.0

    def _filled(self, bucket: _Bucket) -> _Bucket:
        now = self._clock()
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket

    def _wait_s(self, bucket: _Bucket) -> float:
        return max(0.0, (1 - bucket.tokens) / self._rate)
