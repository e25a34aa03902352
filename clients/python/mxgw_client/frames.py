"""The frames of a stream that are not events: what the gateway reports about the stream itself."""

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

    `position` is where the stream begins: the first event has a greater sequence. `was_resuming`: the request named a
    position. `recovered` is about such a request only: True means that every event after the position up to
    `head_sequence` follows, False that a Gap names those that do not. `head_sequence` and `oldest_sequence` are the
    newest and the oldest event that the gateway holds, `horizon_s` is for how many seconds it holds events at the
    present rate (None: not known). `policy` names the overflow policy in force.
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
    """Events were lost here; read the items that matter again.

    `first_lost`, `last_lost` (inclusive) and `count` are 0 when they are not known. When `count` is less than the
    range, only a part of the range is lost: `lost_ranges` says which, and the rest follows in the next batch. `runs`
    are the lengths of the parts, lost and kept in turn; empty when the whole range is lost.
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
        """Exactly which events are lost, as inclusive ranges of sequences; empty when that is not known."""
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
        """Whether no event of the range will follow, so that a resume may begin after the range."""
        if not self.last_lost or self.reason is GapReason.CONFLATED:
            return False
        return self.count in (0, self.last_lost - self.first_lost + 1)


@dataclass(frozen=True, slots=True)
class SnapshotItem:
    """The last known value of one item. `sequence` is that of the event which brought the value."""

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
    """A part of a snapshot, which has the values as of `position`. A large snapshot comes in several parts."""

    position: Position
    items: tuple[SnapshotItem, ...]


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is complete; events with a greater sequence follow."""

    position: Position


@dataclass(frozen=True, slots=True)
class Progress:
    """Every event up to `position` was delivered, filtered or covered by a Gap."""

    position: Position


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent after a silence. If `source_health` is not GOOD, the last values are stale, even those of good quality."""

    position: Position
    head_sequence: int
    worker_state: WorkerState
    source_health: SourceHealth
    gateway_time: datetime


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway shuts down and ends this stream within `deadline_s` seconds. Resume `retry_after_s` seconds later."""

    retry_after_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StreamCut:
    """The stream was cut, for the reason in `error`, and comes back by itself. The client makes this frame.

    Nothing comes before the next StreamOpened, and until then what was read last may be old. `position` is where the
    stream will go on, `retry_in_s` the seconds until the first attempt.
    """

    error: MxgwClientError
    position: Position | None
    retry_in_s: float


# The frames that streams of events and of alarms have in common.
SharedFrame: TypeAlias = StreamOpened | Gap | Progress | Heartbeat | Draining | StreamCut
ControlFrame: TypeAlias = SharedFrame | Snapshot | SnapshotEnd
StreamItem: TypeAlias = Event | ControlFrame
Frame: TypeAlias = EventBatch | ControlFrame


def opened_from_message(message: events_pb2.StreamOpened) -> StreamOpened:
    """Return the StreamOpened in a message."""
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
    """Return the frame in a message; None for an empty batch or a frame this release does not know."""
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
