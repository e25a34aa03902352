"""The pump of one session: takes the worker's events into the log and lets its subscribers know.

It never waits for a subscriber. A subscriber beyond its limits is judged by its own policy at once; what the policy
decides touches that subscriber only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError, SubscriberOverflow
from mxgw_core.api.events import (
    Disconnect,
    DropNewest,
    DropOldest,
    EventFilter,
    FailSession,
    OverflowPolicy,
    QueueLimits,
    Retention,
)
from mxgw_core.api.events import Verdict as PolicyVerdict
from mxgw_core.api.types import Position
from mxgw_core.events.log import EventLog, LogGap
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.events.verdict import Start, Verdict, decide
from mxgw_core.printable import printable

log = logging.getLogger(__name__)

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
        on_fail_session: called when a subscriber's policy asks for the session to be faulted.
    """

    def __init__(
        self,
        *,
        unattached: Retention,
        on_fail_session: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = b""
        self.log = EventLog(clock)
        self.subscribers: dict[str, Subscriber] = {}
        self.end_error: GatewayError | None = None
        # Lost before anybody could attach; told to the first who asks for the oldest.
        self.never_delivered: LogGap | None = None
        self.policy_failures = 0
        self._clock = clock
        self._unattached = unattached
        self._retention = NOTHING_RETAINED
        self._on_fail_session = on_fail_session
        self._was_attached = False
        self._policies_logged: set[str] = set()

    def retain(self, retention: Retention) -> None:
        """Keep this much after delivery."""
        self._retention = retention

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

    def flush(self) -> None:
        """Judge whoever is beyond its limits, wake whoever waits, and forget what nobody needs."""
        for subscriber in tuple(self.subscribers.values()):
            if subscriber.end is not None:
                continue
            if subscriber.refusing_from is not None:
                subscriber.skip_refused()
            elif subscriber.is_over_limit():
                self._overflow(subscriber)
            subscriber.wake()
        self._trim()

    def _overflow(self, subscriber: Subscriber) -> None:
        lag = subscriber.lag()
        try:
            verdict: PolicyVerdict = subscriber.policy.on_overflow(lag)
        except Exception:
            self._policy_failed(subscriber, "raised", exc_info=True)
            verdict = Disconnect()
        match verdict:
            case Disconnect():
                subscriber.finish(_overflow_error(subscriber, lag.events, self.log.head))
            case FailSession():
                subscriber.finish(_overflow_error(subscriber, lag.events, self.log.head))
                self._on_fail_session(f"subscriber {subscriber.name} fell {lag.events} events behind")
            case DropOldest(int(keep_events)):
                subscriber.drop_oldest(min(keep_events, max(lag.events - 1, 0)))
            case DropNewest(int(resume_below_events)):
                subscriber.refuse_newest(min(resume_below_events, max(lag.events - 1, 0)))
            case _:
                self._policy_failed(subscriber, f"answered {printable(repr(verdict), 80)}, which is no verdict")
                subscriber.finish(_overflow_error(subscriber, lag.events, self.log.head))

    def _policy_failed(self, subscriber: Subscriber, what: str, *, exc_info: bool = False) -> None:
        self.policy_failures += 1
        name = type(subscriber.policy).__module__
        if name not in self._policies_logged:
            self._policies_logged.add(name)
            log.warning(
                "overflow policy of %s %s: its subscriber is disconnected instead", name, what, exc_info=exc_info
            )

    def _trim(self) -> None:
        active = [s for s in self.subscribers.values() if s.end is None]
        keep = self._retention if self._was_attached else self._unattached
        floor = min((s.cursor for s in active), default=self.log.head)
        forgotten = self.log.trim(floor, keep.events, keep.bytes, keep.seconds)
        if forgotten is not None and not self._was_attached:
            first = self.never_delivered.first if self.never_delivered else forgotten.first
            self.never_delivered = LogGap(
                first,
                forgotten.last,
                GapReason.GAP_REASON_RING_EVICTED,
                "evicted before anybody attached: attach sooner, or raise events.unattached_events",
            )

    # for subscribers

    def attach(
        self,
        subscriber_id: str,
        start: Start | Position,
        *,
        limits: QueueLimits,
        policy: OverflowPolicy,
        filters: Sequence[EventFilter] = (),
        client_name: str = "",
        peer: str = "",
        has_history: bool = False,
    ) -> Subscription:
        """Decide where to begin and place the cursor, in one step.

        With `has_history` what the log no longer holds is not announced as a gap: the caller serves it first.

        Raises:
            GatewayError: the session has ended; the same error its streams ended with.
        """
        if self.end_error is not None:
            raise self.end_error
        verdict = decide(self.log, self.epoch, start)
        subscriber = Subscriber(
            subscriber_id,
            self.log,
            verdict.cursor,
            limits,
            policy,
            filters,
            self._clock,
            client_name=client_name,
            peer=peer,
        )
        gap = verdict.gap
        if start is Start.OLDEST_RETAINED and self.never_delivered is not None:
            lost, self.never_delivered = self.never_delivered, None
            # Whatever went since then is not held either: the gap reaches to where the events begin.
            gap = replace(lost, last=max(lost.last, verdict.cursor))
            verdict = Verdict(verdict.cursor, was_resuming=False, recovered=False, gap=gap)
        if gap is not None and not (has_history and gap.reason == GapReason.GAP_REASON_RING_EVICTED):
            subscriber.put_first(gap)
        self.subscribers[subscriber_id] = subscriber
        self._was_attached = True
        return Subscription(subscriber, verdict)

    def detach(self, subscriber: Subscriber) -> bool:
        """Forget a subscriber; return whether it was the last one."""
        if self.subscribers.pop(subscriber.id, None) is None:
            return False
        self._trim()
        return not self.subscribers

    def end(self, error: GatewayError) -> None:
        """End every stream with `error` after what is in the log; whoever attaches later gets it at once."""
        if self.end_error is None:
            self.end_error = error
            for subscriber in self.subscribers.values():
                subscriber.finish(error)


def _overflow_error(subscriber: Subscriber, lag_events: int, head: int) -> SubscriberOverflow:
    limits = subscriber.limits
    return SubscriberOverflow(
        f"the subscriber fell {lag_events} events behind (limits: {limits.events} events, {limits.bytes} bytes, "
        f"{limits.seconds:g} s). Resume after the last position received; read faster, or raise events.queue_events, "
        "events.queue_bytes or events.queue_seconds in the gateway's settings.",
        metadata={
            "policy": subscriber.policy_name,
            "lag_events": str(lag_events),
            "limit_events": str(limits.events),
            # What is unread now is still delivered; the loss begins behind it.
            "lost_from": str(head + 1),
        },
        retry_after_s=0.2,
    )
