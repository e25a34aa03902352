"""Makes encoded frames of a stream, for everything but events and snapshots."""

from __future__ import annotations

import time

from mxgw.convert import duration_from_seconds, timestamp_from_ns
from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.events.pieces import Gap


def gap_frame(epoch: bytes, gap: Gap) -> bytes:
    """Return a Gap frame. If the range is unknown, its first and last sequence are 0."""
    return StreamEventsResponse(
        gap=e.Gap(
            epoch=epoch,
            first_lost=gap.first,
            last_lost=gap.last,
            count=lost_events(gap),
            reason=gap.reason,
            detail=gap.detail,
            runs=gap.runs,
        )
    ).SerializeToString()


def lost_events(gap: Gap) -> int:
    """Return how many events were lost in a gap; 0 when it is unknown."""
    if not gap.count and gap.first and gap.reason not in _UNKNOWN_COUNT:
        return gap.last - gap.first + 1
    return gap.count


# For gaps with these reasons, the number of lost events does not follow from the range: it is unknown.
_UNKNOWN_COUNT = frozenset({e.GAP_REASON_SOURCE_RECONNECTED, e.GAP_REASON_SOURCE_OVERFLOW, e.GAP_REASON_EPOCH_CHANGED})


def progress_frame(epoch: bytes, sequence: int) -> bytes:
    """Return a Progress frame: everything up to `sequence` was delivered, filtered or covered by a Gap."""
    return StreamEventsResponse(progress=e.Progress(position=_position(epoch, sequence))).SerializeToString()


def heartbeat_frame(
    epoch: bytes,
    sequence: int,
    head: int,
    worker_state: e.WorkerState.ValueType,
    source_health: e.SourceHealth.ValueType,
) -> bytes:
    """Return a Heartbeat frame: everything up to `sequence` was delivered, filtered or covered by a Gap."""
    return StreamEventsResponse(
        heartbeat=e.Heartbeat(
            position=_position(epoch, sequence),
            head_sequence=head,
            worker_state=worker_state,
            source_health=source_health,
            gateway_time=timestamp_from_ns(time.time_ns()),
        )
    ).SerializeToString()


def draining_frame(retry_after_s: float, deadline_s: float) -> bytes:
    """Return a Draining frame: the gateway will soon end the stream."""
    return StreamEventsResponse(
        draining=e.Draining(
            retry_after=duration_from_seconds(retry_after_s), deadline=duration_from_seconds(deadline_s)
        )
    ).SerializeToString()


def _position(epoch: bytes, sequence: int) -> e.Position:
    return e.Position(epoch=epoch, sequence=sequence)
