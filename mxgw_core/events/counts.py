"""Counters of what happened to a session's subscribers, and the names of the metrics (docs/backpressure.md)."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TypeAlias

from mxgw_core.api.metrics import Distribution

# A key is the name of a metric, and then the values of its labels in the order that LABELS has.
Key: TypeAlias = tuple[str, ...]

OVERFLOW = "mxgw_subscriber_overflow_total"
LOST = "mxgw_events_lost_total"
GAP_FRAMES = "mxgw_gap_frames_total"
DISCONNECTS = "mxgw_subscriber_disconnects_total"
RESUMES = "mxgw_resume_total"
POLICY_ERRORS = "mxgw_policy_hook_errors_total"
STALL = "mxgw_pump_stall_milliseconds_total"

LABELS: dict[str, tuple[str, ...]] = {
    OVERFLOW: ("policy", "kind"),
    LOST: ("reason",),
    GAP_FRAMES: ("reason",),
    DISCONNECTS: ("reason",),
    RESUMES: ("recovered",),
    POLICY_ERRORS: ("plugin",),
    STALL: (),
}

# The highest bound lies above the number of events that the plugin replay keeps by default, 20,000.
REPLAYED_BOUNDS_EVENTS = (0, 10, 100, 1_000, 10_000, 100_000)


class SessionCounts:
    """Counters of one session, including its subscribers that have left.

    Attributes:
        left: the sum of the counts of all subscribers that have left.
        replayed: for each subscriber that resumed, how many events it had to read at that moment.
    """

    def __init__(self) -> None:
        self._counts: Counter[Key] = Counter()
        self.left = SubscriberCounts()
        self.replayed = Distribution(REPLAYED_BOUNDS_EVENTS)

    def count(self, metric: str, *labels: str, by: int = 1) -> None:
        """Add `by` to a counter. `labels` are the values of the labels in `LABELS[metric]`."""
        self._counts[(metric, *labels)] += by

    def total(self, metric: str, *labels: str) -> int:
        """Return the value of one counter."""
        return self._counts[(metric, *labels)]

    def copy(self) -> Counter[Key]:
        """Return a copy of all counters."""
        return self._counts.copy()

    def items(self) -> list[tuple[str, dict[str, str], int]]:
        """Return every counter as name, labels and value, in a stable order."""
        return [
            (key[0], dict(zip(LABELS[key[0]], key[1:], strict=True)), value)
            for key, value in sorted(self._counts.items())
        ]


@dataclass(slots=True)
class SubscriberCounts:
    """How many events and bytes one subscriber got, and how many events it lost for each gap reason."""

    delivered_events: int = 0
    delivered_bytes: int = 0
    filtered_events: int = 0
    lost_events: Counter[str] = field(default_factory=Counter)

    def add(self, other: SubscriberCounts) -> None:
        """Add the counts of another subscriber."""
        self.delivered_events += other.delivered_events
        self.delivered_bytes += other.delivered_bytes
        self.filtered_events += other.filtered_events
        self.lost_events += other.lost_events


@dataclass(slots=True)
class StreamTotals:
    """What one or more sessions got from workers and delivered to subscribers, including subscribers that have left."""

    received_events: int = 0
    received_bytes: int = 0
    given: SubscriberCounts = field(default_factory=SubscriberCounts)
    counts: Counter[Key] = field(default_factory=Counter)
    replayed: Distribution = field(default_factory=lambda: Distribution(REPLAYED_BOUNDS_EVENTS))

    def add(self, other: StreamTotals) -> None:
        """Add the totals of other sessions."""
        self.received_events += other.received_events
        self.received_bytes += other.received_bytes
        self.given.add(other.given)
        self.counts.update(other.counts)
        self.replayed.add(other.replayed)

    def by_labels(self, metric: str) -> dict[tuple[str, ...], int]:
        """Return the counters of one metric. Key: the values of the metric's labels. Value: the counter."""
        return {key[1:]: value for key, value in self.counts.items() if key[0] == metric}


class Rate:
    """Events and bytes per second over about the last ten seconds.

    `mark` records the running totals, at most once per second. The rates follow from the oldest and the newest record.
    """

    _WINDOW_S = 10.0
    _STEP_S = 1.0
    _SETTLING_S = 2.0

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque()
        # Calls of `mark` before this time are ignored.
        self._from = -math.inf
        self.events_per_s = 0.0
        self.bytes_per_s = 0.0

    def restart(self, now: float) -> None:
        """Forget all records, because old events come in one burst.

        Calls of `mark` are ignored until two seconds after `now`: by then the burst is over.
        """
        self._marks.clear()
        self._from = now + self._SETTLING_S
        self.events_per_s = self.bytes_per_s = 0.0

    def mark(self, now: float, events: int, size: int) -> None:
        """Record the running totals at `now` (monotonic seconds), and compute the rates."""
        marks = self._marks
        if now < self._from:
            return
        if marks and now - marks[-1][0] < self._STEP_S:
            return
        marks.append((now, events, size))
        while now - marks[0][0] > self._WINDOW_S:
            marks.popleft()
        began, events_then, size_then = marks[0]
        if now > began:
            self.events_per_s = (events - events_then) / (now - began)
            self.bytes_per_s = (size - size_then) / (now - began)
