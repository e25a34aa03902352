"""What an application sees of a session's subscribers, its counters, and the exact ranges of a gap."""

from __future__ import annotations

import pytest

from mxgw import convert
from mxgw.v1 import event_service_pb2, events_pb2, session_service_pb2
from mxgw_client import Counter, Gap, GapReason, Position
from mxgw_client.events import StreamContext
from mxgw_client.frames import frame_from_message
from mxgw_client.references import ReferenceMap
from mxgw_client.subscribers import subscribers_from_message

EPOCH = bytes(range(16))


def gap(first: int, last: int, count: int, *runs: int) -> Gap:
    message = event_service_pb2.StreamEventsResponse(
        gap=events_pb2.Gap(
            epoch=EPOCH,
            first_lost=first,
            last_lost=last,
            count=count,
            reason=events_pb2.GAP_REASON_CONFLATED,
            runs=runs,
        )
    )
    found = frame_from_message(message, StreamContext(EPOCH, ReferenceMap()))

    assert isinstance(found, Gap)
    return found


@pytest.mark.parametrize(
    ("lost", "ranges"),
    [
        (gap(5, 9, 5), ((5, 9),)),
        (gap(5, 12, 5, 2, 1, 1, 2, 2), ((5, 6), (8, 8), (11, 12))),
        (gap(0, 0, 0), ()),
    ],
)
def test_a_gap_names_exactly_what_is_lost(lost: Gap, ranges: tuple[tuple[int, int], ...]) -> None:
    assert lost.lost_ranges == ranges
    assert sum(last - first + 1 for first, last in lost.lost_ranges) == lost.count


def test_a_gap_whose_events_partly_follow_is_no_place_to_resume_after() -> None:
    assert gap(5, 12, 5, 2, 1, 1, 2, 2).covers_its_range is False


def test_subscribers_and_counters_are_read_whole() -> None:
    found = subscribers_from_message(
        session_service_pb2.ListSubscribersResponse(
            subscribers=[
                session_service_pb2.Subscriber(
                    subscriber_id="ab",
                    client_name="desk",
                    address="unix",
                    policy="sample",
                    limits=session_service_pb2.SubscriberLimits(
                        events=7, bytes=8, age=convert.duration_from_seconds(1.5)
                    ),
                    position=events_pb2.Position(epoch=EPOCH, sequence=41),
                    lag_events=3,
                    lag_age=convert.duration_from_seconds(0.5),
                    lost=[session_service_pb2.LostEvents(reason=events_pb2.GAP_REASON_CONFLATED, events=9)],
                    ending=True,
                )
            ],
            maximum_subscribers=8,
            head_sequence=44,
            counters=[
                session_service_pb2.SessionCounter(
                    name="mxgw_events_lost_total", labels={"reason": "CONFLATED"}, value=9
                )
            ],
        )
    )
    (one,) = found.subscribers

    assert (one.limit_events, one.limit_bytes, one.limit_s) == (7, 8, 1.5)
    assert (one.position, one.lag_events, one.lag_s) == (Position(EPOCH, 41), 3, 0.5)
    assert (one.policy, one.ending, dict(one.lost)) == ("sample", True, {GapReason.CONFLATED: 9})
    assert (found.maximum_subscribers, found.head_sequence) == (8, 44)
    assert found.counters == (Counter("mxgw_events_lost_total", {"reason": "CONFLATED"}, 9),)
