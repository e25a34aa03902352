"""The overflow policies. Each says what should happen; core carries it out and accounts for every event.

Semantics: NATS, Redis, OPC UA and Akka Streams name the same choices; see docs/backpressure.md.
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
    """Return how many of the unread events fit the exceeded limits, estimated by their average size and age."""
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
    """Deliver what is queued, then end the stream; the client resumes."""

    name: str = "disconnect"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Disconnect()


@dataclass(frozen=True, slots=True)
class FailSessionPolicy:
    """As disconnect, and fault the session: nothing is to go on without its one subscriber."""

    name: str = "fail_session"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return FailSession()


@dataclass(frozen=True, slots=True)
class DropOldestPolicy:
    """Keep the newest events that fit the limits."""

    name: str = "drop_oldest"

    def on_overflow(self, lag: Lag) -> Action:
        return DropOldest(keep_events=events_within(lag))


@dataclass(frozen=True, slots=True)
class DropNewestPolicy:
    """Keep what is queued and refuse what arrives until the queue is down to the low-water mark."""

    low_water_percent: int
    name: str = "drop_newest"

    def on_overflow(self, lag: Lag) -> Action:
        return DropNewest(resume_below_events=events_within(lag) * self.low_water_percent // 100)


@dataclass(frozen=True, slots=True)
class ConflatePolicy:
    """Keep the newest value of every item."""

    name: str = "conflate"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Conflate()


@dataclass(frozen=True, slots=True)
class SamplePolicy:
    """At most one value per item and interval, overflow or not."""

    interval_s: float
    name: str = "sample"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Conflate()


@dataclass(frozen=True, slots=True)
class ResyncPolicy:
    """Drop everything unread and begin again from the present values."""

    name: str = "resync"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Resync()


@dataclass(frozen=True, slots=True)
class BlockPolicy:
    """Let the session wait for its subscriber, for a bounded time."""

    timeout_s: float
    name: str = "block"

    def on_overflow(self, lag: Lag) -> Action:
        del lag
        return Block(timeout_s=self.timeout_s, then=Disconnect())


@dataclass(frozen=True, slots=True)
class Grace:
    """Patience around any other policy: the limits may be exceeded for `seconds`, the hard limits not at all."""

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
    """Patience around a policy that paces its subscriber."""

    __slots__ = ()

    @property
    def interval_s(self) -> float:
        interval_s: float = self.inner.interval_s  # type: ignore[attr-defined]  # made for paced policies only
        return interval_s
