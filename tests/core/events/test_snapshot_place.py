"""The place of a snapshot in a subscriber's stream, while other things happen to the stream."""

from __future__ import annotations

import pytest
from support.distributing import NO_LIMITS, Pump, Told
from support.events import EPOCH

from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Block, Disconnect, DropOldest, QueueLimits, Resync, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.snapshot_place import SnapshotDue, SnapshotWanted
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Control, End, Output, Progress, Subscriber

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")


def short(item: Output | None) -> object:
    match item:
        case Chunk(first=first, last=last):
            return f"{first}-{last}"
        case Gap(first=first, last=last):
            return f"gap {first}-{last}"
        case SnapshotWanted():
            return "wanted"
        case SnapshotDue():
            return "snapshot"
        case Progress() | Control() | End() | None:
            return type(item).__name__


def taken(subscriber: Subscriber, count: int) -> list[object]:
    return [short(subscriber.take(1 << 20)) for _ in range(count)]


def test_it_stands_behind_the_events_up_to_its_position_and_splits_what_comes_in_one() -> None:
    pump = Pump()
    subscriber = pump.attach(Start.OLDEST_RETAINED)
    subscriber.want_snapshot()
    pump.events(10)

    assert taken(subscriber, 1) == ["wanted"]

    subscriber.snapshot_fetched(6)

    assert taken(subscriber, 4) == ["1-6", "snapshot", "7-10", "NoneType"]


def test_it_comes_behind_the_gap_that_opens_the_stream() -> None:
    pump = Pump()
    pump.events(5)
    subscriber = pump.attach(Position(EPOCH, 99))
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    subscriber.snapshot_fetched(5)

    assert taken(subscriber, 3) == ["gap 0-0", "snapshot", "NoneType"]


def test_nothing_counts_as_delivered_before_the_gap_that_opens_the_stream() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(2, 1 << 20, 0.0))
    pump.attach()
    pump.distributor.log.append(1, 4, b"")
    pump.distributor.log.trim(4, 0, 0, 0)
    subscriber = pump.attach(Position(EPOCH, 1))

    assert subscriber.delivered == 1
    assert taken(subscriber, 1) == ["gap 2-4"]
    assert subscriber.delivered == 4


def test_one_that_a_gap_went_over_is_fetched_anew() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=Told(DropOldest(2)))
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    pump.events(3)
    subscriber.snapshot_fetched(2)
    pump.events(7)

    assert taken(subscriber, 2) == ["gap 1-8", "wanted"]

    subscriber.snapshot_fetched(10)

    assert taken(subscriber, 3) == ["9-10", "snapshot", "NoneType"]


def test_one_that_a_gap_went_over_is_left_out_at_the_end() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=Told(Resync()))
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    pump.events(3)
    subscriber.snapshot_fetched(2)
    pump.events(7)
    pump.distributor.end(CLOSED)

    assert taken(subscriber, 2) == ["gap 1-10", "End"]


def test_one_that_is_due_still_comes_when_the_session_has_ended() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=NO_LIMITS)
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    pump.events(3)
    subscriber.snapshot_fetched(2)
    pump.distributor.end(CLOSED)

    assert taken(subscriber, 4) == ["1-2", "snapshot", "3-3", "End"]


def test_none_is_asked_for_once_the_session_has_ended() -> None:
    pump = Pump()
    subscriber = pump.attach()
    subscriber.want_snapshot()
    pump.distributor.end(CLOSED)

    assert taken(subscriber, 1) == ["End"]


def test_when_gaps_keep_passing_it_the_second_snapshot_divides_the_gap() -> None:
    pump = Pump(unattached=Retention(0, 0, 0.0))
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=Told(DropOldest(0)))
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    pump.events(10)
    subscriber.snapshot_fetched(8)  # the queue ran over while it was fetched

    assert taken(subscriber, 2) == ["gap 1-10", "wanted"]

    pump.events(10)
    subscriber.snapshot_fetched(18)

    assert taken(subscriber, 4) == ["gap 11-18", "snapshot", "gap 19-20", "NoneType"]
    assert subscriber.counts.lost_events == {"QUEUE_DROPPED": 20}


def test_a_snapshot_that_is_wanted_again_is_sent_when_the_stream_ends_before_another_is_fetched() -> None:
    pump = Pump()
    subscriber = pump.attach()
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    subscriber.snapshot_fetched(2)
    pump.events(4)
    subscriber.want_snapshot()
    subscriber.finish(CLOSED)

    assert taken(subscriber, 4) == ["1-2", "snapshot", "3-4", "End"]


@pytest.mark.asyncio
async def test_a_policy_that_blocks_does_not_stop_the_worker_while_a_snapshot_comes_from_it() -> None:
    held: list[bool] = []
    pump = Pump()
    pump.distributor.hold_with(held.append)
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=Told(Block(1.0, Disconnect())))
    subscriber.want_snapshot()

    assert taken(subscriber, 1) == ["wanted"]

    pump.events(10)

    assert held == []

    subscriber.snapshot_fetched(10)
    pump.distributor.check()

    assert held == [True]
