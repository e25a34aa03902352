"""What happens when a reader is over its limits: its policy is asked, and the policy's action is carried out.

For each action that drops events, one function puts the reader's `Source` into another state. `Overflow` asks the
policies and carries out their actions. It has timers for the actions `Tolerate` and `Block`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from mxgw_core.api import events as actions
from mxgw_core.api.errors import GatewayError, SubscriberOverflow
from mxgw_core.api.events import Action, Lag, OverflowPolicy
from mxgw_core.events.counts import OVERFLOW, STALL, SessionCounts
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.policies import CheckedPolicy
from mxgw_core.events.policy_guard import PolicyFailed, PolicyGuard
from mxgw_core.events.selecting import Choice, by_event, by_item
from mxgw_core.events.sources import (
    Aside,
    FromLog,
    Gathering,
    Refusing,
    Source,
    dropped_gap,
    set_aside,
    settled,
)
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins.calls import Owner
from mxgw_core.printable import printable

# The shortest time after which a timer asks a policy again that has tolerated an overflow.
_SHORTEST_RECHECK_S = 0.01
# When a policy answers `Block` while its subscriber's snapshot is fetched, the worker's events are not stopped, because
# the snapshot would be stopped with them. The policy is asked again after this time.
_SNAPSHOT_S = 0.1


# The next functions change a reader's unread events, as an action of a policy demands.


def drop_oldest(source: Source, keep_events: int, why: str) -> Source:
    """Drop the oldest unread events until at most `keep_events` remain; a gap reports the dropped events."""
    source = settled(source)
    if isinstance(source, Refusing):
        source.arrived()
    assert source.backlog is not None
    excess = source.unread().events - max(0, keep_events)
    excess -= source.backlog.drop_oldest(excess, why)
    if excess > 0 and (rest := source.rest) is not None:
        first, last = rest.cursor + 1, rest.log.skip(rest.cursor, excess)
        dropped = min(excess, rest.log.after(rest.cursor)[0])
        source.backlog.append(dropped_gap(first, last, dropped, why), rest.log.appended_at(first))
        rest.move_to(last)
    return source


def refuse_newest(source: FromLog | Aside | Gathering, resume_below_events: int, why: str) -> Refusing:
    """Move all unread events to a backlog, and drop arriving events until at most `resume_below_events` are unread."""
    return Refusing(set_aside(source), max(0, resume_below_events), why)


def conflate(source: FromLog | Aside | Gathering, policy_name: str) -> Gathering:
    """Drop every data change for which a newer one of the same item exists, until the reader has caught up."""
    if isinstance(source, Gathering):
        gathering = source
    else:
        gathering = Gathering(source if isinstance(source, FromLog) else source.rest, policy_name)
        if isinstance(source, Aside):
            gathering.backlog = source.backlog
            for piece, since in source.backlog.drain():
                gathering.gathered.absorb(piece, since)
    gathering.asked()
    gathering.arrived()
    return gathering


def overflow_error(subscriber: Subscriber, lag_events: int, head: int) -> SubscriberOverflow:
    """Return the error that says how far behind the subscriber was, where the loss begins, and what helps."""
    section = subscriber.limits.section
    bytes_setting = subscriber.limits.bytes_setting or f"{section}.queue_bytes"
    return _overflow(
        f"the subscriber fell {_lag_and_limits(subscriber, lag_events)}. Resume after the last position received; read "
        f"faster, ask for another overflow policy, or raise {section}.queue_events, {bytes_setting} or "
        f"{section}.queue_seconds in the gateway's settings.",
        *(subscriber, lag_events, head),
        {},
    )


def policy_error(subscriber: Subscriber, lag_events: int, head: int) -> SubscriberOverflow:
    """Return the error for a subscriber whose policy failed. It says what `overflow_error` says, and that the policy
    failed.
    """
    return _overflow(
        f"the overflow policy {printable(subscriber.policy_name, 64)!r} failed when the subscriber was "
        f"{_lag_and_limits(subscriber, lag_events)}; the gateway's log says how it failed. Resume after the last "
        "position received; ask for another overflow policy, or have the policy corrected.",
        *(subscriber, lag_events, head),
        {"policy_failed": "true"},
    )


def _lag_and_limits(subscriber: Subscriber, lag_events: int) -> str:
    limits = subscriber.limits
    return f"{lag_events} events behind (limits: {limits.events} events, {limits.bytes} bytes, {limits.seconds:g} s)"


def _overflow(
    text: str, subscriber: Subscriber, lag_events: int, head: int, more: Mapping[str, str]
) -> SubscriberOverflow:
    return SubscriberOverflow(
        text,
        metadata={
            "policy": subscriber.policy_name,
            "lag_events": str(lag_events),
            "limit_events": str(subscriber.limits.events),
            # Events up to the head are still delivered; the loss begins behind them.
            "lost_from": str(head + 1),
            **more,
        },
        retry_after_s=0.2,
    )


def cut_error(error: GatewayError, written: int, drain_s: float) -> GatewayError:
    """Return the error for a stream that is cut off, because its reader has read nothing for `drain_s`.

    `error` is the error with which the stream was about to end. If it is a `SubscriberOverflow`, a copy is returned
    that says that the loss begins behind `written`, the last sequence written to the transport. Any other error is
    returned unchanged.
    """
    if not isinstance(error, SubscriberOverflow):
        return error
    return SubscriberOverflow(
        f"{error.message} What was queued is lost as well, because nothing was read for {drain_s:g} s.",
        metadata={**error.metadata, "lost_from": str(written + 1)},
        retry_after_s=error.retry_after_s,
    )


# The rest of the module asks the policies, and carries out their actions.


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Stop the timer, so that it does not fire any more."""


class Overflow:
    """Checks the readers of one distributor against their limits. Lives in the event loop.

    Args:
        check_all: checks every reader again; called when the waiting time of a `Tolerate` has expired.
        has_snapshots: returns whether the subscribers of the session can have snapshots.
        items: the items of the session; None for a feed of a plugin.
        on_fail_session: called when a policy asks for the session to be faulted.
        call_later: works like `call_later` of the event loop, in seconds of `clock`.

    Attributes:
        hold: `hold(True)` stops reading events from the worker, `hold(False)` continues to read them; None where events
            cannot be stopped.
    """

    def __init__(
        self,
        counts: SessionCounts,
        *,
        check_all: Callable[[], None],
        has_snapshots: Callable[[], bool],
        items: ItemBook | None,
        on_fail_session: Callable[[str], object],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
    ) -> None:
        self._counts = counts
        self._guard = PolicyGuard(counts)
        self._check_all = check_all
        self._has_snapshots = has_snapshots
        self._items = items
        self._on_fail_session = on_fail_session
        self._clock = clock
        self._call_later = call_later
        self.hold: Callable[[bool], None] | None = None
        self._blocked_by: Subscriber | None = None
        self._blocked_at = 0.0
        # Ends a `Block` when its timeout has expired.
        self._block_timer: Cancellable | None = None
        # The next time at which policies that have tolerated an overflow are asked again, and the timer for this time.
        self._recheck: tuple[float, Cancellable] | None = None

    def checked(self, policy: OverflowPolicy, source: str, owner: Owner | None) -> CheckedPolicy:
        """Return `policy` as it can be used, or the policy `disconnect` if `policy` is invalid.

        `source` names the distribution of the policy, and `owner` is its plugin.
        """
        return self._guard.checked(policy, source, owner)

    def check(self, subscriber: Subscriber) -> None:
        """If a reader is over its limits, ask its policy and carry out the action."""
        if subscriber is self._blocked_by:
            if subscriber.end_error is not None:
                self.unblock()
            return
        subscriber.arrived()
        if subscriber.is_idle:
            return  # a waiting reader is not slow, even when a single burst is larger than its limits
        if subscriber.is_over_limit():
            lag = subscriber.lag()
            try:
                action = self._guard.ask(subscriber, lag)
            except PolicyFailed:
                self._replace(subscriber, lag)
                return
            if isinstance(action, actions.Block) and subscriber.is_fetching_snapshot:
                action = actions.Tolerate(_SNAPSHOT_S)  # the snapshot comes from the worker, like the stopped events
            if self._try(action, subscriber, lag) and not isinstance(action, actions.Tolerate):
                self._counts.count(OVERFLOW, subscriber.policy_name, type(action).__name__)
        elif not subscriber.is_conflating:
            subscriber.over_since = None

    def stop(self) -> None:
        """Continue to read the worker's events if a reader has stopped them, and cancel every timer."""
        self.unblock()
        self._cancel_recheck()

    def _try(self, action: Action, subscriber: Subscriber, lag: Lag) -> bool:
        """Carry out an action. If a function of the action fails, this is a failure of the policy: the subscriber is
        disconnected, and False is returned.
        """
        try:
            self._carry_out(action, subscriber, lag)
        except MalformedBatch:
            raise  # the worker sent malformed events, so the policy has not failed
        except PolicyFailed:
            self._replace(subscriber, lag)
            return False
        except Exception:
            self._guard.failed(subscriber, f"failed in {type(action).__name__}", exc_info=True)
            self._replace(subscriber, lag)
            return False
        subscriber.wake()
        return True

    def _replace(self, subscriber: Subscriber, lag: Lag) -> None:
        """Do what `disconnect` would do, because the subscriber's policy has failed."""
        self._counts.count(OVERFLOW, subscriber.policy_name, actions.Disconnect.__name__)
        self._disconnect(subscriber, lag, has_failed=True)
        subscriber.wake()

    def _carry_out(self, action: Action, subscriber: Subscriber, lag: Lag) -> None:
        source, why = subscriber.source, subscriber.why_dropped
        if not isinstance(source, FromLog | Aside | Gathering):
            return  # in the states `Refusing` and `Ending` an earlier action is still being carried out
        match action:
            case actions.Disconnect():
                self._disconnect(subscriber, lag)
            case actions.FailSession():
                self._disconnect(subscriber, lag)
                if not subscriber.is_internal:
                    self._on_fail_session(f"subscriber {subscriber.name} fell {lag.events} events behind")
            case actions.DropOldest(keep_events):
                subscriber.source = drop_oldest(source, min(keep_events, max(lag.events - 1, 0)), why)
            case actions.DropNewest(resume_below_events):
                subscriber.source = refuse_newest(source, min(resume_below_events, max(lag.events - 1, 0)), why)
            case actions.Conflate():
                subscriber.source = conflate(source, subscriber.policy_name)
                if not subscriber.fits():
                    # The events that remain after conflating still exceed the limits.
                    self._disconnect(subscriber, lag)
            case actions.Select(keep):
                ask = partial(self._guard.answers, subscriber, "Select")
                self._select(subscriber, source, by_item(keep, self._items, ask), lag)
            case actions.SelectEvents(keep_event):
                ask = partial(self._guard.answers, subscriber, "SelectEvents")
                self._select(subscriber, source, by_event(keep_event, self._items, ask), lag)
            case actions.Resync():
                subscriber.source = drop_oldest(source, 0, why)
                if self._has_snapshots():
                    subscriber.want_snapshot()
            case actions.Tolerate(recheck_s):
                self._tolerate(recheck_s)
            case actions.Block():
                self._block(subscriber, lag, action)

    def _select(self, subscriber: Subscriber, source: FromLog | Aside | Gathering, choose: Choice, lag: Lag) -> None:
        subscriber.source = aside = set_aside(source)
        aside.backlog.select(choose, subscriber.why_dropped)
        if subscriber.is_over_limit():
            self._disconnect(subscriber, lag)

    def _disconnect(self, subscriber: Subscriber, lag: Lag, *, has_failed: bool = False) -> None:
        if subscriber.is_internal:  # internal readers are never disconnected; they continue with new events
            subscriber.source = drop_oldest(subscriber.source, 0, subscriber.why_dropped)
        else:
            make = policy_error if has_failed else overflow_error
            subscriber.finish(make(subscriber, lag.events, subscriber.log.head))

    def _tolerate(self, seconds: float) -> None:
        """Check all readers again in `seconds`, or earlier."""
        due = self._clock() + max(seconds, _SHORTEST_RECHECK_S)
        if self._recheck is not None and self._recheck[0] <= due:
            return
        self._cancel_recheck()

        def check() -> None:
            self._recheck = None
            self._check_all()

        self._recheck = due, self._call_later(due - self._clock(), check)

    def _cancel_recheck(self) -> None:
        if self._recheck is not None:
            self._recheck[1].cancel()
            self._recheck = None

    def _block(self, subscriber: Subscriber, lag: Lag, action: actions.Block) -> None:
        if self._blocked_by is not None:
            return  # another reader has stopped the events already; this policy is asked again when new events come
        if self.hold is None or subscriber.is_internal:
            self._carry_out(action.then, subscriber, lag)
            return

        def expired() -> None:
            self.unblock()
            if subscriber.is_over_limit():
                self._try(action.then, subscriber, lag)

        def taken() -> None:
            if not subscriber.is_over_limit():
                self.unblock()

        self._block_timer = self._call_later(action.timeout_s, expired)
        subscriber.on_taken = taken
        self._blocked_by, self._blocked_at = subscriber, self._clock()
        self.hold(True)

    def unblock(self, only: Subscriber | None = None) -> None:
        """Continue to read the worker's events if a reader has stopped them.

        With `only`, do so only if this reader has stopped them.
        """
        subscriber = self._blocked_by
        if subscriber is None or only not in (None, subscriber):
            return
        self._blocked_by = None
        subscriber.on_taken = None
        self._counts.count(STALL, by=round((self._clock() - self._blocked_at) * 1000))
        if self._block_timer is not None:
            self._block_timer.cancel()
            self._block_timer = None
        if self.hold is not None:
            self.hold(False)

    @property
    def stalled_ms(self) -> int:
        """How many milliseconds ago a reader stopped the worker's events; 0 when the events are not stopped."""
        return int((self._clock() - self._blocked_at) * 1000) if self._blocked_by is not None else 0
