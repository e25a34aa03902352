"""Frames that contain no events."""

from __future__ import annotations

import pytest
from support.events import EPOCH

from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.events.frames import draining_frame, gap_frame, heartbeat_frame, progress_frame
from mxgw_core.events.pieces import Gap

decode = StreamEventsResponse.FromString


def test_a_gap_says_range_count_reason_and_what_would_help() -> None:
    gap = decode(gap_frame(EPOCH, Gap(3, 7, e.GAP_REASON_QUEUE_DROPPED, "read faster"))).gap

    assert gap == e.Gap(
        epoch=EPOCH, first_lost=3, last_lost=7, count=5, reason=e.GAP_REASON_QUEUE_DROPPED, detail="read faster"
    )


def test_a_gap_keeps_the_count_it_came_with() -> None:
    assert decode(gap_frame(EPOCH, Gap(3, 7, e.GAP_REASON_CONFLATED, count=2))).gap.count == 2


@pytest.mark.parametrize(
    "gap",
    [
        Gap(0, 0, e.GAP_REASON_EPOCH_CHANGED),
        Gap(0, 0, e.GAP_REASON_CURSOR_AHEAD),
        Gap(9, 9, e.GAP_REASON_SOURCE_RECONNECTED),
        Gap(9, 9, e.GAP_REASON_SOURCE_OVERFLOW),
    ],
)
def test_what_cannot_be_counted_has_no_count(gap: Gap) -> None:
    frame = decode(gap_frame(EPOCH, gap)).gap

    assert (frame.first_lost, frame.last_lost, frame.count) == (gap.first, gap.last, 0)


def test_progress_names_a_position_to_resume_after() -> None:
    assert decode(progress_frame(EPOCH, 12)).progress.position == e.Position(epoch=EPOCH, sequence=12)


def test_a_heartbeat_says_where_the_subscriber_stands_and_how_source_and_worker_are() -> None:
    frame = decode(heartbeat_frame(EPOCH, 12, 20, e.WORKER_STATE_SILENT, e.SOURCE_HEALTH_LOST)).heartbeat

    assert (frame.position.sequence, frame.head_sequence) == (12, 20)
    assert (frame.worker_state, frame.source_health) == (e.WORKER_STATE_SILENT, e.SOURCE_HEALTH_LOST)
    assert frame.gateway_time.seconds > 0


def test_draining_says_when_to_come_back() -> None:
    frame = decode(draining_frame(2.5, 5.0)).draining

    assert (frame.retry_after.ToTimedelta().total_seconds(), frame.deadline.seconds) == (2.5, 5)
