"""A stream of a plugin's own, with the numbering, gaps, limits and policies of a session's events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mxgw.v1.event_service_pb2 import OnGap, OverflowPolicyChoice, StartPosition
from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw_core.api.calls import Call, ResponseStream
from mxgw_core.api.events import Retention, SubscriberLimits


class FeedFilter(Protocol):
    """Decides which records of a feed one reader may see; called per record, so it must be quick and must not block."""

    def keep(self, about: int, fourth: int, kind: int) -> bool:
        """Return whether a record with these numbers in its head may pass (see `FeedDescription`)."""


class FeedSnapshot(Protocol):
    """What a reader starts from: the state at the moment in which it was taken."""

    def frames(self, filters: Sequence[FeedFilter], limit_bytes: int) -> Iterator[bytes]:
        """Yield encoded responses of about `limit_bytes`, of what the filters let pass; the last one ends it.

        An empty one is not sent: it lets others have their turn. A filter may take long when it is asked about
        something for the first time. Frames are asked for a little after the snapshot was taken; they must not show
        later changes.
        """


@dataclass(frozen=True, slots=True)
class FeedDescription:
    """What a plugin wants of a feed.

    The response message of the feed's RPC has the frames of `mxgw.v1.StreamEventsResponse` under the same numbers:
    opened 1, events 2 (`repeated` records under 1), gap 3, progress 6, heartbeat 7, draining 8. A record begins as an
    `mxgw.v1.Event` does: fixed64 sequence = 1, fixed64 = 2 (less than 2^56) that names what the record is about, a
    one-byte enum = 3 that is its kind, none of them zero, and an sfixed32 = 4. Of kind 1 a policy that conflates keeps
    the newest for each thing that records are about.

    `snapshot` takes a snapshot now. `health` is what heartbeats say. `limits` counts for all subscribers of the feed.
    """

    name: str
    limits: SubscriberLimits
    retention: Retention
    snapshot: Callable[[], FeedSnapshot]
    health: Callable[[], tuple[WorkerState.ValueType, SourceHealth.ValueType]]


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """What one reader asks for; the messages as they came. Without a start it is a snapshot and what follows."""

    start: StartPosition | None
    on_gap: OnGap.ValueType
    client_name: str
    policy: OverflowPolicyChoice
    heartbeat_s: float | None
    with_snapshot: bool
    filters: Sequence[FeedFilter] = ()


class Feed(Protocol):
    """A numbered log and its readers. Lives in the event loop, as long as the gateway serves."""

    @property
    def epoch(self) -> bytes:
        """Random per feed."""

    @property
    def head_sequence(self) -> int:
        """The sequence of the newest record; 0 when there is none."""

    @property
    def subscribers(self) -> int:
        """How many readers there are."""

    def append(self, batch: bytes, events: int) -> None:
        """Append encoded records: `repeated` field 1 each, with the sequences from `head_sequence + 1` on."""

    async def serve(self, request: FeedRequest, call: Call, stream: ResponseStream) -> None:
        """Serve one reader until its stream is over.

        Raises:
            GatewayError: the request is wrong, or why the stream is over.
        """
