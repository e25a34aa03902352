"""The overflow policies. Each returns an action; the gateway carries it out and reports every dropped event in a gap.

Source: NATS, Redis, OPC UA and Akka Streams offer the same choices; see docs/backpressure.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from mxgw_core.api import (
    Action,
    Block,
    Conflate,
    Disconnect,
    DropNewest,
    DropOldest,
    FailSession,
    Lag,
    OverflowPolicy,
    QueueLimits,
    Resync,
    Tolerate,
)


def events_within(lag: Lag) -> int:
    """Return how many of the unread events fit within all limits.

    The result is an estimate: all events count with the average size, and as if they had arrived at a constant rate.
    """
    limits, fit = lag.limits, float(lag.events)
    if limits.events:
        fit = min(fit, limits.events)
    if limits.bytes and lag.bytes > limits.bytes:
        fit = min(fit, lag.events * limits.bytes / lag.bytes)
    if limits.seconds and lag.seconds > limits.seconds:
        fit = min(fit, lag.events * limits.seconds / lag.seconds)
    return int(fit)


@dataclass(frozen=True, slots=True)
class DisconnectPolicy:
    """Deliver the events that are unread now, then end the stream; the client is expected to resume."""

    name: str = "disconnect"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Disconnect()


@dataclass(frozen=True, slots=True)
class FailSessionPolicy:
    """Deliver the events that are unread now, then end the stream and fault the session.

    This is for sessions that must not continue without their only subscriber.
    """

    name: str = "fail_session"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return FailSession()


@dataclass(frozen=True, slots=True)
class DropOldestPolicy:
    """Drop the oldest unread events, and keep as many of the newest as fit within the limits."""

    name: str = "drop_oldest"

    def on_overflow(self, lag: Lag) -> Action:
        return DropOldest(keep_events=events_within(lag))


@dataclass(frozen=True, slots=True)
class DropNewestPolicy:
    """Keep the unread events, and drop arriving events until few enough are unread.

    Arriving events are accepted again when the unread events are at most `low_water_percent` of those that fit within
    the limits.
    """

    low_water_percent: int
    name: str = "drop_newest"

    def on_overflow(self, lag: Lag) -> Action:
        return DropNewest(resume_below_events=events_within(lag) * self.low_water_percent // 100)


@dataclass(frozen=True, slots=True)
class ConflatePolicy:
    """Keep the newest data change of every item among the unread events, and drop the older data changes."""

    name: str = "conflate"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Conflate()


@dataclass(frozen=True, slots=True)
class SamplePolicy:
    """Send at most one value per item and interval, even when there is no overflow."""

    interval_s: float
    name: str = "sample"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Conflate()


@dataclass(frozen=True, slots=True)
class ResyncPolicy:
    """Drop all unread events and send a snapshot of the present values, if the gateway offers snapshots."""

    name: str = "resync"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Resync()


@dataclass(frozen=True, slots=True)
class BlockPolicy:
    """Take no events from the worker until the subscriber is within its limits.

    When this takes longer than `timeout_s`, disconnect the subscriber.
    """

    timeout_s: float
    name: str = "block"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Block(timeout_s=self.timeout_s, then=Disconnect())


@dataclass(frozen=True, slots=True)
class Grace:
    """Delays the decision of another policy (`inner`).

    For `seconds` the subscriber is allowed to exceed its limits. After that time, or at once when the subscriber
    exceeds the limits in `hard`, the inner policy decides.
    """

    inner: OverflowPolicy
    hard: QueueLimits
    seconds: float

    @property
    def name(self) -> str:
        return self.inner.name

    def on_overflow(self, lag: Lag) -> Action:
        left_s = self.seconds - lag.over_limit_s
        within_hard = (not self.hard.events or lag.events <= self.hard.events) and (
            not self.hard.bytes or lag.bytes <= self.hard.bytes
        )
        if within_hard and left_s > 0:
            return Tolerate(recheck_s=left_s)
        return self.inner.on_overflow(lag)


class PacedGrace(Grace):
    """`Grace` for an inner policy that also sets a pace: it limits how often values are sent (`PacedPolicy`)."""

    __slots__ = ()

    @property
    def interval_s(self) -> float:
        interval_s: float = self.inner.interval_s  # type: ignore[attr-defined]  # The inner policy is always a `PacedPolicy`.
        return interval_s
