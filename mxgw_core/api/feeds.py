"""Feeds: streams that a plugin adds. Like a stream of events, a feed has sequences, gaps, limits and policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mxgw.v1.event_service_pb2 import OnGap, OverflowPolicyChoice, StartPosition
from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw_core.api.calls import Call, ResponseStream
from mxgw_core.api.events import Retention, SubscriberLimits


class FeedFilter(Protocol):
    """Decides which records of a feed a reader gets. It is called for each record, so it must be quick and must not
    block.
    """

    def keep(self, about: int, fourth: int, kind: int) -> bool:
        """Return whether the reader gets a record.

        The arguments are the fields 2, 4 and 3 of the record. `FeedDescription` says what these fields mean.
        """


class FeedSnapshot(Protocol):
    """The state, at one moment, of the things that a feed reports. A reader can ask for this state as the start of its
    stream.
    """

    def frames(self, filters: Sequence[FeedFilter], limit_bytes: int) -> Iterator[bytes]:
        """Yield the snapshot as encoded response messages of about `limit_bytes`, without what the filters drop.

        The last message must end the snapshot. Yield empty bytes to let the event loop do other work; empty bytes are
        not sent. This is useful because a filter can take long when it is called for a thing for the first time. The
        messages are requested a little after the snapshot was taken, and must not show changes that happened later.
        """


@dataclass(frozen=True, slots=True)
class FeedDescription:
    """The properties of a feed.

    The response message of the feed's RPC must have the frames of `mxgw.v1.StreamEventsResponse` with the same field
    numbers: opened 1, events 2 (with the records as `repeated` field 1), gap 3, progress 6, heartbeat 7, draining 8. A
    record must begin like an `mxgw.v1.Event`: field 1 is the sequence (fixed64); field 2 is a number that identifies
    the thing that the record is about (fixed64, less than 2^56); field 3 is the kind of the record (an enum of one
    byte); field 4 is an sfixed32. The fields 1, 2 and 3 must not be zero. When an overflow policy conflates, it keeps
    for each thing only the newest record of kind 1.

    Attributes:
        name: the name of the feed.
        limits: how many subscribers the whole feed can have, and the limits of their lag.
        retention: how many records the feed keeps after all subscribers have read them.
        snapshot: takes a snapshot and returns it.
        health: returns the states of worker and source that heartbeats report.
    """

    name: str
    limits: SubscriberLimits
    retention: Retention
    snapshot: Callable[[], FeedSnapshot]
    health: Callable[[], tuple[WorkerState.ValueType, SourceHealth.ValueType]]


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """What one reader of a feed requests. The fields are the parts of the request that streams of all feeds have in
    common.

    When `start` is None, the reader gets a snapshot and then all later records.
    """

    start: StartPosition | None
    on_gap: OnGap.ValueType
    client_name: str
    policy: OverflowPolicyChoice
    heartbeat_s: float | None
    with_snapshot: bool
    filters: Sequence[FeedFilter] = ()


class Feed(Protocol):
    """A stream of numbered records, and its readers. It exists as long as the gateway serves. Use it in the event loop
    only.
    """

    @property
    def epoch(self) -> bytes:
        """The epoch of the feed's numbering: random bytes."""

    @property
    def head_sequence(self) -> int:
        """The sequence of the newest record; 0 when there is none."""

    @property
    def subscribers(self) -> int:
        """The number of readers."""

    def append(self, batch: bytes, events: int) -> None:
        """Append records to the log.

        `batch` has the encoded records, each as `repeated` field 1, and `events` is their number. The sequence of the
        first record must be `head_sequence + 1`, and the others must follow without a hole.
        """

    async def serve(self, request: FeedRequest, call: Call, stream: ResponseStream) -> None:
        """Serve one reader until its stream ends.

        Raises:
            GatewayError: the request is wrong; or the stream ended, and the error says why.
        """
