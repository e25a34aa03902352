"""One reader of a session's log: a cursor, its limits and policy, and what was set aside for it.

Usually a subscriber costs nothing but its cursor. Once its policy had to act, the events it may still read are set
aside in its own bounded backlog, so that a stalled reader never holds the shared log.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import EventFilter, Lag, OverflowPolicy, QueueLimits
from mxgw_core.events.log import Chunk, EventLog, LogGap
from mxgw_core.events.records import event_head, events_prefix, record_bounds

# Filtered subscribers are told how far they are after this many events that were not for them.
PROGRESS_EVENTS = 1000
# What is set aside comes in pieces of about this size, far below any message limit.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to `sequence` was delivered, filtered or covered by a gap."""

    sequence: int


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over; `error` says why."""

    error: GatewayError


@dataclass(frozen=True, slots=True)
class Control:
    """A frame that is no event, ready to be sent."""

    frame: bytes


Item: TypeAlias = Chunk | LogGap | Progress | Control | End


@dataclass(slots=True)
class SubscriberFigures:
    """What one subscriber was given and what it lost, by gap reason."""

    delivered_events: int = 0
    delivered_bytes: int = 0
    filtered_events: int = 0
    lost_events: Counter[str] = field(default_factory=Counter)


class Subscriber:
    """A cursor into one log. Made by `Distributor.attach`; read with `take`, and `wait` when there is nothing.

    Attributes:
        cursor: everything up to here was taken from the log (delivered, set aside, or dropped with a gap).
        delivered: everything up to here was handed to the reader, filtered, or covered by a gap: safe to resume after.
    """

    def __init__(
        self,
        subscriber_id: str,
        log: EventLog,
        cursor: int,
        limits: QueueLimits,
        policy: OverflowPolicy,
        filters: Sequence[EventFilter],
        clock: Callable[[], float],
        *,
        client_name: str,
        peer: str,
    ) -> None:
        self.id = subscriber_id
        self.client_name = client_name
        self.peer = peer
        self.limits = limits
        self.policy = policy
        self.policy_name = policy.name
        self.filters = tuple(filters)
        self.attached_at = clock()
        self.figures = SubscriberFigures()
        self.cursor = cursor
        self.delivered = cursor
        self.end: End | None = None
        # Called once when the stream is over for the reader; set by whoever serves it.
        self.on_end: Callable[[], None] | None = None
        # Events dropped by `DropNewest` begin here while it refuses; None while it does not.
        self.refusing_from: int | None = None
        self.refuse_until_events = 0
        self.over_since: float | None = None
        self._log = log
        self._clock = clock
        self._backlog: deque[Chunk | LogGap] = deque()
        self._backlog_events = 0
        self._backlog_bytes = 0
        self._control: deque[Control] = deque()
        # What was in the log when it attached is its own wish and does not count as lag.
        self._granted = log.head
        self._granted_events = log.appended_events
        self._granted_bytes = log.appended_bytes
        self._move_to(cursor)
        self._skipped = 0
        # Completed by `wake`, awaited by `wait`.
        self._waiter: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """Id and client name, for logs."""
        return f"{self.id} ({self.client_name})" if self.client_name else self.id

    # lag

    @property
    def lag_events(self) -> int:
        """Events appended and not yet taken by the reader, its granted backlog included."""
        return self._backlog_events + self._log.appended_events - self._taken_events

    @property
    def lag_bytes(self) -> int:
        return self._backlog_bytes + self._log.appended_bytes - self._taken_bytes

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event not yet taken; what was set aside has no age."""
        if self.cursor >= self._log.head:
            return 0.0
        return max(0.0, self._clock() - self._log.appended_at(self.cursor + 1))

    def _lag_since_attached(self) -> tuple[int, int]:
        log = self._log
        events = log.appended_events - max(self._taken_events, self._granted_events) + self._backlog_events
        size = log.appended_bytes - max(self._taken_bytes, self._granted_bytes) + self._backlog_bytes
        return events, size

    def is_over_limit(self) -> bool:
        """Whether what came since it attached and is unread exceeds its limits; called at every append."""
        limits, log = self.limits, self._log
        events, size = self._lag_since_attached()
        if (limits.events and events > limits.events) or (limits.bytes and size > limits.bytes):
            return True
        if limits.seconds:
            oldest = max(self.cursor, self._granted) + 1
            return oldest <= log.head and self._clock() - log.appended_at(oldest) > limits.seconds
        return False

    def lag(self) -> Lag:
        """Return what its policy is told."""
        now = self._clock()
        if self.over_since is None:
            self.over_since = now
        events, size = self._lag_since_attached()
        return Lag(
            subscriber_id=self.id,
            events=events,
            bytes=size,
            seconds=self.lag_seconds,
            limits=self.limits,
            over_limit_s=now - self.over_since,
        )

    # what its policy makes of it

    def finish(self, error: GatewayError) -> None:
        """End the stream with `error` once everything unread now was delivered; later events are not set aside."""
        if self.end is None:
            if self.refusing_from is None:
                self._set_aside()
            else:
                self._move_to(self._log.head)
                self._reopen()
            self.end = End(error)
            if self.on_end is not None:
                self.on_end()
            self.wake()

    def drop_oldest(self, keep_events: int) -> None:
        """Drop the oldest unread events until at most `keep_events` remain; a gap stands in their place."""
        excess = self.lag_events - max(0, keep_events)
        gaps: list[LogGap] = []
        while excess > 0 and self._backlog:
            entry = self._backlog.popleft()
            size = entry.last - entry.first + 1
            self._count_backlog(entry, -1)
            gaps.append(self._dropped(entry.first, entry.last) if isinstance(entry, Chunk) else entry)
            excess -= size if isinstance(entry, Chunk) else 0
        if excess > 0:
            target = self._log.skip(self.cursor, excess)
            gaps.append(self._dropped(self.cursor + 1, target))
            self._move_to(target)
        for gap in reversed(_coalesced(gaps)):
            self._backlog.appendleft(gap)
        self.wake()

    def refuse_newest(self, resume_below_events: int) -> None:
        """Set everything unread aside, and drop what arrives until at most `resume_below_events` are unread."""
        if self.refusing_from is None:
            self._set_aside()
            self.refusing_from = self.cursor + 1
            self.refuse_until_events = max(0, resume_below_events)

    def skip_refused(self) -> None:
        """While refusing: let the cursor follow the head."""
        if self.refusing_from is not None:
            self._move_to(self._log.head)
            self._reopen_if_read()

    def _reopen_if_read(self) -> None:
        if self.refusing_from is not None and self._backlog_events <= self.refuse_until_events:
            self._reopen()

    def _reopen(self) -> None:
        if self.refusing_from is not None and self.refusing_from <= self.cursor:
            self._backlog.append(self._dropped(self.refusing_from, self.cursor))
        self.refusing_from = None
        self.over_since = None

    def _dropped(self, first: int, last: int) -> LogGap:
        return LogGap(
            first,
            last,
            GapReason.GAP_REASON_QUEUE_DROPPED,
            f"dropped by the overflow policy {self.policy_name!r}: read faster, or raise the queue limits",
        )

    def _set_aside(self) -> None:
        while (item := self._log.read(self.cursor, _PIECE_BYTES)) is not None:
            self._backlog.append(item)
            self._count_backlog(item, 1)
            self._move_to(item.last)

    def _count_backlog(self, item: Chunk | LogGap, sign: int) -> None:
        if isinstance(item, Chunk):
            self._backlog_events += sign * item.events
            self._backlog_bytes += sign * item.batch_bytes

    def _move_to(self, sequence: int) -> None:
        self.cursor = sequence
        events, size = self._log.after(sequence)
        self._taken_events = self._log.appended_events - events
        self._taken_bytes = self._log.appended_bytes - size

    # reading

    def put_first(self, gap: LogGap) -> None:
        """Let the stream begin with a gap."""
        self._backlog.appendleft(gap)

    def send(self, frame: bytes) -> None:
        """Queue a control frame; it goes out before the next events."""
        self._control.append(Control(frame))
        self.wake()

    def take(self, limit_bytes: int) -> Item | None:
        """Return the next thing to send: up to about `limit_bytes` of events at once; None when there is nothing."""
        if self._control:
            return self._control.popleft()
        while True:
            item = self._next(limit_bytes)
            if item is None:
                return (self._progress(0) or self.end) if self.end is not None else None
            if (passed := self.passed(item)) is not None:
                return passed

    def passed(self, item: Chunk | LogGap) -> Chunk | LogGap | Progress | None:
        """Count `item` as handed over and return what of it this subscriber may see; None when nothing."""
        if isinstance(item, LogGap):
            if item.last:
                self.delivered = item.last
                self._skipped = 0
                self.figures.lost_events[GapReason.Name(item.reason)] += item.count or item.last - item.first + 1
            return item
        self.delivered = item.last
        if self.filters:
            kept = self._filtered(item)
            if kept is None:
                return self._progress(PROGRESS_EVENTS)
            item = kept
        else:
            self.figures.delivered_events += item.last - item.first + 1
        self.figures.delivered_bytes += item.batch_bytes
        return item

    def _next(self, limit_bytes: int) -> Chunk | LogGap | None:
        if self._backlog:
            item = self._backlog.popleft()
            self._count_backlog(item, -1)
            self._reopen_if_read()
            return item
        if self.end is not None:
            return None
        read = self._log.read(self.cursor, limit_bytes)
        if read is not None:
            self.cursor = read.last
            if isinstance(read, Chunk):
                self._taken_events += read.events
                self._taken_bytes += read.batch_bytes
            self.over_since = None
        return read

    def _filtered(self, chunk: Chunk) -> Chunk | None:
        parts: list[bytes] = []
        for start, body, end in record_bounds(chunk.frame, chunk.start):
            _, item_handle, kind = event_head(chunk.frame, body)
            if all(f.keep(item_handle, kind) for f in self.filters):
                parts.append(chunk.frame[start:end])
        self._skipped = 0 if parts else self._skipped + chunk.events
        self.figures.delivered_events += len(parts)
        self.figures.filtered_events += chunk.events - len(parts)
        if not parts:
            return None
        prefix = events_prefix(sum(map(len, parts)))
        return Chunk(chunk.first, chunk.last, b"".join((prefix, *parts)), len(prefix))

    def _progress(self, at_least: int) -> Progress | None:
        if self._skipped and self._skipped >= at_least:
            self._skipped = 0
            return Progress(self.delivered)
        return None

    # waiting

    async def wait(self) -> None:
        """Return once `take` may have something. One waiter at a time."""
        if self._control or self._backlog or self.end is not None or self._log.head > self.cursor:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let `wait` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _coalesced(gaps: Sequence[LogGap]) -> list[LogGap]:
    """Return neighbouring gaps of one reason as one."""
    out: list[LogGap] = []
    for gap in gaps:
        if out and out[-1].reason == gap.reason and out[-1].last + 1 == gap.first and not (out[-1].count or gap.count):
            out[-1] = LogGap(out[-1].first, gap.last, gap.reason, gap.detail)
        else:
            out.append(gap)
    return out
