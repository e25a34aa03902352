"""One reader of a session's log: a cursor, its limits and policy, and what was set aside for it.

Usually a subscriber costs nothing but its cursor. Once its policy had to act, the events it may still read are set
aside in its own bounded backlog, so that a stalled reader never holds the shared log.

It has more than 400 lines because they are about one thing: what lies between what the reader has and the log's head,
in this order: backlog, what is gathered, and the log from the cursor on. Nearly every method moves a border of these.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import Lag, OverflowPolicy, PacedPolicy, QueueLimits
from mxgw_core.api.slices import turn
from mxgw_core.events.backlog import Backlog, EventItem
from mxgw_core.events.conflation import Conflation
from mxgw_core.events.figures import GAP_FRAMES, LOST, SessionFigures, SubscriberFigures
from mxgw_core.events.filtering import Judged, Sieve
from mxgw_core.events.items import Control, End, Item, Progress, SnapshotDue, SnapshotWanted
from mxgw_core.events.log import Chunk, EventLog, LogGap
from mxgw_core.events.pieces import PIECE_BYTES
from mxgw_core.events.waiting import Waiter

# Filtered subscribers are told how far they are after this many events that were not for them.
PROGRESS_EVENTS = 1000
# A long backlog is conflated in steps of about this size (0.2 ms), and at least twice as fast as it grows: several
# readers that begin to conflate at the same moment must not hold up the others.
_STEP_EVENTS = 250
_STEP_BYTES = 4 * 1024


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
        sieve: Sieve | None,
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
        self.sieve = sieve
        self.attached_at = clock()
        self.figures = SubscriberFigures()
        self._session_figures = figures
        self.cursor = cursor
        self.delivered = cursor
        self.end: End | None = None
        # Called once when the stream is over for the reader; set by whoever serves it.
        self.on_end: Callable[[], None] | None = None
        # Called at new events instead of waking who waits; set by whoever serves it.
        self.on_events: Callable[[], None] | None = None
        # Whether events taken by `on_events` are on their way to the reader.
        self.is_written_to = False
        # Events dropped by `DropNewest` begin here while it refuses; None while it does not.
        self.refusing_from: int | None = None
        self.refuse_until_events = 0
        self._refused_events = 0
        self._refusing_since = 0.0
        self.over_since: float | None = None
        # Called after each read while the pump waits for this subscriber; set by the distributor.
        self.on_read: Callable[[], None] | None = None
        # At most one data change per item goes out in so many seconds; 0 is no such pace.
        self.interval_s = policy.interval_s if isinstance(policy, PacedPolicy) else 0.0
        self._due_at = clock()
        self._log = log
        self._clock = clock
        self._backlog = Backlog()
        # What must come next whatever happens: the batch that a gap with runs was told for, the rest of a split one.
        self._following: Chunk | None = None
        # Behind the backlog and before the cursor: what is gathered while its policy conflates, or paces.
        self._gathered = Conflation(f"newer values of the same items took their place (policy {self.policy_name!r})")
        self._is_gathering = self.interval_s > 0
        # Appended up to when its policy was last asked, or the reader took what was gathered: no lag to judge anew.
        self._judged = (0, 0)
        self._gathered_events = log.appended_events
        self._control: deque[Control] = deque()
        self._wants_snapshot = False
        # Events that wait until the filters have been asked for all their items: others have their turn in between.
        self._unjudged: Chunk | None = None
        # Position of the snapshot that waits for its place in the stream.
        self._snapshot_at: int | None = None
        # The gap that the stream must begin with was not handed over yet.
        self._owes_gap = False
        # What was in the log when it attached is its own wish and does not count as lag.
        self._granted = log.head
        self._granted_events = log.appended_events
        self._granted_bytes = log.appended_bytes
        self._move_to(cursor)
        self._granted_unread = (log.appended_events - self._taken_events, log.appended_bytes - self._taken_bytes)
        self._skipped = 0
        self._waiter = Waiter()

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
        """Events not yet taken by the reader, its granted backlog included; nothing more comes once its stream ends."""
        in_log = 0 if self.end is not None else self._log.appended_events - self._taken_events
        return self._backlog.events + self._gathered.events + in_log

    @property
    def lag_bytes(self) -> int:
        in_log = 0 if self.end is not None else self._log.appended_bytes - self._taken_bytes
        return self._backlog.bytes + self._gathered.bytes + in_log

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event not yet taken; of what is conflated, how long it has been gathered."""
        if self._backlog:
            since = self._backlog.since
        elif self._gathered:
            since = self._gathered.since
        elif self.cursor < self._log.head and self.end is None:
            since = self._log.appended_at(self.cursor + 1)
        else:
            return 0.0
        return max(0.0, self._clock() - since)

    @property
    def backlog_bytes(self) -> int:
        """Memory held for it alone; what it has yet to read in the shared log costs nothing more."""
        return self._backlog.bytes + self._gathered.memory_bytes

    @property
    def memory_bytes(self) -> int:
        """The same with what finding it takes."""
        following = self._following.batch_bytes if self._following is not None else 0
        return self._backlog.memory_bytes + self._gathered.memory_bytes + following

    def _lag_since_attached(self) -> tuple[int, int, float]:
        """Return what counts as lag: events, bytes, and seconds of the oldest that is still in the log."""
        log, backlog, gathered = self._log, self._backlog, self._gathered
        events = log.appended_events - max(self._taken_events, self._granted_events)
        size = log.appended_bytes - max(self._taken_bytes, self._granted_bytes)
        oldest = max(self.cursor, self._granted) + 1
        seconds = self._clock() - log.appended_at(oldest) if oldest <= log.head else 0.0
        free_events, free_bytes = self._granted_aside()
        events += max(0, backlog.events + gathered.events - free_events)
        return events, size + max(0, backlog.bytes + gathered.bytes - free_bytes), seconds

    def _granted_aside(self) -> tuple[int, int]:
        """Return how much of what is set aside it asked for itself, in events and bytes; at most, once conflated."""
        if self.delivered >= self._granted:
            return 0, 0
        return self._granted_unread if self._is_gathering else self._backlog.until(self._granted)

    @property
    def is_conflating(self) -> bool:
        """Whether its policy conflates since it fell behind, and it is not level yet."""
        return self._is_gathering and not self.interval_s

    @property
    def is_idle(self) -> bool:
        """Whether its reader waits for nothing but events: it takes them at its next turn, however many they are."""
        return self._waiter.is_waiting and not self._waiter.has_time and not self.is_written_to

    @property
    def is_level(self) -> bool:
        """Whether its reader was handed everything there is."""
        has_rest = self._following is not None or self._unjudged is not None
        return self.cursor >= self._log.head and not self._backlog and not self._gathered and not has_rest

    def is_over_limit(self) -> bool:
        """Whether its policy is to be asked; looked at after every append."""
        limits, log = self.limits, self._log
        if not self._is_gathering:
            events, size, seconds = self._lag_since_attached()
            return _exceeds(events, limits.events) or _exceeds(size, limits.bytes) or _exceeds(seconds, limits.seconds)
        if not self._fits():
            return True
        # What conflation cannot make smaller is no lag again, or every event would ask anew; a pace is no lag at all.
        events, size = log.appended_events - self._judged[0], log.appended_bytes - self._judged[1]
        return not self.interval_s and (_exceeds(events, limits.events) or _exceeds(size, limits.bytes))

    def _fits(self) -> bool:
        """Whether what is never replaced, and one value of each item, are within the limits.

        The newest values may be more than the limit in events: there are no more of them than items.
        """
        gathered, limits = self._gathered, self.limits
        free_events, free_bytes = self._granted_aside()
        size = gathered.bytes + self._backlog.bytes - free_bytes
        return not _exceeds(gathered.others - free_events, limits.events) and not _exceeds(size, limits.bytes)

    def lag(self) -> Lag:
        """Return what its policy is told."""
        now = self._clock()
        if self.over_since is None:
            self.over_since = now
        events, size, seconds = self._lag_since_attached()
        return Lag(
            subscriber_id=self.id,
            events=events,
            bytes=size,
            seconds=seconds,
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

    def drop_oldest(self, keep_events: int, why: str = "") -> None:
        """Drop the oldest unread events until at most `keep_events` remain; a gap stands in their place."""
        self._settle()
        why = why or self._why_dropped
        excess = self.lag_events - max(0, keep_events)
        excess -= self._backlog.drop_oldest(excess, why)
        if excess > 0:
            first, target = self.cursor + 1, self._log.skip(self.cursor, excess)
            dropped = min(excess, self._log.after(self.cursor)[0])
            self._backlog.append(self._dropped(first, target, dropped, why), self._log.appended_at(first))
            self._move_to(target)
        self.wake()

    def drop_unread(self, why: str) -> bool:
        """Drop everything unread, whatever its policy; a gap stands in its place. Return whether there was any."""
        if not self.lag_events:
            return False
        self.drop_oldest(0, why)
        if self.on_read is not None:
            self.on_read()
        return True

    def conflate(self) -> bool:
        """Keep the newest data change of every item, and every other event, until the reader is level again.

        Return False when that alone exceeds the limits.
        """
        if not self._is_gathering:
            self._is_gathering = True
            self._gathered_events = self._log.appended_events
            for entry, since in self._backlog.drain():
                self._gathered.absorb(entry, since)
        self._judged = (self._log.appended_events, self._log.appended_bytes)
        self.gather()
        return self._fits()

    def gather(self) -> None:
        """Conflate, or pace: take what is new from the log, and more of a long backlog."""
        log = self._log
        if not self._is_gathering or self.cursor >= log.head:
            return
        room = _STEP_EVENTS + 2 * (log.appended_events - self._gathered_events)
        self._gathered_events = log.appended_events
        while room > 0 and (item := log.read(self.cursor, _STEP_BYTES)) is not None:
            self._gathered.absorb(item, log.appended_at(item.first))
            self._move_to(item.last)
            room -= item.events if isinstance(item, Chunk) else 1

    def _settle(self) -> None:
        """Put what was gathered behind what is set aside, in order."""
        if self._gathered:
            since = self._gathered.since
            for entry in self._gathered.drain():
                self._backlog.append(entry, since)
        self._is_gathering = self.interval_s > 0

    def select(self, judge: Callable[[set[EventItem]], Container[EventItem]]) -> int:
        """Keep the unread events of the items that `judge` wants of those there are; return how many were dropped."""
        self._set_aside()
        return self._backlog.select(judge, self._why_dropped)

    def refuse_newest(self, resume_below_events: int) -> None:
        """Set everything unread aside, and drop what arrives until at most `resume_below_events` are unread."""
        if self.refusing_from is None:
            self._set_aside()
            self.refusing_from = self.cursor + 1
            self._refusing_since = self._clock()
            self.refuse_until_events = max(0, resume_below_events)

    def skip_refused(self) -> None:
        """While refusing: let the cursor follow the head."""
        if self.refusing_from is not None:
            self._refuse_to_head()
            self._reopen_if_read()

    def _refuse_to_head(self) -> None:
        refused = self._log.after(self.cursor)[0]
        if refused or self._refused_events:
            self._refused_events += refused
            self._move_to(self._log.head)
        else:  # a gap that stands for no event takes no room, and keeps its own reason
            self._set_aside()
            self.refusing_from = self.cursor + 1

    def _reopen_if_read(self) -> None:
        if self.refusing_from is not None and self._backlog.events <= self.refuse_until_events:
            self._reopen()

    def _reopen(self) -> None:
        if self.refusing_from is not None and self.refusing_from <= self.cursor:
            gap = self._dropped(self.refusing_from, self.cursor, self._refused_events)
            self._backlog.append(gap, self._refusing_since)
        self.refusing_from = None
        self._refused_events = 0
        self.over_since = None

    @property
    def _why_dropped(self) -> str:
        return f"dropped by the overflow policy {self.policy_name!r}: read faster, or raise the queue limits"

    def _dropped(self, first: int, last: int, events: int, why: str = "") -> LogGap:
        return LogGap(first, last, GapReason.GAP_REASON_QUEUE_DROPPED, why or self._why_dropped, events)

    def _set_aside(self) -> None:
        self._settle()
        while (item := self._log.read(self.cursor, PIECE_BYTES)) is not None:
            self._backlog.append(item, self._log.appended_at(item.first))
            self._move_to(item.last)

    def _move_to(self, sequence: int) -> None:
        self.cursor = sequence
        events, size = self._log.after(sequence)
        self._taken_events = self._log.appended_events - events
        self._taken_bytes = self._log.appended_bytes - size

    # reading

    def put_first(self, gap: LogGap) -> None:
        """Let the stream begin with a gap; nothing behind it counts as delivered before."""
        self._backlog.put_first(gap, self._clock())
        self._owes_gap = True
        if gap.first:
            self.delivered = gap.first - 1

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

        None as well while filters have more to ask before the next events are judged (`is_judging`).
        """
        if self._control:
            return self._control.popleft()
        if self._wants_snapshot and self.end is None:
            self._wants_snapshot = False
            return SnapshotWanted()
        if self._snapshot_at is not None and self.delivered >= self._snapshot_at and not self._owes_gap:
            is_passed, self._snapshot_at = self.delivered > self._snapshot_at, None
            if not is_passed:
                return SnapshotDue()
            if self.end is None:  # a gap went over its place, so it would show less than the gap gives up
                return SnapshotWanted()
        while True:
            item: Chunk | LogGap | None
            item, self._unjudged = self._unjudged or self._next(limit_bytes), None
            if item is None:
                return (self._progress(0) or self.end) if self.end is not None else None
            judged: Chunk | LogGap | Judged = item
            if self.sieve is not None and isinstance(item, Chunk):
                considered = self.sieve.judge_some(item)
                if considered is None:
                    self._unjudged = item
                    return None
                judged = considered
            if (passed := self.passed(judged)) is not None:
                return passed

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the log itself, unfiltered, comes next: then `take_plain` does what `take` would."""
        return not (
            self.sieve is not None
            or self._is_gathering
            or self.end is not None
            or self._control
            or self._wants_snapshot
            or self._snapshot_at is not None
            or self._following is not None
            or self.on_read is not None
            or self._backlog
        )

    def take_plain(self, limit_bytes: int) -> Chunk | LogGap | None:
        """Like `take`, while the subscriber `is_plain`: the usual case, and the hot path."""
        item = self._log.read(self.cursor, limit_bytes)
        if item is None:
            return None
        self.cursor = last = item.last
        if type(item) is Chunk:
            events, size = item.kept or last - item.first + 1, len(item.frame) - item.start
            self._taken_events += events
            self._taken_bytes += size
            self.delivered = last
            figures = self.figures
            figures.delivered_events += events
            figures.delivered_bytes += size
        else:
            assert isinstance(item, LogGap)
            self._count_gap(item)
        return item

    @property
    def is_judging(self) -> bool:
        """Whether the last `take` stopped only to let others have their turn between the answers of filters."""
        return self._unjudged is not None

    async def judged(self, item: Chunk | LogGap) -> None:
        """Let the filters ask for what is new in older events, before `passed`, a few items at a time."""
        if self.sieve is None or isinstance(item, LogGap):
            return
        while True:
            if self.sieve.judge_some(item) is not None:
                return
            await turn()

    def passed(self, item: Chunk | LogGap | Judged) -> Chunk | LogGap | Progress | None:
        """Count `item` as handed over and return what of it this subscriber may see; None when nothing."""
        if isinstance(item, LogGap):
            self._count_gap(item)
            return item
        if isinstance(item, Chunk) and self.sieve is not None:
            item = self.sieve.judge(item)
        self.delivered = item.last
        if isinstance(item, Judged):
            kept = self._kept(item)
            if kept is None:
                return self._progress(PROGRESS_EVENTS)
            item = kept
        else:
            self.figures.delivered_events += item.events
        self.figures.delivered_bytes += item.batch_bytes
        return item

    def _count_gap(self, gap: LogGap) -> None:
        reason = GapReason.Name(gap.reason).removeprefix("GAP_REASON_")
        self._session_figures.count(GAP_FRAMES, reason)
        self._owes_gap = False
        if gap.last:
            if not gap.runs:  # else a part of its range follows, and counts when that is handed over
                self.delivered = gap.last
                self._skipped = 0
            lost = gap.count or gap.last - gap.first + 1
            self.figures.lost_events[reason] += lost
            self._session_figures.count(LOST, reason, by=lost)

    def _next(self, limit_bytes: int) -> Chunk | LogGap | None:
        item: Chunk | LogGap
        if not self._backlog and self._following is None and self._is_gathering and self.end is None:
            self._take_gathered()
        if self._following is not None:
            item, self._following = self._following, None
        elif self._backlog:
            item = self._pop()
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
            item, self._following = item.split(self._snapshot_at)
        return item

    def _pop(self) -> Chunk | LogGap:
        item = self._backlog.pop()
        if isinstance(item, LogGap) and item.runs:
            follows = self._backlog.pop()
            assert isinstance(follows, Chunk)
            self._following = follows
        self._reopen_if_read()
        return item

    def _take_gathered(self) -> None:
        """Move the next piece of what was gathered to the backlog, once it may be read."""
        gathered = self._gathered
        since, entries = gathered.since, gathered.take()
        if not entries and self._is_due():
            if self.interval_s:
                self.gather()
                if self.cursor < self._log.head:
                    return  # due until it is level, so that the last value of each item goes out
            since = gathered.since
            gathered.release()
            if entries := gathered.take():
                self._due_at = self._clock() + self.interval_s
                self._judged = (self._log.appended_events, self._log.appended_bytes)
        for entry in entries:
            self._backlog.append(entry, since)
        if not entries and not self.interval_s:
            self._is_gathering = False  # level with what was gathered: on with the log itself
            self.over_since = None

    def _is_due(self) -> bool:
        return not self.interval_s or self._clock() >= self._due_at

    def _kept(self, judged: Judged) -> Chunk | None:
        passed = judged.passed
        self._skipped = 0 if passed else self._skipped + judged.events
        self.figures.delivered_events += passed
        self.figures.filtered_events += judged.events - passed
        return judged.kept

    def _progress(self, at_least: int) -> Progress | None:
        if self._skipped and self._skipped >= at_least:
            self._skipped = 0
            return Progress(self.delivered)
        return None

    # waiting

    async def wait(self) -> None:
        """Return once `take` may have something. One waiter at a time."""
        has_more = self._control or self._following is not None or self._backlog or self._wants_snapshot
        if self._unjudged is not None:
            await turn()
            return
        if has_more or self.end is not None:
            return
        is_behind = self._gathered or self._log.head > self.cursor
        if is_behind and not self.interval_s:
            return
        if is_behind and self._is_due():  # the next step of a long backlog: let others have their turn in between
            await asyncio.sleep(0)
            return
        await self._waiter.wait(self._due_at - self._clock() if is_behind else None)

    def serve(self) -> bool:
        """Let whoever serves it directly write new events now; return False when it is busy, or waits for its time."""
        if self.on_events is None or self.is_written_to or self._is_gathering:
            return False
        self.on_events()
        return True

    def appended(self) -> None:
        """Let the reader have new events, unless it waits for its time anyway."""
        if not self._waiter.has_time:
            if self.on_events is not None:
                self.on_events()
            else:
                self.wake()

    def wake(self) -> None:
        """Let `wait` return."""
        self._waiter.wake()


def _exceeds(amount: float, limit: float) -> bool:
    return bool(limit) and amount > limit
