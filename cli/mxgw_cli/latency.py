"""A histogram of latencies with a fixed number of counters, whose memory does not grow with the number of latencies."""

from __future__ import annotations

import bisect
import itertools
import math

_LOWEST_MS = 0.001
_PER_DECADE = 100  # neighbouring buckets differ by 2.3 %
_DECADES = 9


class LatencyHistogram:
    """Counts latencies in logarithmic buckets. A percentile differs from the exact value by at most about 1.2 %."""

    def __init__(self) -> None:
        self._counts = [0] * (_PER_DECADE * _DECADES + 1)
        self.count = 0

    def add(self, milliseconds: float) -> None:
        """Count one latency. A negative latency, which a change of the clock can cause, counts as the lowest one."""
        index = 0 if milliseconds <= _LOWEST_MS else math.ceil(math.log10(milliseconds / _LOWEST_MS) * _PER_DECADE)
        self._counts[min(index, len(self._counts) - 1)] += 1
        self.count += 1

    def percentile(self, fraction: float) -> float | None:
        """Return the latency in ms that `fraction` of all latencies do not exceed; None when nothing was counted."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(fraction * self.count))
        index = bisect.bisect_left(list(itertools.accumulate(self._counts)), wanted)
        upper = _LOWEST_MS * 10 ** (index / _PER_DECADE)
        lower = _LOWEST_MS * 10 ** ((index - 1) / _PER_DECADE) if index else 0.0
        return math.sqrt(lower * upper) if lower else upper
