"""The overflow policy that a subscriber asks for, and the gateway's list of the subscribers of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mxgw.convert import duration_to_seconds
from mxgw.v1 import event_service_pb2, session_service_pb2
from mxgw_client.enums import GapReason
from mxgw_client.position import Position
from mxgw_client.values import moment


@dataclass(frozen=True, slots=True)
class Policy:
    """The name and parameters of an overflow policy, for example `Policy("sample", {"interval_ms": "500"})`.

    The gateway refuses a policy that it does not know, and wrong parameters, with `InvalidRequest`.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def to_message(self) -> event_service_pb2.OverflowPolicyChoice:
        """Return the protobuf message for this policy."""
        return event_service_pb2.OverflowPolicyChoice(name=self.name, parameters=dict(self.parameters))


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One subscriber of a session.

    Attributes:
        limit_events, limit_bytes, limit_s: the limits of the lag; 0 means no limit.
        position: the position up to which the gateway has handed events to gRPC.
        lag_events, lag_bytes, lag_s: the lag, which is the events that the gateway has not handed to gRPC yet. gRPC
            itself can hold some megabytes more that the subscriber has not read.
        filtered_events: the number of events that the filter dropped.
        lost: the number of lost events for each reason of a gap.
        ending: True when the stream is about to end, and the gateway still sends the events that are queued.
    """

    subscriber_id: str
    client_name: str
    address: str
    attached_at: datetime
    policy: str
    limit_events: int
    limit_bytes: int
    limit_s: float
    position: Position
    lag_events: int
    lag_bytes: int
    lag_s: float
    backlog_bytes: int
    delivered_events: int
    delivered_bytes: int
    filtered_events: int
    lost: Mapping[GapReason, int]
    ending: bool


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of a session: the name and labels of a metric, and its count since the session was opened."""

    name: str
    labels: Mapping[str, str]
    value: int


@dataclass(frozen=True, slots=True)
class SubscriberList:
    """The subscribers of a session, oldest first, the size of its event log, and its counters."""

    subscribers: tuple[Subscriber, ...]
    maximum_subscribers: int
    head_sequence: int
    oldest_sequence: int
    log_events: int
    log_bytes: int
    counters: tuple[Counter, ...]


def subscribers_from_message(message: session_service_pb2.ListSubscribersResponse) -> SubscriberList:
    """Convert the protobuf message of a list of subscribers."""
    return SubscriberList(
        subscribers=tuple(map(_subscriber, message.subscribers)),
        maximum_subscribers=message.maximum_subscribers,
        head_sequence=message.head_sequence,
        oldest_sequence=message.oldest_sequence,
        log_events=message.log_events,
        log_bytes=message.log_bytes,
        counters=tuple(Counter(c.name, dict(c.labels), c.value) for c in message.counters),
    )


def _subscriber(message: session_service_pb2.Subscriber) -> Subscriber:
    return Subscriber(
        subscriber_id=message.subscriber_id,
        client_name=message.client_name,
        address=message.address,
        attached_at=moment(message.attached_at),
        policy=message.policy,
        limit_events=message.limits.events,
        limit_bytes=message.limits.bytes,
        limit_s=duration_to_seconds(message.limits.age),
        position=Position.from_message(message.position),
        lag_events=message.lag_events,
        lag_bytes=message.lag_bytes,
        lag_s=duration_to_seconds(message.lag_age),
        backlog_bytes=message.backlog_bytes,
        delivered_events=message.delivered_events,
        delivered_bytes=message.delivered_bytes,
        filtered_events=message.filtered_events,
        lost={GapReason(lost.reason): lost.events for lost in message.lost},
        ending=message.ending,
    )
