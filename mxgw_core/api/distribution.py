"""Observations counted by size, for histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from mxgw_core.api.metrics import MetricBuckets


class Distribution:
    """How many observations were at most each of `bounds`, which ascend; whatever is larger counts as well."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add(self, other: Distribution) -> None:
        """Count what another one with the same bounds counted."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def buckets(self) -> MetricBuckets:
        """Return the counts so far, cumulative."""
        cumulative, total = [], 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return MetricBuckets(self._bounds, cumulative[:-1], total, self._sum)
