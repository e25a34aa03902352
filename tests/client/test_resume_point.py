"""How far the application has come, and so what a resume asks for: the same for events and for alarms."""

from __future__ import annotations

from typing import Any

import pytest
from client.scripted import EPOCH

from mxgw.v1 import alarm_service_pb2, event_service_pb2
from mxgw_client import (
    AlarmSnapshot,
    Gap,
    GapReason,
    OnGap,
    Position,
    Progress,
    Snapshot,
    SnapshotComplete,
    SnapshotEnd,
    Start,
    StreamOpened,
    after,
)
from mxgw_client._attempt import StreamKind
from mxgw_client.resume import ResumePoint
from mxgw_client.streams import ALARMS, EVENTS

FIVE = Position(EPOCH, 5)
REQUESTS = {EVENTS: event_service_pb2.StreamEventsRequest, ALARMS: alarm_service_pb2.StreamAlarmsRequest}
KINDS = pytest.mark.parametrize("kind", [EVENTS, ALARMS], ids=lambda kind: kind.name)


def point_of(kind: StreamKind[Any], start: Start, on_gap: OnGap = OnGap.DELIVER_RETAINED) -> ResumePoint:
    return ResumePoint(kind, REQUESTS[kind](on_gap=int(on_gap), client_name="reader"), start)


def opened(sequence: int, *, resuming: bool = False, recovered: bool = False, policy: str = "") -> StreamOpened:
    return StreamOpened(Position(EPOCH, sequence), sequence, 1, resuming, recovered, 5.0, policy, None, "s1")


def gap(first: int, last: int, reason: GapReason = GapReason.RING_EVICTED) -> Gap:
    return Gap(EPOCH, first, last, 0, reason, "")


@KINDS
def test_a_resume_asks_for_everything_again_but_for_the_start(kind: StreamKind[Any]) -> None:
    point = point_of(kind, Start.OLDEST)
    point.hand_out(opened(0))
    point.hand_out(Progress(FIVE))
    request = point.request_from_here()

    assert request.start.after == FIVE.to_message()
    assert not request.with_snapshot
    assert request.client_name == "reader"
    assert request.on_gap == OnGap.DELIVER_RETAINED


@KINDS
def test_the_position_passes_a_gap_only_once_the_gap_was_handed_out(kind: StreamKind[Any]) -> None:
    point = point_of(kind, after(FIVE))
    point.hand_out(opened(20, resuming=True))

    assert point.position == FIVE

    point.hand_out(gap(0, 0))

    assert point.position == Position(EPOCH, 20)


@KINDS
def test_progress_never_moves_the_position_back_or_into_another_epoch(kind: StreamKind[Any]) -> None:
    point = point_of(kind, after(FIVE))
    point.hand_out(opened(5, resuming=True, recovered=True))
    point.hand_out(Progress(Position(EPOCH, 3)))
    point.hand_out(Progress(Position(bytes(16), 9)))

    assert point.position == FIVE


@pytest.mark.parametrize(
    ("kind", "part", "end"),
    [
        (EVENTS, Snapshot(FIVE, ()), SnapshotEnd(FIVE)),
        (ALARMS, AlarmSnapshot(FIVE, ()), SnapshotComplete(FIVE, None)),  # type: ignore[arg-type]
    ],
    ids=["StreamEvents", "StreamAlarms"],
)
def test_a_snapshot_is_owed_until_its_end(kind: StreamKind[Any], part: object, end: object) -> None:
    point = point_of(kind, Start.OLDEST)
    point.hand_out(opened(0))
    point.hand_out(part)

    assert point.request_from_here().with_snapshot

    point.hand_out(end)

    assert not point.request_from_here().with_snapshot
    assert point.position == FIVE


@pytest.mark.parametrize(
    ("kind", "on_gap", "owed"),
    [
        (EVENTS, OnGap.UNSPECIFIED, False),
        (EVENTS, OnGap.SNAPSHOT, True),
        (ALARMS, OnGap.UNSPECIFIED, True),
        (ALARMS, OnGap.DELIVER_RETAINED, False),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_after_a_gap_a_snapshot_is_owed_where_the_gateway_sends_one(
    kind: StreamKind[Any], on_gap: OnGap, owed: bool
) -> None:
    point = point_of(kind, after(FIVE), on_gap)
    point.hand_out(opened(20, resuming=True))

    assert point.snapshot_owed is owed


@KINDS
def test_the_policy_resync_owes_a_snapshot_after_each_of_its_gaps(kind: StreamKind[Any]) -> None:
    point = point_of(kind, Start.OLDEST)
    point.hand_out(opened(0, policy="resync"))
    point.hand_out(gap(1, 5, GapReason.QUEUE_DROPPED))

    assert point.snapshot_owed
    assert point.position == FIVE
