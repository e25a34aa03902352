"""One reader of a session's log: a cursor, its limits and policy, and what was set aside for it.

Usually a subscriber costs nothing but its cursor. Once its policy had to act, the events it may still read are set
aside in its own bounded backlog, so that a stalled reader never holds the shared log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import EventFilter, Lag, OverflowPolicy, PacedPolicy, QueueLimits
from mxgw_core.events.backlog import Backlog
from mxgw_core.events.figures import GAP_FRAMES, LOST, SessionFigures, SubscriberFigures
from mxgw_core.events.filtering import Judged, judge
from mxgw_core.events.items import Control, End, Item, Progress, SnapshotDue, SnapshotWanted
from mxgw_core.events.log import Chunk, EventLog, LogGap

# Filtered subscribers are told how far they are after this many events that were not for them.
PROGRESS_EVENTS = 1000
# What is set aside comes in pieces of about this size, far below any message limit.
_PIECE_BYTES = 64 * 1024


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
        figures: SessionFigures,
        client_name: str = "",
        peer: str = "",
        policy_source: str = "",
    ) -> None:
        self.id = subscriber_id
        self.client_name = client_name
        self.peer = peer
        self.limits = limits
        self.policy = policy
        self.policy_name = policy.name
        self.policy_source = policy_source
        self.filters = tuple(filters)
        self.attached_at = clock()
        self.figures = SubscriberFigures()
        self._session_figures = figures
        self.cursor = cursor
        self.delivered = cursor
        self.end: End | None = None
        # Called once when the stream is over for the reader; set by whoever serves it.
        self.on_end: Callable[[], None] | None = None
        # Events dropped by `DropNewest` begin here while it refuses; None while it does not.
        self.refusing_from: int | None = None
        self.refuse_until_events = 0
        self._refused_events = 0
        self.over_since: float | None = None
        # Called after each read while the pump waits for this subscriber; set by the distributor.
        self.on_read: Callable[[], None] | None = None
        # At most one data change per item goes out in so many seconds; 0 is no such pace.
        self.interval_s = policy.interval_s if isinstance(policy, PacedPolicy) else 0.0
        self._due_at = clock()
        self._log = log
        self._clock = clock
        self._backlog = Backlog()
        # What conflation could not make smaller does not count as lag again, or every event would conflate anew.
        self._survivors = (0, 0)
        self._control: deque[Control] = deque()
        self._wants_snapshot = False
        # A filter could not say whether the next event may pass.
        self._is_undecided = False
        # Position of the snapshot that waits for its place in the stream.
        self._snapshot_at: int | None = None
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
    def attached_s(self) -> float:
        """Seconds since it attached."""
        return self._clock() - self.attached_at

    @property
    def lag_events(self) -> int:
        """Events appended and not yet taken by the reader, its granted backlog included."""
        return self._backlog.events + self._log.appended_events - self._taken_events

    @property
    def lag_bytes(self) -> int:
        return self._backlog.bytes + self._log.appended_bytes - self._taken_bytes

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event not yet taken; what was set aside has no age."""
        if self.cursor >= self._log.head:
            return 0.0
        return max(0.0, self._clock() - self._log.appended_at(self.cursor + 1))

    @property
    def backlog_bytes(self) -> int:
        """Bytes set aside for it alone; what it has yet to read in the shared log costs nothing more."""
        return self._backlog.bytes

    def _lag_since_attached(self) -> tuple[int, int]:
        log, backlog = self._log, self._backlog
        events = log.appended_events - max(self._taken_events, self._granted_events) + backlog.events
        size = log.appended_bytes - max(self._taken_bytes, self._granted_bytes) + backlog.bytes
        return events - min(self._survivors[0], backlog.events), size - min(self._survivors[1], backlog.bytes)

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
                self._refuse_to_head()
                self._reopen()
            self.end = End(error)
            if self.on_end is not None:
                self.on_end()
            self.wake()

    def drop_oldest(self, keep_events: int) -> None:
        """Drop the oldest unread events until at most `keep_events` remain; a gap stands in their place."""
        excess = self.lag_events - max(0, keep_events)
        excess -= self._backlog.drop_oldest(excess, self._why_dropped)
        if excess > 0:
            first, target = self.cursor + 1, self._log.skip(self.cursor, excess)
            self._backlog.append(self._dropped(first, target, min(excess, self._log.after(self.cursor)[0])))
            self._move_to(target)
        self.wake()

    def conflate(self) -> int:
        """Keep the newest data change of every item, and every other event; return how many others there are."""
        self._set_aside()
        others = self._backlog.conflate(
            f"newer values of the same items took their place (overflow policy {self.policy_name!r})"
        )
        self._survivors = (self._backlog.events, self._backlog.bytes)
        return others

    def select(self, keep: Callable[[int, int, int], bool]) -> int:
        """Keep the unread events that `keep` wants; return how many were dropped."""
        self._set_aside()
        return self._backlog.select(keep, self._why_dropped)

    def refuse_newest(self, resume_below_events: int) -> None:
        """Set everything unread aside, and drop what arrives until at most `resume_below_events` are unread."""
        if self.refusing_from is None:
            self._set_aside()
            self.refusing_from = self.cursor + 1
            self.refuse_until_events = max(0, resume_below_events)

    def skip_refused(self) -> None:
        """While refusing: let the cursor follow the head."""
        if self.refusing_from is not None:
            self._refuse_to_head()
            self._reopen_if_read()

    def _refuse_to_head(self) -> None:
        self._refused_events += self._log.after(self.cursor)[0]
        self._move_to(self._log.head)

    def _reopen_if_read(self) -> None:
        if self.refusing_from is not None and self._backlog.events <= self.refuse_until_events:
            self._reopen()

    def _reopen(self) -> None:
        if self.refusing_from is not None and self.refusing_from <= self.cursor:
            self._backlog.append(self._dropped(self.refusing_from, self.cursor, self._refused_events))
        self.refusing_from = None
        self._refused_events = 0
        self.over_since = None

    @property
    def _why_dropped(self) -> str:
        return f"dropped by the overflow policy {self.policy_name!r}: read faster, or raise the queue limits"

    def _dropped(self, first: int, last: int, events: int) -> LogGap:
        return LogGap(first, last, GapReason.GAP_REASON_QUEUE_DROPPED, self._why_dropped, events)

    def _set_aside(self) -> None:
        while (item := self._log.read(self.cursor, _PIECE_BYTES)) is not None:
            self._backlog.append(item)
            self._move_to(item.last)

    def _move_to(self, sequence: int) -> None:
        self.cursor = sequence
        events, size = self._log.after(sequence)
        self._taken_events = self._log.appended_events - events
        self._taken_bytes = self._log.appended_bytes - size

    # reading

    def put_first(self, gap: LogGap) -> None:
        """Let the stream begin with a gap."""
        self._backlog.put_first(gap)

    def send(self, frame: bytes) -> None:
        """Queue a control frame; it goes out before the next events."""
        self._control.append(Control(frame))
        self.wake()

    def want_snapshot(self) -> None:
        """Ask whoever serves this subscriber for a snapshot; it is placed where its position lies in the stream."""
        self._wants_snapshot = True
        self.wake()

    def snapshot_fetched(self, position: int) -> None:
        """The snapshot wanted is at hand, and shows the values as of `position`."""
        self._snapshot_at = position

    def take(self, limit_bytes: int) -> Item | None:
        """Return the next thing to send: up to about `limit_bytes` of events at once; None when there is nothing.

        None as well when a filter cannot judge the next event yet; it is asked again when the subscriber is woken.
        """
        self._is_undecided = False
        if self._control:
            return self._control.popleft()
        if self._wants_snapshot and self.end is None:
            self._wants_snapshot = False
            return SnapshotWanted()
        if self._snapshot_at is not None and self.delivered >= self._snapshot_at:
            self._snapshot_at = None
            return SnapshotDue()
        while True:
            item = self._next(limit_bytes)
            if item is None:
                return (self._progress(0) or self.end) if self.end is not None else None
            judged = self._decided(item) if self.filters and isinstance(item, Chunk) else item
            if judged is None:
                return None
            if (passed := self.passed(judged)) is not None:
                return passed

    def passed(self, item: Chunk | LogGap | Judged) -> Chunk | LogGap | Progress | None:
        """Count `item` as handed over and return what of it this subscriber may see; None when nothing."""
        if isinstance(item, LogGap):
            self._count_gap(item)
            return item
        if isinstance(item, Chunk) and self.filters:
            item = judge(item, self.filters)
        self.delivered = item.last
        if isinstance(item, Judged):
            kept = self._kept(item)
            if kept is None:
                return self._progress(PROGRESS_EVENTS)
            item = kept
        else:
            self.figures.delivered_events += item.last - item.first + 1
        self.figures.delivered_bytes += item.batch_bytes
        return item

    def _count_gap(self, gap: LogGap) -> None:
        reason = GapReason.Name(gap.reason).removeprefix("GAP_REASON_")
        self._session_figures.count(GAP_FRAMES, reason)
        if gap.last:
            self.delivered = gap.last
            self._skipped = 0
            lost = gap.count or gap.last - gap.first + 1
            self.figures.lost_events[reason] += lost
            self._session_figures.count(LOST, reason, by=lost)

    def _next(self, limit_bytes: int) -> Chunk | LogGap | None:
        if self.interval_s and not self._backlog and self.end is None:
            self._set_aside_when_due()
        if self._backlog:
            item = self._backlog.pop()
            self._reopen_if_read()
        elif self.end is not None or self.interval_s:
            return None
        else:
            read = self._log.read(self.cursor, limit_bytes)
            if read is None:
                return None
            item = read
            self.cursor = item.last
            if isinstance(item, Chunk):
                self._taken_events += item.events
                self._taken_bytes += item.batch_bytes
        if self.on_read is not None:
            self.on_read()
        if self._snapshot_at is not None and isinstance(item, Chunk) and item.first <= self._snapshot_at < item.last:
            item, rest = item.split(self._snapshot_at)
            self._backlog.put_first(rest)
        return item

    def _set_aside_when_due(self) -> None:
        now = self._clock()
        if self.cursor < self._log.head and now >= self._due_at:
            self.conflate()
            self._due_at = now + self.interval_s

    def _decided(self, chunk: Chunk) -> Judged | None:
        """Judge a chunk up to the first event that a filter cannot judge yet; the rest waits. None: nothing before."""
        judged = judge(chunk, self.filters, may_wait=True)
        if not judged.is_undecided:
            return judged
        self._is_undecided = not judged.events
        self._backlog.put_first(chunk.split(judged.last)[1] if judged.events else chunk)
        return judged if judged.events else None

    def _kept(self, judged: Judged) -> Chunk | None:
        self._skipped = 0 if judged.parts else self._skipped + judged.events
        self.figures.delivered_events += len(judged.parts)
        self.figures.filtered_events += judged.events - len(judged.parts)
        return judged.kept()

    def _progress(self, at_least: int) -> Progress | None:
        if self._skipped and self._skipped >= at_least:
            self._skipped = 0
            return Progress(self.delivered)
        return None

    # waiting

    async def wait(self) -> None:
        """Return once `take` may have something. One waiter at a time."""
        is_behind = self._log.head > self.cursor
        has_more = self._control or self._backlog or self._wants_snapshot
        has_something = has_more or self.end is not None or (is_behind and not self.interval_s)
        if has_something and not self._is_undecided:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        pace = loop.call_later(max(0.0, self._due_at - self._clock()), self.wake) if self.interval_s else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if pace is not None:
                pace.cancel()

    def wake(self) -> None:
        """Let `wait` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
