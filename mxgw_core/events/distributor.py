"""The pump of one session: takes the worker's events into the log and lets its subscribers know.

It never waits for a subscriber. A subscriber beyond its limits is judged by its own policy at once; what the policy
decides touches that subscriber only.

It has more than 400 lines, because every way a verdict can take, and all that is forgotten for the sake of memory,
moves the same log and the same cursors.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import (
    Block,
    Conflate,
    Disconnect,
    DropNewest,
    DropOldest,
    EventFilter,
    FailSession,
    Lag,
    OverflowPolicy,
    QueueLimits,
    Resync,
    Retention,
    Select,
    Tolerate,
)
from mxgw_core.api.events import Verdict as PolicyVerdict
from mxgw_core.api.feeds import FeedFilter
from mxgw_core.api.types import Position
from mxgw_core.events.budget import OverBudget, wanted
from mxgw_core.events.endings import overflow_error
from mxgw_core.events.figures import DISCONNECTS, OVERFLOW, RESUMES, STALL, Rate, SessionFigures, StreamTotals
from mxgw_core.events.filtering import FeedSieve, ItemSieve, Sieve
from mxgw_core.events.guard import POLICY_BUDGET_S, PolicyGuard
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.lead_in import Doubts
from mxgw_core.events.log import EventLog, LogGap
from mxgw_core.events.memory import MemoryUse
from mxgw_core.events.records import MalformedBatch
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.events.verdict import Start, Verdict, decide
from mxgw_core.events.waiting import Cancellable

# However patient a policy is, nobody else waits longer for its subscriber.
_LONGEST_BLOCK_S = 60.0
# However impatient a policy is, it is not asked more often than this.
_SHORTEST_RECHECK_S = 0.01
# Events are forgotten together with those that came within this share of the retention's seconds.
_AGE_SHARE = 1 / 8
# What `Select.keep` may take for each item besides.
_ANSWER_BUDGET_S = 0.000_002

_NO_MEMORY = "the gateway held more than limits.memory_bytes, and this reader was furthest behind: read faster"

NOTHING_RETAINED = Retention(events=0, bytes=0, seconds=0.0)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What `attach` returns: the subscriber, and the verdict its stream opens with."""

    subscriber: Subscriber
    verdict: Verdict


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
        self.doubts = Doubts()
        self.subscribers: dict[str, Subscriber] = {}
        self.end_error: GatewayError | None = None
        # Lost before anybody could attach; told to the first who asks for the oldest.
        self.never_delivered: LogGap | None = None
        self.figures = SessionFigures()
        self._clock = clock
        self._unattached = unattached
        self._retention = NOTHING_RETAINED
        self._bound_bytes: int | None = None
        self._on_fail_session = on_fail_session
        self._was_attached = False
        self._rate = Rate()
        self._guard = PolicyGuard(self.figures)
        # Mirrors of the gateway's own, such as a dashboard: they never count, and never end before the session.
        self._internal: dict[str, Subscriber] = {}
        # What subscribers with equal filters share, while one of them is attached.
        self._sieves: WeakValueDictionary[tuple[EventFilter, ...], ItemSieve] = WeakValueDictionary()
        self._hold: Callable[[bool], None] | None = None
        self._blocked_by: Subscriber | None = None
        self._blocked_at = 0.0
        self._call_later = call_later or (lambda delay, then: asyncio.get_running_loop().call_later(delay, then))
        # Ends a `Block`.
        self._block_timer: Cancellable | None = None
        # Asks a policy that tolerated again; at most one, for the first that is due.
        self._recheck: tuple[float, Cancellable] | None = None

    def retain(self, retention: Retention) -> None:
        """Keep this much after delivery, and no less than was asked for before; `bound` has the last word."""
        retention = retention if self._retention is NOTHING_RETAINED else self._retention.covering(retention)
        self._retention = self._bounded(retention)
        self.log.segment_s = self._retention.seconds * _AGE_SHARE or math.inf

    def bound(self, limit_bytes: int) -> None:
        """Keep no more bytes of events than this, whoever asks for more; call it before anything is kept."""
        self._bound_bytes = limit_bytes
        self._unattached, self._retention = self._bounded(self._unattached), self._bounded(self._retention)

    def _bounded(self, retention: Retention) -> Retention:
        if self._bound_bytes is None:
            return retention
        return replace(retention, bytes=min(retention.bytes, self._bound_bytes))

    def refill_after(self, sequence: int) -> None:
        """Begin behind `sequence`: a worker that was taken over sends all it kept at once, which is no rate."""
        self.log.start_after(sequence)
        self._rate.restart(math.inf)

    def refilled(self) -> None:
        """The worker sent what it had kept: from now on events come as they happen."""
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
        """Return what the session took and gave so far; mirrors of the gateway's own do not count."""
        totals = StreamTotals(self.log.appended_events, self.log.appended_bytes, counts=self.figures.counts())
        totals.replayed.add(self.figures.replayed)
        for figures in (self.figures.left, *(subscriber.figures for subscriber in self.subscribers.values())):
            totals.given.add(figures)
        if self._blocked_by is not None:  # what the end of the stall will count is no less
            totals.counts[STALL,] += int((self._clock() - self._blocked_at) * 1000)
        return totals

    # from the worker

    def append(self, first: int, last: int, batch: bytes) -> None:
        """Take consecutive events; call `flush` once the frames at hand are all in.

        Raises:
            OutOfOrder: they do not follow the head.
        """
        self.log.append(first, last, batch)

    def append_gap(self, gap: LogGap) -> None:
        """Take a range that no event will fill.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        self.log.append_gap(gap)

    def begin_behind(self, gap: LogGap) -> None:
        """Take a range that no event will fill, in front of all others: the log begins behind it.

        It is a gap like any other when something came before, or when somebody already reads from there.

        Raises:
            OutOfOrder: it does not follow the head.
        """
        if self.log.has_begun or self._everyone() or not self.log.head + 1 == gap.first <= gap.last:
            self.log.append_gap(gap)
            return
        self.log.start_after(gap.last)
        # Told to the first who asks for the oldest; who resumes is told that the log begins later.
        first = self.never_delivered.first if self.never_delivered else gap.first
        self.never_delivered = LogGap(first, gap.last, GapReason.GAP_REASON_RING_EVICTED, gap.detail)

    def flush(self) -> None:
        """Judge whoever is beyond its limits, wake whoever waits, and forget what nobody needs."""
        self._look()
        # Whoever is level was given the events at once: there is nothing to judge.
        behind = [subscriber for subscriber in self._everyone() if not subscriber.serve()]
        for subscriber in behind:
            self._judge(subscriber)
        for subscriber in behind:
            subscriber.appended()
        self.trim()

    def check(self) -> None:
        """Judge whoever is beyond its limits, and forget what is too old; called now and then, for what time does."""
        self._look()
        for subscriber in self._everyone():
            self._judge(subscriber)
        self.trim()

    def _look(self) -> None:
        self._rate.mark(self._clock(), self.log.appended_events, self.log.appended_bytes)
        if self._blocked_by is not None and self._blocked_by.end is not None:
            self._unblock()

    def _judge(self, subscriber: Subscriber) -> None:
        if subscriber.end is not None or subscriber is self._blocked_by:
            return
        if subscriber.refusing_from is not None:
            subscriber.skip_refused()
            return
        subscriber.gather()
        if subscriber.is_idle:
            return  # a burst that is larger than the limit is no sign of a slow reader
        if subscriber.is_over_limit():
            self._overflow(subscriber)
        elif not subscriber.is_conflating:
            subscriber.over_since = None

    def _everyone(self) -> tuple[Subscriber, ...]:
        return (*self.subscribers.values(), *self._internal.values())

    def _overflow(self, subscriber: Subscriber) -> None:
        lag = subscriber.lag()
        verdict = self._guard.verdict(subscriber, lag)
        kind = type(verdict).__name__
        if not isinstance(verdict, Tolerate):
            self.figures.count(OVERFLOW, subscriber.policy_name, kind)
        self._try(verdict, subscriber, lag)

    def _try(self, verdict: PolicyVerdict, subscriber: Subscriber, lag: Lag) -> None:
        """Carry a verdict out; what is wrong with it, or with code it brings, is the policy's failure."""
        try:
            self._carry_out(verdict, subscriber, lag)
        except MalformedBatch:
            raise  # the worker's failure
        except OverBudget as error:
            self._guard.failed(subscriber, str(error))
            self._disconnect(subscriber, lag)
        except Exception:
            self._guard.failed(subscriber, f"failed in {type(verdict).__name__}", exc_info=True)
            self._disconnect(subscriber, lag)

    def _carry_out(self, verdict: PolicyVerdict, subscriber: Subscriber, lag: Lag) -> None:
        match verdict:
            case Disconnect():
                self._disconnect(subscriber, lag)
            case FailSession():
                self._disconnect(subscriber, lag)
                if subscriber.id not in self._internal:
                    self._on_fail_session(f"subscriber {subscriber.name} fell {lag.events} events behind")
            case DropOldest(keep_events):
                subscriber.drop_oldest(min(keep_events, max(lag.events - 1, 0)))
            case DropNewest(resume_below_events):
                subscriber.refuse_newest(min(resume_below_events, max(lag.events - 1, 0)))
            case Conflate():
                if not subscriber.conflate():
                    # What is never replaced, or the newest values alone, are too much: bounded like any other.
                    self._disconnect(subscriber, lag)
            case Select(keep):
                subscriber.select(lambda items: wanted(keep, items, POLICY_BUDGET_S, _ANSWER_BUDGET_S))
                if subscriber.is_over_limit():
                    self._disconnect(subscriber, lag)
            case Resync():
                subscriber.drop_oldest(0)
                if self._retention.snapshots:
                    subscriber.want_snapshot()
            case Tolerate(recheck_s):
                self._check_after(recheck_s)
            case Block():
                self._block(subscriber, lag, verdict)

    def _check_after(self, seconds: float) -> None:
        """Look again in so many seconds, or before."""
        due = self._clock() + max(seconds, _SHORTEST_RECHECK_S)
        if self._recheck is not None and self._recheck[0] <= due:
            return
        self._cancel_recheck()

        def check() -> None:
            self._recheck = None
            self.check()

        self._recheck = due, self._call_later(due - self._clock(), check)

    def _cancel_recheck(self) -> None:
        if self._recheck is not None:
            self._recheck[1].cancel()
            self._recheck = None

    def _disconnect(self, subscriber: Subscriber, lag: Lag) -> None:
        if subscriber.id in self._internal:
            subscriber.drop_oldest(0)  # a mirror of our own is never cut: it begins again from here
        else:
            subscriber.finish(overflow_error(subscriber, lag.events, self.log.head))

    def _block(self, subscriber: Subscriber, lag: Lag, verdict: Block) -> None:
        if self._blocked_by is not None:
            return  # held already; this one is asked again when it goes on
        if self._hold is None or subscriber.id in self._internal:
            self._carry_out(verdict.then, subscriber, lag)
            return

        def expired() -> None:
            self._unblock()
            if subscriber.end is None and subscriber.is_over_limit():
                self._try(verdict.then, subscriber, lag)
                subscriber.wake()

        def read() -> None:
            if not subscriber.is_over_limit():
                self._unblock()

        if not 0 <= verdict.timeout_s <= _LONGEST_BLOCK_S:
            raise ValueError(f"a session must not wait {verdict.timeout_s} s for a subscriber")
        self._block_timer = self._call_later(verdict.timeout_s, expired)
        subscriber.on_read = read
        self._blocked_by, self._blocked_at = subscriber, self._clock()
        self._hold(True)

    def _unblock(self) -> None:
        subscriber, self._blocked_by = self._blocked_by, None
        if subscriber is None:
            return
        subscriber.on_read = None
        self.figures.count(STALL, by=round((self._clock() - self._blocked_at) * 1000))
        if self._block_timer is not None:
            self._block_timer.cancel()
            self._block_timer = None
        if self._hold is not None:
            self._hold(False)

    def hold_with(self, hold: Callable[[bool], None]) -> None:
        """Let `hold(True)` stop the worker's events and `hold(False)` let them come again; for `Block`."""
        self._hold = hold

    def trim(self) -> None:
        """Forget what is neither retained nor unread: what is oldest then is what a resume can have."""
        keep = self._retention if self._was_attached else self._retention.covering(self._unattached)
        if not self.log.exceeds(keep.events, keep.bytes, keep.seconds):
            return
        self._forgotten(self.log.trim(self._floor(), keep.events, keep.bytes, keep.seconds))

    def _floor(self) -> int:
        """Return up to where everybody has read."""
        active = [s for s in self._everyone() if s.end is None]
        return min((s.cursor for s in active), default=self.log.head)

    def _forgotten(self, forgotten: LogGap | None) -> None:
        if forgotten is not None and not self._was_attached:
            first = self.never_delivered.first if self.never_delivered else forgotten.first
            self.never_delivered = LogGap(
                first,
                forgotten.last,
                GapReason.GAP_REASON_RING_EVICTED,
                "evicted before anybody attached: attach sooner, or raise events.unattached_events",
            )

    # memory

    def memory(self) -> MemoryUse:
        """Return what the session holds; what else is kept for it is to be counted here, as a kind of its own."""
        backlogs = sum(subscriber.memory_bytes for subscriber in self._everyone())
        items = self.items.size_bytes if self.items is not None else 0
        return MemoryUse(
            log=self.log.memory_bytes,
            joined=self.log.shared_bytes,
            backlog=backlogs,
            items=items,
            answers=sum(sieve.memory_bytes for sieve in self._sieves.values()),
        )

    def forget_oldest(self) -> bool:
        """Forget the oldest that nobody has to read any more, although it is retained; return whether there was any."""
        forgotten = self.log.trim_oldest(self._floor())
        self._forgotten(forgotten)
        return forgotten is not None

    def drop_unread(self) -> bool:
        """Drop all that the reader furthest behind has yet to read, with a gap; return whether there was any."""
        for subscriber in sorted(self._everyone(), key=lambda s: s.lag_bytes, reverse=True):
            if subscriber.drop_unread(_NO_MEMORY):
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
    ) -> Subscription:
        """Decide where to begin and place the cursor, in one step; `policy_source` names who brought the policy.

        With `older_until` the caller serves first what the log no longer holds, from a store that has everything
        behind `start` up to there: it is not announced as a gap, and the store must reach to the log for the resume to
        be complete.

        Raises:
            GatewayError: the session has ended; the same error its streams ended with.
        """
        if self.end_error is not None:
            raise self.end_error
        verdict = self.decide(start, older_until)
        subscriber = Subscriber(
            subscriber_id,
            self.log,
            verdict.cursor,
            limits,
            self._guard.usable(policy, policy_source),
            FeedSieve(feed_filters) if feed_filters else self._sieve(filters),
            self._clock,
            figures=self.figures,
            client_name=client_name,
            peer=peer,
            policy_source=policy_source,
        )
        gap = verdict.gap
        if start is Start.OLDEST_RETAINED and self.never_delivered is not None:
            lost, self.never_delivered = self.never_delivered, None
            # Whatever went since then is not held either: the gap reaches to where the events begin.
            gap = replace(lost, last=max(lost.last, verdict.cursor))
            verdict = Verdict(verdict.cursor, was_resuming=False, recovered=False, gap=gap)
        if older_until is not None and verdict.was_resuming and gap is not None and gap.first:
            subscriber.delivered = gap.first - 1
        elif gap is not None:
            subscriber.put_first(gap)
        self.subscribers[subscriber_id] = subscriber
        self._count_readers()
        self._was_attached = True
        if verdict.was_resuming:
            self.figures.count(RESUMES, str(verdict.recovered).lower())
            self.figures.replayed.observe(subscriber.lag_events)
        self.trim()
        return Subscription(subscriber, verdict)

    def decide(self, start: Start | Position, older_until: int | None = None) -> Verdict:
        """Return where a subscriber would begin at this moment; `older_until` as for `attach`."""
        self.trim()
        return decide(self.log, self.epoch, start, older_until)

    def _sieve(self, filters: Sequence[EventFilter]) -> Sieve | None:
        if not filters:
            return None
        if self.items is None:
            raise TypeError("a feed's events are about no items: use feed_filters")
        sieve = ItemSieve(filters, self.items)
        return self._sieves.setdefault(sieve.filters, sieve) if sieve.is_standing else sieve

    def attach_internal(self, subscriber_id: str, *, limits: QueueLimits, policy: OverflowPolicy) -> Subscriber:
        """Attach a mirror of the gateway's own, from here on; it does not count as a subscriber.

        Raises:
            GatewayError: the session has ended.
        """
        if self.end_error is not None:
            raise self.end_error
        subscriber = Subscriber(
            subscriber_id, self.log, self.log.head, limits, policy, None, self._clock, figures=SessionFigures()
        )
        self._internal[subscriber_id] = subscriber
        self._count_readers()
        return subscriber

    def _count_readers(self) -> None:
        self.log.is_shared = len(self.subscribers) + len(self._internal) > 1

    def detach(self, subscriber: Subscriber) -> bool:
        """Forget a subscriber; return whether it was the last one."""
        if self._blocked_by is subscriber:
            self._unblock()
        was_internal = self._internal.pop(subscriber.id, None) is not None
        was_here = not was_internal and self.subscribers.pop(subscriber.id, None) is not None
        self._count_readers()
        if not was_here:
            return False
        self.figures.left.add(subscriber.figures)
        if subscriber.end is not None:
            self.figures.count(DISCONNECTS, subscriber.end.error.reason)
        self.trim()
        return not self.subscribers

    def end(self, error: GatewayError) -> None:
        """End every stream with `error` after what is in the log; whoever attaches later gets it at once."""
        if self.end_error is None:
            self.end_error = error
            self._unblock()
            self._cancel_recheck()
            for subscriber in self._everyone():
                subscriber.finish(error)

    def release(self) -> None:
        """Give the log's memory back, once the session has ended; what its readers have yet to take is theirs already.

        Session, worker and log refer to each other, so all of it would wait for the collector otherwise, and that
        looks at old objects only when a quarter more of them have come: a site's largest memory would be that of
        sessions which are gone.
        """
        self.log.release()
