"""The values that the demo shows: one row per tag, counts and rates. The module `view` draws them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mxgw_cli.latency import LatencyHistogram
from mxgw_cli.render import quality_class

# Rates are averages over about this many seconds.
RATE_WINDOW_S = 5.0
TREND_VALUES = 24


class Rate:
    """A rate in occurrences per second, averaged exponentially. Times are monotonic seconds.

    The memory that it uses does not grow with the number of occurrences.
    """

    __slots__ = ("_rate", "_since", "_started")

    def __init__(self, now: float) -> None:
        self._rate = 0.0
        self._since = now
        self._started = now

    def count(self, now: float, occurrences: int = 1) -> None:
        """Count `occurrences` at `now`."""
        self._rate = self._decayed(now) + occurrences / RATE_WINDOW_S
        self._since = now

    def per_second(self, now: float) -> float:
        """Return the rate at `now`. Shortly after the start, the rate is an average over the time since the start."""
        known = 1.0 - math.exp(-max(now - self._started, 0.25) / RATE_WINDOW_S)
        return self._decayed(now) / known

    def _decayed(self, now: float) -> float:
        return self._rate * math.exp(-(now - self._since) / RATE_WINDOW_S)


@dataclass(slots=True)
class TagRow:
    """One tag with its last values.

    `changed_at` is when the last data change arrived, in monotonic seconds; None before any arrived. `is_lively` says
    whether the value has ever changed.
    """

    tag: str
    rate: Rate
    value: object = None
    raw_quality: int | None = None
    failure: str = ""
    source_time_s: float | None = None
    changed_at: float | None = None
    is_lively: bool = False
    trend: deque[float] = field(default_factory=lambda: deque(maxlen=TREND_VALUES))


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The state of the worker as the gateway last reported it."""

    pid: int = 0
    state: str = "starting"
    rss_bytes: int = 0
    source_health: str = ""
    source_detail: str = ""


class Board:
    """Collects all values to show. `rows` has one row per item serial, in the order in which tags were subscribed."""

    def __init__(self, title: str, now: float) -> None:
        self.title = title
        self.started_at = now
        self.rows: dict[int, TagRow] = {}
        self.ledger = SequenceLedger()
        self.latency = LatencyHistogram()
        self.rate = Rate(now)
        self.worker = WorkerStatus()
        self.notice = ""

    def name_tags(self, tags: Sequence[tuple[int, str]]) -> None:
        """Set the names of tags by item serial. Rows whose values arrived before their names keep these values."""
        rows = {}
        for serial, tag in tags:
            rows[serial] = self.rows.pop(serial) if serial in self.rows else TagRow(tag, Rate(self.started_at))
            rows[serial].tag = tag
        self.rows = rows | self.rows

    def rows_by_interest(self) -> list[TagRow]:
        """Return the rows. Tags whose value has changed at least once come before tags whose value never changed."""
        return sorted(self.rows.values(), key=lambda row: not row.is_lively)

    def data_change(
        self,
        now: float,
        item_serial: int,
        value: object,
        raw_quality: int,
        source_time_s: float | None,
        failure: str,
    ) -> None:
        """Process one data change. When `failure` is not "", the row keeps its earlier value."""
        row = self.rows.get(item_serial)
        if row is None:
            row = self.rows[item_serial] = TagRow(f"item {item_serial}", Rate(self.started_at))
        # The first data change of an item does not count for the rate of changes.
        if row.changed_at is not None:
            row.rate.count(now)
        row.changed_at = now
        row.failure = failure
        if failure:
            return
        # The first value that is not None does not count as a change of the value.
        row.is_lively = row.is_lively or (row.value is not None and value != row.value)
        row.value, row.raw_quality, row.source_time_s = value, raw_quality, source_time_s
        if isinstance(value, bool) or quality_class(raw_quality) != "good":
            return
        if isinstance(value, int | float) and math.isfinite(value):
            row.trend.append(float(value))


class SequenceLedger:
    """Counts the events of one stream that are missing, double or out of order, by looking at their sequence numbers.

    The counts do not rely on the gateway or the client library: missing sequence numbers count as a gap even when no
    `Gap` frame announced them.
    """

    def __init__(self) -> None:
        self.events = 0
        self.duplicates = 0
        self.out_of_order = 0
        self.announced_gaps = 0
        self.silent_gaps = 0
        self._epoch = b""
        self._last = 0
        # The ranges of sequence numbers below `_last` that did not arrive. Each is a pair of its first and last number.
        self._holes: list[tuple[int, int]] = []

    @property
    def gaps(self) -> int:
        """The number of gaps: those that a `Gap` frame announced, and those that no frame announced."""
        return self.announced_gaps + self.silent_gaps

    @property
    def last_sequence(self) -> int:
        return self._last

    def opened(self, epoch: bytes, from_sequence: int) -> None:
        """Prepare for the events of a new stream.

        In a new epoch the first event should have the sequence after `from_sequence`. In the same epoch it should have
        the sequence after the last event of the stream before.
        """
        if epoch != self._epoch:
            self._epoch, self._last, self._holes = epoch, from_sequence, []

    def event(self, sequence: int) -> None:
        """Count one event, and compare its sequence with the sequence of the event before it."""
        self.events += 1
        if sequence == self._last + 1:
            self._last = sequence
        elif sequence > self._last:
            self._holes.append((self._last + 1, sequence - 1))
            self.silent_gaps += 1
            self._last = sequence
        elif self._take_from_hole(sequence):
            self.out_of_order += 1
        else:
            self.duplicates += 1

    def gap(self, last_lost: int) -> None:
        """Count a gap that a `Gap` frame announced. The next event should have the sequence after `last_lost`.

        When the frame does not name sequences, `last_lost` is 0.
        """
        self.announced_gaps += 1
        self._last = max(self._last, last_lost)

    def _take_from_hole(self, sequence: int) -> bool:
        for index, (first, last) in enumerate(self._holes):
            if first <= sequence <= last:
                rest = [(first, sequence - 1), (sequence + 1, last)]
                self._holes[index : index + 1] = [(low, high) for low, high in rest if low <= high]
                return True
        return False
