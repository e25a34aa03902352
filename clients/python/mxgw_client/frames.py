"""The control frames: what a stream yields besides events, for example gaps, heartbeats and snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from mxgw.convert import PyValue, duration_to_seconds
from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_client.enums import GapReason, Quality, SourceHealth, WorkerState
from mxgw_client.errors import MxgwClientError
from mxgw_client.events import Event, EventBatch, StreamContext
from mxgw_client.position import Position
from mxgw_client.values import Status, moment, statuses_from_messages, value_of


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The first frame of every stream.

    Attributes:
        position: the place where the stream begins; its first event has a greater sequence.
        head_sequence: the sequence of the newest event that the gateway holds.
        oldest_sequence: the sequence of the oldest event that the gateway holds.
        was_resuming: True when the request named a position after which to begin.
        recovered: set only when `was_resuming` is True. True means that all events after the requested position up to
            `head_sequence` follow; False means that some are lost and a Gap names them.
        heartbeat_interval_s: after this many seconds without another frame the gateway sends a Heartbeat.
        policy: the name of the overflow policy of this stream.
        horizon_s: at the present rate of events, the gateway holds the events of this many seconds; None when it is not
            known.
        subscriber_id: the id of this stream in lists of subscribers.
    """

    position: Position
    head_sequence: int
    oldest_sequence: int
    was_resuming: bool
    recovered: bool
    heartbeat_interval_s: float
    policy: str
    horizon_s: float | None
    subscriber_id: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Some events at this place of the stream are lost. Read the items again whose present value matters.

    Attributes:
        first_lost: the sequence of the first lost event; 0 when it is not known.
        last_lost: the sequence of the last lost event; 0 when it is not known.
        count: the number of lost events; 0 when it is not known. It can be less than the range from `first_lost` to
            `last_lost`. Then only a part of the range is lost, and the other events of the range follow in the next
            batch; or the range includes sequences that an earlier Gap has named.
        reason: why the events are lost.
        detail: an explanation for people.
        runs: the lengths of the parts of the range, alternately lost and not lost, beginning with a lost part; empty
            when the whole range is lost. `lost_ranges` returns the same as sequences.
    """

    epoch: bytes
    first_lost: int
    last_lost: int
    count: int
    reason: GapReason
    detail: str
    runs: tuple[int, ...] = ()

    @property
    def lost_ranges(self) -> tuple[tuple[int, int], ...]:
        """The sequences of the lost events, as pairs (first, last); empty when they are not known."""
        if not self.first_lost or not self.last_lost:
            return ()
        ranges, first = [], self.first_lost
        for index, length in enumerate(self.runs or (self.last_lost - self.first_lost + 1,)):
            if index % 2 == 0:
                ranges.append((first, first + length - 1))
            first += length
        return tuple(ranges)

    @property
    def covers_its_range(self) -> bool:
        """True when no event of the range follows any more, so that the stream can be resumed after `last_lost`."""
        if not self.last_lost or self.reason is GapReason.CONFLATED:
            return False
        return self.count in (0, self.last_lost - self.first_lost + 1)


@dataclass(frozen=True, slots=True)
class SnapshotItem:
    """The last value of one item in a snapshot. `sequence` is the sequence of the data change with this value."""

    server_handle: int
    item_handle: int
    reference: str
    sequence: int
    value: PyValue
    quality: Quality
    raw_quality: int
    source_time: datetime | None
    statuses: tuple[Status, ...]
    item_serial: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last values of items, as they were at `position`. A large snapshot comes in several of these frames."""

    position: Position
    items: tuple[SnapshotItem, ...]


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is complete. The events that follow have greater sequences than `position`."""

    position: Position


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing more comes up to `position`: each event up to there was delivered, filtered out or covered by a Gap."""

    position: Position


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The gateway sends this when no other frame was sent for the heartbeat interval.

    When `source_health` is not GOOD, the last values are out of date, even those of good quality.
    """

    position: Position
    head_sequence: int
    worker_state: WorkerState
    source_health: SourceHealth
    gateway_time: datetime


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway is shutting down and will end this stream within `deadline_s` seconds.

    The stream can be resumed `retry_after_s` seconds after its end.
    """

    retry_after_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StreamCut:
    """The stream was cut, and the client will open it again. This frame comes from the client, not from the gateway.

    The stream then yields a StreamOpened. Until then the last values are perhaps out of date. `error` says why the
    stream was cut. The stream will go on after `position`. The first attempt to open it is made in `retry_in_s`
    seconds.
    """

    error: MxgwClientError
    position: Position | None
    retry_in_s: float


# The control frames that exist in streams of events and in streams of alarms.
SharedFrame: TypeAlias = StreamOpened | Gap | Progress | Heartbeat | Draining | StreamCut
ControlFrame: TypeAlias = SharedFrame | Snapshot | SnapshotEnd
StreamItem: TypeAlias = Event | ControlFrame
Frame: TypeAlias = EventBatch | ControlFrame


def opened_from_message(message: events_pb2.StreamOpened) -> StreamOpened:
    """Convert the protobuf message of a StreamOpened."""
    return StreamOpened(
        position=Position(message.epoch, message.from_sequence),
        head_sequence=message.head_sequence,
        oldest_sequence=message.oldest_sequence,
        was_resuming=message.was_resuming,
        recovered=message.recovered,
        heartbeat_interval_s=duration_to_seconds(message.heartbeat_interval),
        policy=message.policy,
        horizon_s=duration_to_seconds(message.horizon) if message.HasField("horizon") else None,
        subscriber_id=message.subscriber_id,
    )


def frame_from_message(message: event_service_pb2.StreamEventsResponse, context: StreamContext) -> Frame | None:
    """Return the frame that a protobuf message contains.

    Return None when the message is an empty batch, or a frame that this release does not know.
    """
    events = message.events.events
    if events:
        return EventBatch(events, context)
    match message.WhichOneof("frame"):
        case "gap":
            gap = message.gap
            return Gap(
                gap.epoch,
                gap.first_lost,
                gap.last_lost,
                gap.count,
                GapReason(gap.reason),
                gap.detail,
                tuple(gap.runs),
            )
        case "heartbeat":
            beat = message.heartbeat
            return Heartbeat(
                Position.from_message(beat.position),
                beat.head_sequence,
                WorkerState(beat.worker_state),
                SourceHealth(beat.source_health),
                moment(beat.gateway_time),
            )
        case "progress":
            return Progress(Position.from_message(message.progress.position))
        case "snapshot":
            return _snapshot(message.snapshot, context)
        case "snapshot_end":
            return SnapshotEnd(Position.from_message(message.snapshot_end.position))
        case "draining":
            draining = message.draining
            return Draining(duration_to_seconds(draining.retry_after), duration_to_seconds(draining.deadline))
        case "opened":
            return opened_from_message(message.opened)
    return None


def _snapshot(message: events_pb2.Snapshot, context: StreamContext) -> Snapshot:
    def item(raw: events_pb2.SnapshotItem) -> SnapshotItem:
        change = raw.value
        return SnapshotItem(
            raw.server_handle,
            raw.item_handle,
            context.references.lookup(raw.item_serial),
            raw.sequence,
            value_of(change.value),
            Quality(change.quality),
            change.raw_quality,
            moment(change.source_time) if change.HasField("source_time") else None,
            statuses_from_messages(change.statuses),
            raw.item_serial,
        )

    return Snapshot(Position.from_message(message.position), tuple(map(item, message.items)))
