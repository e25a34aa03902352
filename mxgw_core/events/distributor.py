"""The pump of one session: takes the worker's events into the log and lets the readers know.

It never waits for a reader. Readers that are over their limits are handed to `events.overflow`; what their policies
decide touches only them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import EventFilter, OverflowPolicy, QueueLimits, Retention
from mxgw_core.api.feeds import FeedFilter
from mxgw_core.api.types import Position
from mxgw_core.events.counts import DISCONNECTS, RESUMES, STALL, Rate, SessionCounts, StreamTotals
from mxgw_core.events.filters import FeedFilters, Filters, ItemFilters
from mxgw_core.events.history import BrokenPromises
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.log import EventLog
from mxgw_core.events.memory import MemoryUse
from mxgw_core.events.overflow import Cancellable, Overflow, drop_oldest
from mxgw_core.events.pieces import Gap
from mxgw_core.events.sources import FromLog
from mxgw_core.events.start import Start, StartPlace, decide
from mxgw_core.events.subscriber import Subscriber

# A segment, which is forgotten as a whole, has events of at most this share of the retention's seconds.
_AGE_SHARE = 1 / 8

_NO_MEMORY = "the gateway held more than limits.memory_bytes, and this reader was furthest behind: read faster"

NOTHING_RETAINED = Retention(events=0, bytes=0, seconds=0.0)


class Distributor:
    """One session's log and subscribers. Lives in the event loop; no method blocks.

    Args:
        unattached: what is held until the first subscriber attaches.
        items: the items that the events are about; None for a feed of a plugin.
        on_fail_session: called when a subscriber's policy asks for the session to be faulted.
        call_later: as that of the event loop, in seconds of `clock`.
    """

    def __init__(
        self,
        *,
        unattached: Retention,
        items: ItemBook | None = None,
        on_fail_session: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        call_later: Callable[[float, Callable[[], None]], Cancellable] | None = None,
    ) -> None:
        self.epoch = b""
        self.log = EventLog(clock)
        self.items = items
        self.broken_promises = BrokenPromises()
        self.subscribers: dict[str, Subscriber] = {}
        self.end_error: GatewayError | None = None
        # Lost before anybody could attach; named in a gap to the first reader that asks for the oldest.
        self.never_delivered: Gap | None = None
        self.counts = SessionCounts()
        self._clock = clock
        self._unattached = unattached
        self._retention = NOTHING_RETAINED
        self._bound_bytes: int | None = None
        self._was_attached = False
        self._rate = Rate()
        # Internal readers, for example the dashboard: not counted, and never disconnected before the session ends.
        self._internal: dict[str, Subscriber] = {}
        # What subscribers with equal filters share, while one of them is attached.
        self._filters: WeakValueDictionary[tuple[EventFilter, ...], ItemFilters] = WeakValueDictionary()
        self._overflow = Overflow(
            self.counts,
            check_all=self.check,
            has_snapshots=lambda: self.has_snapshots,
            on_fail_session=on_fail_session,
            clock=clock,
            call_later=call_later or (lambda delay, then: asyncio.get_running_loop().call_later(delay, then)),
        )

    def retain(self, retention: Retention) -> None:
        """Keep this much after delivery, and no less than was asked for before; `bound` has the last word."""
        retention = retention if self._retention is NOTHING_RETAINED else self._retention.covering(retention)
        self._retention = self._bounded(retention)
        self.log.segment_s = self._retention.seconds * _AGE_SHARE or math.inf

    def bound(self, limit_bytes: int) -> None:
        """Keep at most so many bytes of events, even when plugins ask for more. To be called before the first event."""
        self._bound_bytes = limit_bytes
        self._unattached, self._retention = self._bounded(self._unattached), self._bounded(self._retention)

    def _bounded(self, retention: Retention) -> Retention:
        if self._bound_bytes is None:
            return retention
        return replace(retention, bytes=min(retention.bytes, self._bound_bytes))

    def refill_after(self, sequence: int) -> None:
        """Begin behind `sequence`: a worker that was taken over sends all that it kept at once, which is no rate."""
        self.log.start_after(sequence)
        self._rate.restart(math.inf)

    def refilled(self) -> None:
        """The worker has sent everything it had kept: from now on events come as they happen."""
        self._rate.restart(self._clock())

    @property
    def has_snapshots(self) -> bool:
        """Whether subscribers may ask for the last values of all items."""
        return self._retention.snapshots

    @property
    def horizon_s(self) -> float | None:
        """How far back the log reaches at the present rate; None while nothing is retained or nothing comes."""
        keep = self._retention
        events_per_s, bytes_per_s = self._rate.events_per_s, self._rate.bytes_per_s
        if not keep.events or not events_per_s:
            return None
        reach_s = min(keep.events / events_per_s, keep.bytes / bytes_per_s)
        return min(reach_s, keep.seconds) if keep.seconds else reach_s

    def totals(self) -> StreamTotals:
        """Return what the session took and gave so far; internal readers do not count."""
        totals = StreamTotals(self.log.appended_events, self.log.appended_bytes, counts=self.counts.copy())
        totals.replayed.add(self.counts.replayed)
        for given in (self.counts.left, *(subscriber.counts for subscriber in self.subscribers.values())):
            totals.given.add(given)
        if stalled_ms := self._overflow.stalled_ms:  # when the stall ends at least this much is counted
            totals.counts[STALL,] += stalled_ms
        return totals

    # from the worker

    def append(self, first: int, last: int, batch: bytes) -> None:
        """Take consecutive events; call `flush` once the frames at hand are all in.

        Raises:
            OutOfOrder: they do not follow the head.
        """
        self.log.append(first, last, batch)

    def append_gap(self, gap: Gap) -> None:
        """Take a range that no event will fill.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        self.log.append_gap(gap)

    def begin_behind(self, gap: Gap) -> None:
        """Take a range that no event will fill, in front of all others: the log begins behind it.

        It is a gap like any other when something came before, or when there are readers already.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        if self.log.has_begun or self._everyone() or not self.log.head + 1 == gap.first <= gap.last:
            self.log.append_gap(gap)
            return
        self.log.start_after(gap.last)
        # The first reader that asks for the oldest gets this gap; one that resumes gets a gap up to the log's begin.
        first = self.never_delivered.first if self.never_delivered else gap.first
        self.never_delivered = Gap(first, gap.last, GapReason.GAP_REASON_RING_EVICTED, gap.detail)

    def flush(self) -> None:
        """Let readers take what is new, check those that are behind, and forget what nobody needs."""
        self._rate.mark(self._clock(), self.log.appended_events, self.log.appended_bytes)
        behind = []
        for subscriber in self._everyone():
            if subscriber.is_idle and type(subscriber.source) is FromLog:
                subscriber.wake()  # it takes the events at once: there is nothing to check
            else:
                behind.append(subscriber)
        for subscriber in behind:
            self._overflow.check(subscriber)
        for subscriber in behind:
            if not subscriber.is_timed:
                subscriber.wake()
        self.trim()

    def check(self) -> None:
        """Check every reader, and forget what is too old; called now and then, because time passes."""
        self._rate.mark(self._clock(), self.log.appended_events, self.log.appended_bytes)
        for subscriber in self._everyone():
            self._overflow.check(subscriber)
        self.trim()

    def _everyone(self) -> tuple[Subscriber, ...]:
        return (*self.subscribers.values(), *self._internal.values())

    def hold_with(self, hold: Callable[[bool], None]) -> None:
        """Let `hold(True)` stop the worker's events and `hold(False)` let them come again; for `Block`."""
        self._overflow.hold = hold

    def trim(self) -> None:
        """Forget what is neither retained nor unread; a resume can have everything that remains."""
        keep = self._retention if self._was_attached else self._retention.covering(self._unattached)
        if not self.log.exceeds(keep.events, keep.bytes, keep.seconds):
            return
        self._forgotten(self.log.trim(self._floor(), keep.events, keep.bytes, keep.seconds))

    def _floor(self) -> int:
        """Return up to where every reader of the log has read."""
        cursors = [s.source.reads_after for s in self._everyone()]
        return min((cursor for cursor in cursors if cursor is not None), default=self.log.head)

    def _forgotten(self, forgotten: Gap | None) -> None:
        if forgotten is not None and not self._was_attached:
            first = self.never_delivered.first if self.never_delivered else forgotten.first
            self.never_delivered = Gap(
                first,
                forgotten.last,
                GapReason.GAP_REASON_RING_EVICTED,
                "evicted before anybody attached: attach sooner, or raise events.unattached_events",
            )

    # memory

    def memory(self) -> MemoryUse:
        """Return how much memory the session holds for events; anything added to it needs a kind of its own here."""
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
        """Forget the oldest events, retained or not, if every reader has read them; return whether there were any."""
        forgotten = self.log.trim_oldest(self._floor())
        self._forgotten(forgotten)
        return forgotten is not None

    def drop_unread(self) -> bool:
        """Replace everything unread of the reader furthest behind by a gap; return whether there was anything."""
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

    # for subscribers

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
        older_until: int | None = None,
    ) -> Subscriber:
        """Decide where to begin and place the cursor, in one step; `policy_source` names who brought the policy.

        With `older_until` the caller first sends older events from a history store, which has everything behind `start`
        up to that sequence. They are not announced as a gap. The resume is complete only when they reach to the log.

        Raises:
            GatewayError: the session has ended; the same error its streams ended with.
        """
        if self.end_error is not None:
            raise self.end_error
        place = self.decide(start, older_until)
        if start is Start.OLDEST_RETAINED and self.never_delivered is not None:
            lost, self.never_delivered = self.never_delivered, None
            # What was forgotten since then is not held either: the gap reaches to where the events begin.
            gap = replace(lost, last=max(lost.last, place.cursor))
            place = StartPlace(place.cursor, was_resuming=False, recovered=False, gap=gap)
        is_stored = older_until is not None and place.was_resuming and place.gap is not None and place.gap.first > 0
        subscriber = Subscriber(
            subscriber_id,
            self.log,
            place,
            None if is_stored else place.gap,
            limits,
            self._overflow.usable(policy, policy_source),
            filters=FeedFilters(feed_filters) if feed_filters else self._shared(filters),
            session_counts=self.counts,
            client_name=client_name,
            peer=peer,
            policy_source=policy_source,
        )
        self.subscribers[subscriber_id] = subscriber
        self._count_readers()
        self._was_attached = True
        if place.was_resuming:
            self.counts.count(RESUMES, str(place.recovered).lower())
            self.counts.replayed.observe(subscriber.unread.events)
        self.trim()
        return subscriber

    def decide(self, start: Start | Position, older_until: int | None = None) -> StartPlace:
        """Return where a subscriber would begin at this moment; `older_until` as for `attach`."""
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
        """Attach an internal reader (for example the dashboard); it gets only new events, and is not counted.

        Raises:
            GatewayError: the session has ended.
        """
        if self.end_error is not None:
            raise self.end_error
        place = StartPlace(self.log.head, was_resuming=False, recovered=False)
        subscriber = Subscriber(
            *(subscriber_id, self.log, place, None, limits, policy), session_counts=SessionCounts(), is_internal=True
        )
        self._internal[subscriber_id] = subscriber
        self._count_readers()
        return subscriber

    def _count_readers(self) -> None:
        self.log.is_shared = len(self.subscribers) + len(self._internal) > 1

    def detach(self, subscriber: Subscriber) -> bool:
        """Remove a subscriber; return whether it was the last one."""
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
        """End every stream with `error`, behind everything in the log. From then on `attach` raises it."""
        if self.end_error is None:
            self.end_error = error
            self._overflow.stop()
            for subscriber in self._everyone():
                subscriber.finish(error)

    def release(self) -> None:
        """Give the log's memory back, once the session has ended; unread events are in the readers' backlogs by then.

        Session, worker and log refer to each other, so that their memory would otherwise wait for the garbage
        collector. It looks at old objects only when a quarter more of them have come: most of a large site's memory
        would belong to sessions that have ended.
        """
        self.log.release()
