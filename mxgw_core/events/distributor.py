"""The log and the readers of one session: takes the worker's events into the log, and wakes the readers.

The distributor never waits for a reader. Readers that are over their limits are handed to `events.overflow`, which asks
their policies.

The module has more than 400 lines, because everything that changes the log or the list of its readers is in one class.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError, InvalidRequest, PositionForeign
from mxgw_core.api.events import EventFilter, OverflowPolicy, QueueLimits, Retention
from mxgw_core.api.feeds import FeedFilter
from mxgw_core.api.types import Position
from mxgw_core.events.counts import DISCONNECTS, RESUMES, STALL, Rate, SessionCounts, StreamTotals
from mxgw_core.events.filters import FeedFilters, Filters, ItemFilters
from mxgw_core.events.following import NO_MEMORY, Following, LogFollower, SessionFollowers
from mxgw_core.events.history import BrokenPromises
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.log import EventLog
from mxgw_core.events.memory import MemoryUse
from mxgw_core.events.overflow import Cancellable, Overflow, drop_oldest
from mxgw_core.events.pieces import Gap
from mxgw_core.events.sources import FromLog
from mxgw_core.events.start import Start, StartPlace, decide
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins.calls import Owner

# All events of a segment (see log.py) are forgotten together. So they must have come within at most this share of the
# seconds for which events are retained.
_AGE_SHARE = 1 / 8

_NO_MEMORY = f"{NO_MEMORY}, and this reader was furthest behind: read faster"

NOTHING_RETAINED = Retention(events=0, bytes=0, seconds=0.0)
_EVERYTHING = Retention(events=sys.maxsize, bytes=sys.maxsize, seconds=0.0)


class Distributor:
    """The log and the subscribers of one session, or of one feed of a plugin. Lives in the event loop; nothing blocks.

    Args:
        unattached: how much is held until the first subscriber attaches.
        items: the items of the session; None for a feed of a plugin.
        on_fail_session: called when a subscriber's policy asks for the session to be faulted.
        call_later: works like `call_later` of the event loop, in seconds of `clock`.
    """

    def __init__(
        self,
        *,
        unattached: Retention,
        items: ItemBook | None = None,
        on_fail_session: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
        call_later: Callable[[float, Callable[[], None]], Cancellable] | None = None,
    ) -> None:
        self.epoch = b""
        self.log = EventLog(clock)
        self.items = items
        self.broken_promises = BrokenPromises()
        # Stores can lack the records of items, and then they break promises to subscribers with filters only.
        self.broken_promises_to_filtered = BrokenPromises(self.broken_promises.left)
        self.subscribers: dict[str, Subscriber] = {}
        self.end_error: GatewayError | None = None
        # The events that were lost before the first subscriber attached. The first subscriber that starts at the
        # oldest event gets this gap.
        self.never_delivered: Gap | None = None
        self.counts = SessionCounts()
        self._clock = clock
        self._unattached = unattached
        self._retention = NOTHING_RETAINED
        self._bound_bytes: int | None = None
        self._bound_setting = ""
        # Whether a subscriber was ever attached.
        self.was_attached = False
        # What a worker's outbox holds, and what the log keeps until the readers of before a restart had time to come
        # back; None when nothing is kept for them (any more).
        self._outbox = NOTHING_RETAINED
        self._for_return: Retention | None = None
        self._rate = Rate()
        # Internal readers, for example the dashboard: they are not counted as subscribers, and they are never
        # disconnected before the session ends.
        self._internal: dict[str, Subscriber] = {}
        # Followers of plugins, which hold the log. A feed of a plugin has none.
        book = ItemBook(0) if items is None else items
        self.followers = SessionFollowers(self.log, book, self.trim, self._followers_changed)
        # Key: filters. Value: the object that all subscribers with equal filters share, while one of them is attached.
        self._filters: WeakValueDictionary[tuple[EventFilter, ...], ItemFilters] = WeakValueDictionary()
        self._overflow = Overflow(
            self.counts,
            check_all=self.check,
            has_snapshots=lambda: self.has_snapshots,
            items=items,
            on_fail_session=on_fail_session,
            clock=clock,
            call_later=call_later or (lambda delay, then: asyncio.get_running_loop().call_later(delay, then)),
        )

    def retain(self, retention: Retention) -> None:
        """Keep as many delivered events as `retention` says, or as an earlier call said, if that is more.

        The limit that `bound` has set on the bytes still applies.
        """
        retention = retention if self._retention is NOTHING_RETAINED else self._retention.covering(retention)
        self._retention = self._bounded(retention)
        self.log.segment_s = self._retention.seconds * _AGE_SHARE or math.inf

    def bound(self, limit_bytes: int, setting: str = "") -> None:
        """Keep at most `limit_bytes` of events, even if plugins ask for more. Must be called before the first event.

        `setting` is the setting of this limit.
        """
        self._bound_bytes, self._bound_setting = limit_bytes, setting
        self._unattached, self._retention = self._bounded(self._unattached), self._bounded(self._retention)
        if self._for_return is not None:
            self._for_return = self._bounded(self._for_return)

    def _bounded(self, retention: Retention) -> Retention:
        if self._bound_bytes is None:
            return retention
        return replace(retention, bytes=min(retention.bytes, self._bound_bytes))

    def keep_for_return(self, outbox: Retention) -> None:
        """Keep everything that an adopted worker sends from its outbox, whatever the other limits are.

        The readers of before the restart can follow or attach only after the log is refilled, and each of them begins
        at another place. From `refilled` on, the log keeps as much as `outbox` says, or as much as the worker has sent,
        if that is more: the worker was perhaps started with other settings. The limit of `bound` still applies. All
        this ends with `returned`. Must be called before the first event.
        """
        self._outbox = outbox
        self._for_return = self._bounded(_EVERYTHING)

    def returned(self) -> None:
        """The readers of before the restart had time to come back: the log is trimmed as always from now on."""
        self._for_return = None
        self.trim()

    def refill_after(self, sequence: int) -> None:
        """Begin the log behind `sequence`, because an adopted worker has no earlier events.

        The rate of events is not measured until `refilled` is called: until then the worker sends the events that it
        kept, all at once.
        """
        self.log.start_after(sequence)
        self._rate.restart(math.inf)

    def refilled(self) -> None:
        """Begin to measure the rate of events, because an adopted worker has sent all events that it kept.

        From now on the worker sends each event when it happens.
        """
        self._rate.restart(self._clock())
        if self._for_return is not None:
            sent = Retention(self.log.events + self.log.gaps, self.log.bytes, 0.0)
            self._for_return = self._bounded(self._outbox.covering(sent))

    @property
    def has_snapshots(self) -> bool:
        """Whether subscribers can ask for the last values of all items."""
        return self._retention.snapshots

    @property
    def horizon_s(self) -> float | None:
        """For how many seconds an event stays in the log at the present rate of events.

        None while the log keeps no delivered events, and while no events come.
        """
        keep = self._retention
        events_per_s, bytes_per_s = self._rate.events_per_s, self._rate.bytes_per_s
        if not keep.events or not events_per_s:
            return None
        reach_s = min(keep.events / events_per_s, keep.bytes / bytes_per_s)
        return min(reach_s, keep.seconds) if keep.seconds else reach_s

    def totals(self) -> StreamTotals:
        """Return what the session got from its worker, and what it delivered to subscribers.

        What internal readers got is not counted.
        """
        totals = StreamTotals(self.log.appended_events, self.log.appended_bytes, counts=self.counts.copy())
        totals.replayed.add(self.counts.replayed)
        for given in (self.counts.left, *(subscriber.counts for subscriber in self.subscribers.values())):
            totals.given.add(given)
        if stalled_ms := self._overflow.stalled_ms:
            # The current stop of the events is in `self.counts` only after it has ended.
            totals.counts[STALL,] += stalled_ms
        return totals

    # The next methods add what the worker sends.

    def append(self, first: int, last: int, batch: bytes) -> None:
        """Add consecutive events. When the caller has added everything that it has, it calls `flush`.

        Raises:
            OutOfOrder: the events do not follow the head.
        """
        self.log.append(first, last, batch)

    def append_gap(self, gap: Gap) -> None:
        """Add a gap: a range that no event will fill.

        Raises:
            OutOfOrder: the gap does not follow the head.
        """
        self.log.append_gap(gap)

    def begin_behind(self, gap: Gap) -> None:
        """Add a gap in front of all events: the log begins behind the gap, and the gap is not in the log.

        If something was appended before, or a reader is attached, the gap is appended to the log like any other gap.

        Raises:
            OutOfOrder: the gap does not follow the head.
        """
        if self.log.has_begun or self._everyone() or self.followers or not self.log.head + 1 == gap.first <= gap.last:
            self.log.append_gap(gap)
            return
        self.log.start_after(gap.last)
        # The first subscriber that starts at the oldest event gets this gap. A subscriber that resumes gets a gap up to
        # the beginning of the log.
        first = self.never_delivered.first if self.never_delivered else gap.first
        self.never_delivered = Gap(first, gap.last, GapReason.GAP_REASON_RING_EVICTED, gap.detail)

    def flush(self) -> None:
        """Wake the readers, check all but the waiting readers against their limits, and trim the log."""
        self._rate.mark(self._clock(), self.log.appended_events, self.log.appended_bytes)
        behind = []
        for subscriber in self._everyone():
            if subscriber.is_idle and type(subscriber.source) is FromLog:
                subscriber.wake()  # a waiting reader takes the new events at once, so it cannot be over its limits
            else:
                behind.append(subscriber)
        for subscriber in behind:
            self._overflow.check(subscriber)
        for subscriber in behind:
            if not subscriber.is_timed:
                subscriber.wake()
        if self.followers:
            self.followers.arrived()
        self.trim()

    def check(self) -> None:
        """Check every reader against its limits, and forget events that are too old.

        Called regularly, because some limits are in seconds and are exceeded without new events.
        """
        self._rate.mark(self._clock(), self.log.appended_events, self.log.appended_bytes)
        for subscriber in self._everyone():
            self._overflow.check(subscriber)
        self.trim()

    def _everyone(self) -> tuple[Subscriber, ...]:
        return (*self.subscribers.values(), *self._internal.values())

    def hold_with(self, hold: Callable[[bool], None]) -> None:
        """Set the function that the action `Block` calls.

        `hold(True)` stops reading events from the worker, `hold(False)` continues to read them.
        """
        self._overflow.hold = hold

    def trim(self) -> None:
        """Forget the entries of the log that are neither retained nor unread by any reader."""
        keep = self._retention if self.was_attached else self._retention.covering(self._unattached)
        if self._for_return is not None:
            keep = keep.covering(self._for_return)
        if not self.log.exceeds(keep.events, keep.bytes, keep.seconds):
            return
        self._forgotten(self.log.trim(self._floor(), keep.events, keep.bytes, keep.seconds))

    def _floor(self) -> int:
        """Return the last sequence that every reader has read and no follower holds; the head without any of them."""
        floor, held_after = self._read_by_all(), self.followers.held_after
        return floor if held_after is None else min(floor, held_after)

    def _read_by_all(self) -> int:
        cursors = [s.source.reads_after for s in self._everyone()]
        return min((cursor for cursor in cursors if cursor is not None), default=self.log.head)

    def _forgotten(self, forgotten: Gap | None) -> None:
        if forgotten is not None and self.followers:
            self.followers.trimmed()
        if forgotten is not None and not self.was_attached:
            first = self.never_delivered.first if self.never_delivered else forgotten.first
            self.never_delivered = Gap(
                first,
                forgotten.last,
                GapReason.GAP_REASON_RING_EVICTED,
                "evicted before anybody attached: attach sooner, or raise events.unattached_events",
            )

    # The next methods report and free memory.

    def memory(self) -> MemoryUse:
        """Return how much memory the session uses for events.

        When code begins to use memory for a new purpose, this memory must be added here.
        """
        backlogs = sum(subscriber.memory_bytes for subscriber in self._everyone())
        items = self.items.size_bytes if self.items is not None else 0
        return MemoryUse(
            log=self.log.memory_bytes,
            joined=self.log.shared_bytes,
            backlog=backlogs,
            items=items,
            answers=sum(filters.memory_bytes for filters in self._filters.values()),
        )

    def forget_oldest(self) -> bool:
        """Forget the oldest entry of the log, even if it is retained, but not before every reader has read it.

        Return whether an entry was forgotten.
        """
        forgotten = self.log.trim_oldest(self._floor())
        self._forgotten(forgotten)
        return forgotten is not None

    def let_go_oldest(self) -> bool:
        """Forget the oldest entry of the log although a follower holds it. Return whether an entry was forgotten."""
        until = self.log.after_memory(self.log.memory_bytes - 1)
        if not self.followers or self._read_by_all() < until:
            return False
        self.followers.let_go_until(until, NO_MEMORY)
        return self.forget_oldest()

    def drop_unread(self) -> bool:
        """Drop all unread events of the reader that is furthest behind; a gap reports them.

        Return False if no reader has unread events.
        """
        for subscriber in sorted(self._everyone(), key=lambda s: s.unread.bytes, reverse=True):
            if subscriber.unread.events:
                subscriber.source = drop_oldest(subscriber.source, 0, _NO_MEMORY)
                if subscriber.on_taken is not None:
                    subscriber.on_taken()
                subscriber.wake()
                while self.forget_oldest():
                    pass
                return True
        return False

    # The next methods attach and detach readers.

    def attach(
        self,
        subscriber_id: str,
        start: Start | Position,
        *,
        limits: QueueLimits,
        policy: OverflowPolicy,
        filters: Sequence[EventFilter] = (),
        feed_filters: Sequence[FeedFilter] = (),
        client_name: str = "",
        peer: str = "",
        policy_source: str = "",
        policy_owner: Owner | None = None,
        older_until: int | None = None,
    ) -> Subscriber:
        """Decide where a new subscriber begins, and place its cursor. `policy_source` names the distribution of the
        policy, and `policy_owner` is its plugin; without one, calls of the policy are not counted and timed.

        With `older_until`, the caller first sends older events from a history store, which has everything behind
        `start` up to this sequence. No gap is sent for these events. The resume is complete only if they reach up to
        the log.

        Raises:
            GatewayError: the session has ended; this is the error with which its streams ended.
        """
        if self.end_error is not None:
            raise self.end_error
        place = self.decide(start, older_until)
        lost = self.never_delivered if start is Start.OLDEST_RETAINED else None
        if lost is not None:
            # Events that the log has forgotten after this gap was recorded are lost as well. So the gap ends where the
            # log begins.
            gap = replace(lost, last=max(lost.last, place.cursor))
            place = StartPlace(place.cursor, was_resuming=False, recovered=False, gap=gap)
        is_stored = older_until is not None and place.was_resuming and place.gap is not None and place.gap.first > 0
        subscriber = Subscriber(
            subscriber_id,
            self.log,
            place,
            None if is_stored else place.gap,
            limits,
            self._overflow.checked(policy, policy_source, policy_owner),
            filters=FeedFilters(feed_filters) if feed_filters else self._shared(filters),
            session_counts=self.counts,
            client_name=client_name,
            peer=peer,
        )
        self.subscribers[subscriber_id] = subscriber
        self._count_readers()
        self.was_attached = True
        if lost is not None:
            self.never_delivered = None
        if place.was_resuming:
            self.counts.count(RESUMES, str(place.recovered).lower())
            self.counts.replayed.observe(subscriber.unread.events)
        self.trim()
        return subscriber

    def decide(self, start: Start | Position, older_until: int | None = None) -> StartPlace:
        """Return where a subscriber would begin if it attached now; for `older_until` see `attach`."""
        self.trim()
        return decide(self.log, self.epoch, start, older_until)

    def _shared(self, filters: Sequence[EventFilter]) -> Filters | None:
        if not filters:
            return None
        if self.items is None:
            raise TypeError("a feed's events are about no items: use feed_filters")
        own = ItemFilters(filters, self.items)
        return self._filters.setdefault(own.filters, own) if own.is_standing else own

    def attach_internal(self, subscriber_id: str, *, limits: QueueLimits, policy: OverflowPolicy) -> Subscriber:
        """Attach an internal reader, for example the dashboard.

        An internal reader gets only new events, and is not counted as a subscriber.

        Raises:
            GatewayError: the session has ended.
        """
        if self.end_error is not None:
            raise self.end_error
        place = StartPlace(self.log.head, was_resuming=False, recovered=False)
        checked = self._overflow.checked(policy, "mxgw", None)
        subscriber = Subscriber(
            *(subscriber_id, self.log, place, None, limits, checked), session_counts=SessionCounts(), is_internal=True
        )
        self._internal[subscriber_id] = subscriber
        self._count_readers()
        return subscriber

    def follow(
        self,
        following: Following,
        after: Position | None,
        *,
        session_id: str,
        name: str,
        batch_bytes: int,
    ) -> LogFollower:
        """Add a follower that begins behind `after`; with None, at the oldest event of the log.

        Raises:
            PositionForeign: `after` has another epoch.
            InvalidRequest: `after` is ahead of the head.
            GatewayError: the session has ended.
        """
        if self.end_error is not None:
            raise self.end_error
        place = self.decide(Start.OLDEST_RETAINED if after is None else after)
        if place.gap is not None and not place.gap.first:
            foreign = place.gap.reason == GapReason.GAP_REASON_EPOCH_CHANGED
            error = PositionForeign if foreign else InvalidRequest
            raise error(place.gap.detail, metadata={"field": "after"})
        followers, bound_bytes = self.followers, self._bound_bytes
        followers.limit_bytes, followers.setting = following.session_bytes, "events.follow_bytes"
        if bound_bytes is not None and bound_bytes < following.session_bytes:
            followers.limit_bytes, followers.setting = bound_bytes, self._bound_setting
        return followers.follow(
            following, place, session_id=session_id, epoch=self.epoch, name=name, batch_bytes=batch_bytes
        )

    def _followers_changed(self) -> None:
        """Called when the first follower has come, and when the last one has gone."""
        self._count_readers()
        if self.followers.is_complete and not self.followers:
            self.log.release()

    def _count_readers(self) -> None:
        self.log.is_shared = len(self.subscribers) + len(self._internal) + len(self.followers) > 1

    def detach(self, subscriber: Subscriber) -> bool:
        """Remove a subscriber or an internal reader; return whether it was the last subscriber of the session."""
        self._overflow.unblock(subscriber)
        was_internal = self._internal.pop(subscriber.id, None) is not None
        was_here = not was_internal and self.subscribers.pop(subscriber.id, None) is not None
        self._count_readers()
        if not was_here:
            return False
        self.counts.left.add(subscriber.counts)
        if (error := subscriber.end_error) is not None:
            self.counts.count(DISCONNECTS, error.reason)
        self.trim()
        return not self.subscribers

    def end(self, error: GatewayError) -> None:
        """End every stream with `error` after everything in the log is delivered. Then `attach` raises `error`."""
        if self.end_error is None:
            self.end_error = self.followers.end_error = error
            self._overflow.stop()
            for subscriber in self._everyone():
                subscriber.finish(error)

    def release(self) -> None:
        """Free the memory of the log after the session has ended. By then, unread events are in the readers' backlogs.

        Session, worker and log refer to each other, so otherwise only the garbage collector could free their memory.
        The collector examines old objects only after their number has grown by a quarter. On a large site, most memory
        would then belong to sessions that have ended. While followers have not read everything, only what they hold
        remains.
        """
        self._retention = self._unattached = NOTHING_RETAINED
        self._for_return = None
        self.followers.complete()
        if self.followers:
            self.trim()
        else:
            self.log.release()
