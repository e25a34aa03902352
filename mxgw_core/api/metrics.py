"""Metrics. For plugins that count or measure something (hook `mxgw_metrics`), and for plugins that publish all metrics.

Names follow the conventions of OpenMetrics: they end with a base unit (`_seconds`, `_bytes`), and names of counters
with `_total`. A label must have few different values. So the id of a session, item or key is no label, nor is anything
else that clients can create without limit.
"""

from __future__ import annotations

import enum
import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mxgw_core.api.texts import check_texts

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
# Names of labels that are refused: clients could create values without limit, or a value would reveal who does what.
_FORBIDDEN_LABELS = frozenset(
    {"session", "session_id", "item", "tag", "key", "key_id", "owner", "client", "peer", "le"}
)
# Names with these endings are refused, because the formats that publish metrics add the endings themselves.
_RESERVED_ENDINGS = ("_created", "_bucket", "_count", "_sum")


class MetricKind(enum.Enum):
    """The kind of a metric: a counter never decreases, a gauge can, and a histogram counts observations by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricBuckets:
    """The value of a histogram.

    `bounds` are in ascending order. `counts` has for each bound the number of observations that are not larger than
    this bound. `count` and `sum` are the number and the sum of all observations, also of those above the last bound.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    count: int
    sum: float

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.counts):
            raise ValueError(f"a histogram has {len(self.bounds)} bounds and {len(self.counts)} counts")
        if not all(a < b for a, b in pairwise(self.bounds)):
            raise ValueError("the bounds of a histogram must ascend")
        if not all(a <= b for a, b in pairwise((*self.counts, self.count))):
            raise ValueError("the counts of a histogram are cumulative")


class Distribution:
    """Counts observations by size, for a histogram. `bounds` must be in ascending order."""

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
        """Add the counts of another distribution, which must have the same bounds."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def buckets(self) -> MetricBuckets:
        """Return the value of a histogram of all observations so far."""
        cumulative, total = [], 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return MetricBuckets(self._bounds, cumulative[:-1], total, self._sum)


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One value of a metric. `labels` are the values of the metric's labels, in the order of the label names.

    Raises:
        TypeError: `labels` is a single text.
    """

    value: float | MetricBuckets
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_texts("MetricSample.labels", self.labels)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its present values.

    Attributes:
        name: the name with its unit; for a counter it ends in `_total`.
        text: one sentence that says what is counted or measured.
        labels: the names of the labels. The labels of each sample are in the same order.

    Raises:
        TypeError: `labels` is a single text.
        ValueError: a name, label or sample breaks the rules of this module.
    """

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    samples: Sequence[MetricSample] = ()

    def __post_init__(self) -> None:
        check_texts("Metric.labels", self.labels)
        if not _NAME.match(self.name) or self.name.endswith(_RESERVED_ENDINGS):
            raise ValueError(f"{self.name!r} is no name of a metric")
        if (self.kind is MetricKind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: the names of counters end in _total, and no others do")
        for label in self.labels:
            if not _NAME.match(label) or label in _FORBIDDEN_LABELS:
                raise ValueError(f"{self.name}: {label!r} must not be a label")
        for sample in self.samples:
            self._check(sample)

    def _check(self, sample: MetricSample) -> None:
        if len(sample.labels) != len(self.labels):
            raise ValueError(f"{self.name}: {sample.labels} are no values for the labels {self.labels}")
        if isinstance(sample.value, MetricBuckets) != (self.kind is MetricKind.HISTOGRAM):
            raise ValueError(f"{self.name}: buckets are the value of a histogram, and of nothing else")
        if self.kind is MetricKind.COUNTER and not (
            isinstance(sample.value, int | float) and 0 <= sample.value < math.inf
        ):
            raise ValueError(f"{self.name}: {sample.value} is no value of a counter")


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels."""
    return Metric(name, MetricKind.COUNTER, text, samples=(MetricSample(value),))


def gauge(name: str, text: str, value: float | None) -> Metric:
    """Return a gauge without labels. When `value` is None, because the value is not known now, it has no sample."""
    return Metric(name, MetricKind.GAUGE, text, samples=() if value is None else (MetricSample(value),))
