"""One subscriber: its lag, its limits, the actions of its policy, its filter, and waiting."""

from __future__ import annotations

import asyncio

import pytest
from support.distributing import Items, KeepIf, Pump, Told
from support.events import OTHER_EPOCH, batch, frame_of, serial_of, taken, told

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Disconnect, DropNewest, DropOldest, QueueLimits
from mxgw_core.api.types import Position
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.pieces import Chunk
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import PROGRESS_EVENTS, End, Progress

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")


def limit(*, events: int = 0, size: int = 0, seconds: float = 0.0) -> QueueLimits:
    return QueueLimits(events=events, bytes=size, seconds=seconds)


# lag and limits


def test_lag_counts_what_is_appended_and_not_taken() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(3)
    size = pump.distributor.log.bytes
    pump.clock.now += 4

    assert (subscriber.unread.events, subscriber.unread.bytes, subscriber.unread.seconds) == (3, size, 4.0)

    taken(subscriber)

    assert (subscriber.unread.events, subscriber.unread.bytes, subscriber.unread.seconds) == (0, 0, 0.0)


def test_the_limit_in_events_is_passed_by_the_first_event_beyond_it() -> None:
    pump = Pump()
    policy = Told(Disconnect())
    subscriber = pump.attach(limits=limit(events=3), policy=policy)
    pump.events(3)

    assert subscriber.end_error is None

    pump.events(1)

    assert subscriber.end_error is not None
    assert [lag.events for lag in policy.asked] == [4]


def test_the_limit_in_bytes_is_passed_by_the_first_byte_beyond_it() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(2)
    size = subscriber.unread.bytes
    pump.distributor.detach(subscriber)
    at, beyond = pump.attach(limits=limit(size=size)), pump.attach(limits=limit(size=size - 1))
    pump.events(2)

    assert (at.end_error is None, beyond.end_error is None) == (True, False)


def test_the_limit_in_seconds_is_the_age_of_the_oldest_unread_event() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(seconds=10.0))
    for _ in range(11):
        pump.events(1)
        pump.clock.now += 1

        assert subscriber.end_error is None

    pump.events(1)

    assert subscriber.end_error is not None


def test_a_reader_that_keeps_up_is_never_over_its_limit() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=2, size=200, seconds=2.0))
    for _ in range(50):
        pump.events(2)
        pump.clock.now += 1
        taken(subscriber)

    assert subscriber.end_error is None


def test_a_backlog_that_the_reader_asked_for_is_no_lag() -> None:
    pump = Pump()
    pump.events(100)
    pump.clock.now += 100
    subscriber = pump.attach(Start.OLDEST_RETAINED, limits=limit(events=3, size=130, seconds=5.0))
    pump.events(3)

    assert subscriber.end_error is None
    assert subscriber.unread.events == 103

    pump.events(1)

    assert subscriber.end_error is not None
    assert told(taken(subscriber)) == [*range(1, 105), "end SUBSCRIBER_OVERFLOW"]


def test_a_range_that_no_event_fills_is_no_lag() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=3))
    pump.gap(50_000)
    pump.events(3)

    assert subscriber.end_error is None
    assert told(taken(subscriber)) == [(1, 50_000), 50_001, 50_002, 50_003]


def test_time_over_the_limit_counts_from_when_it_was_first_passed() -> None:
    pump = Pump()
    policy = Told(DropOldest(1))
    pump.attach(limits=limit(events=1), policy=policy)
    pump.events(2)
    pump.clock.now += 3
    pump.events(2)

    assert [lag.over_limit_s for lag in policy.asked] == [0.0, 3.0]


# finish


def test_finish_delivers_what_was_unread_and_then_ends_and_stays_ended() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(2)
    pump.gap(1)
    subscriber.finish(CLOSED)
    pump.events(5)

    assert told(taken(subscriber)) == [1, 2, (3, 3), "end SESSION_CLOSED"]
    assert isinstance(subscriber.take(1000), End)


def test_what_comes_after_the_end_is_no_lag() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(2)
    subscriber.finish(CLOSED)
    size = subscriber.unread.bytes
    pump.events(5)

    assert (subscriber.unread.events, subscriber.unread.bytes) == (2, size)

    taken(subscriber)

    assert (subscriber.unread.events, subscriber.unread.bytes, subscriber.unread.seconds) == (0, 0, 0.0)


def test_the_first_end_counts_and_is_told_once() -> None:
    ends: list[str] = []
    subscriber = Pump().attach()
    subscriber.on_end = lambda: ends.append("end")
    subscriber.finish(CLOSED)
    subscriber.finish(SessionEnded("later", close_reason="WORKER_EXITED"))

    assert ends == ["end"]
    assert subscriber.end_error is CLOSED


def test_nothing_that_was_unread_at_the_end_is_dropped_later() -> None:
    pump = Pump()
    policy = Told(DropOldest(0))
    subscriber = pump.attach(limits=limit(events=3), policy=policy)
    pump.events(3)
    subscriber.finish(CLOSED)
    pump.events(3)

    assert told(taken(subscriber)) == [1, 2, 3, "end SESSION_CLOSED"]
    assert not policy.asked


def test_a_subscriber_that_ended_no_longer_holds_the_log() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(5)
    subscriber.finish(CLOSED)
    pump.distributor.flush()

    assert pump.distributor.log.events == 0
    assert told(taken(subscriber)) == [1, 2, 3, 4, 5, "end SESSION_CLOSED"]


# drop_oldest


def test_drop_oldest_leaves_an_exact_gap_and_the_newest() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=5), policy=Told(DropOldest(2)))
    pump.events(6)

    assert told(taken(subscriber)) == [(1, 4), 5, 6]
    assert subscriber.counts.lost_events == {"QUEUE_DROPPED": 4}


def test_dropping_again_and_again_leaves_one_growing_gap() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=5), policy=Told(DropOldest(2)))
    for _ in range(10):
        pump.events(6)

    assert told(taken(subscriber)) == [(1, 58), 59, 60]


def test_drop_oldest_always_lets_at_least_the_excess_go() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=5), policy=Told(DropOldest(1_000)))
    pump.events(6)

    assert told(taken(subscriber)) == [(1, 1), 2, 3, 4, 5, 6]


def test_drop_oldest_may_keep_nothing() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=5), policy=Told(DropOldest(0)))
    pump.events(6)
    pump.events(1)

    assert told(taken(subscriber)) == [(1, 6), 7]


def test_drop_oldest_counts_events_and_not_the_ranges_lost_before() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=5), policy=Told(DropOldest(3)))
    pump.events(2)
    pump.gap(100)
    pump.events(4)

    # Six events are unread. The three oldest are dropped, and with them the gap that lies between them.
    assert told(taken(subscriber)) == [(1, 103), 104, 105, 106]


def test_drop_oldest_by_bytes_ends_below_the_limit_before_long() -> None:
    pump = Pump()
    policy = Told(DropOldest(10))
    subscriber = pump.attach(limits=limit(size=1000), policy=policy)
    for _ in range(100):
        pump.events(1, text="x" * 100)

        assert subscriber.unread.bytes <= 1000 + 200

    items = told(taken(subscriber))

    assert items[0] == (1, 100 - (len(items) - 1))
    assert items[1:] == list(range(101 - (len(items) - 1), 101))


def test_a_first_gap_is_not_lost_when_the_oldest_are_dropped() -> None:
    pump = Pump()
    pump.events(3)
    pump.distributor.log.trim(3, 0, 0, 0.0)
    subscriber = pump.attach(Position(OTHER_EPOCH, 1), limits=limit(events=2), policy=Told(DropOldest(1)))
    pump.events(3)

    assert told(taken(subscriber)) == [(0, 0), (4, 5), 6]


# refuse_newest


def test_drop_newest_keeps_the_oldest_and_leaves_an_exact_gap_for_the_rest() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=3), policy=Told(DropNewest(0)))
    pump.events(4)
    pump.events(10)
    pump.gap(1)

    assert told(taken(subscriber)) == [1, 2, 3, 4, (5, 15)]

    pump.events(2)

    assert told(taken(subscriber)) == [16, 17]


def test_drop_newest_reopens_once_few_enough_are_unread() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=3), policy=Told(DropNewest(2)))
    for _ in range(4):
        pump.events(1, text="x" * 40_000)  # each event is set aside as a separate piece
    pump.events(5)
    subscriber.take(1)
    pump.events(1)  # this event is refused too, because three are still unread
    subscriber.take(1)
    pump.events(1)

    assert told(taken(subscriber)) == [3, 4, (5, 10), 11]


def test_a_refusing_subscriber_that_read_everything_loses_nothing_in_silence() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=3), policy=Told(DropNewest(0)))
    pump.events(4)
    pump.events(4)
    first = told(taken(subscriber))
    pump.events(2)

    assert first + told(taken(subscriber)) == [1, 2, 3, 4, (5, 8), 9, 10]


def test_the_end_of_a_refusing_subscriber_has_its_gap_before_it() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=3), policy=Told(DropNewest(0)))
    pump.events(4)
    pump.events(4)
    # This event is appended and not flushed. It is refused as well, because it arrived while events were refused.
    pump.distributor.append(9, 9, batch([9]))
    subscriber.finish(CLOSED)

    assert told(taken(subscriber)) == [1, 2, 3, 4, (5, 9), "end SESSION_CLOSED"]


def test_what_is_set_aside_comes_in_pieces_far_below_a_message_limit() -> None:
    pump = Pump()
    subscriber = pump.attach()
    for _ in range(100):
        pump.events(50, text="x" * 100)
    subscriber.finish(CLOSED)
    sizes = [item.batch_bytes for item in taken(subscriber) if isinstance(item, Chunk)]

    assert sum(sizes) > 500_000
    assert max(sizes) <= 64 * 1024


# filters


def test_filters_must_all_agree_and_positions_stay_true() -> None:
    pump = Pump()
    even = KeepIf(lambda item, kind: kind == e.EVENT_KIND_DATA_CHANGE)
    subscriber = pump.attach(filters=[Items({1, 2}), Items({2, 3}), even])
    for item_handle in (1, 2, 3, 2):
        pump.distributor.append(
            pump.head + 1, pump.head + 1, e.EventBatch(events=[_event(pump.head + 1, item_handle)]).SerializeToString()
        )
    pump.distributor.flush()

    assert told(taken(subscriber)) == [2, 4]
    assert subscriber.delivered == 4
    assert (subscriber.counts.delivered_events, subscriber.counts.filtered_events) == (2, 2)


def _event(sequence: int, item_handle: int) -> e.Event:
    serial = serial_of(1, item_handle)
    return e.Event(sequence=sequence, item_serial=serial, item_handle=item_handle, kind=e.EVENT_KIND_DATA_CHANGE)


def test_a_filtered_chunk_is_a_valid_frame_of_whole_events() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    pump.events(3, item_handle=7, text="seven")
    pump.events(3, item_handle=8)
    pump.events(1, item_handle=7)
    item = subscriber.take(1 << 20)

    assert isinstance(item, Chunk)
    assert [m.sequence for m in frame_of(item).events.events] == [1, 2, 3, 7]
    assert (item.first, item.last) == (1, 7)


def test_progress_comes_after_every_thousand_skipped_events() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    for _ in range(25):
        pump.events(100)

    # One read would take all events. Small reads show each step.
    items = taken(subscriber, 1)

    assert items == [Progress(PROGRESS_EVENTS), Progress(2 * PROGRESS_EVENTS)]
    assert subscriber.delivered == 2500


def test_a_seen_event_is_progress_enough() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    for _ in range(20):
        pump.events(99)
        pump.events(1, item_handle=7)

    assert told(taken(subscriber, 1)) == [100 * n for n in range(1, 21)]


def test_progress_is_told_before_the_end() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    pump.events(5)
    subscriber.finish(CLOSED)

    assert told(taken(subscriber)) == ["progress 5", "end SESSION_CLOSED"]


def test_gaps_pass_every_filter() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    pump.gap(3)

    assert told(taken(subscriber)) == [(1, 3)]


def test_a_filter_never_guesses_at_events_that_are_none() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Items({7})])
    pump.distributor.append(1, 1, b"\x0a\x01\x00")
    pump.distributor.flush()
    with pytest.raises(MalformedBatch):
        subscriber.take(1000)


def test_delivered_is_where_to_resume_and_never_ahead_of_what_was_handed_over() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(4)

    assert subscriber.delivered == 0

    subscriber.finish(CLOSED)  # the events are set aside, and were not yet handed to the stream

    assert subscriber.delivered == 0

    taken(subscriber)

    assert subscriber.delivered == 4


# control frames and waiting


def test_a_control_frame_goes_before_the_next_events() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(1)
    subscriber.send(b"draining")

    assert told(taken(subscriber)) == [b"draining", 1]


@pytest.mark.asyncio
@pytest.mark.parametrize("cause", ["events", "gap", "control", "end", "wake"])
async def test_wait_returns_for_every_cause(cause: str) -> None:
    pump = Pump()
    subscriber = pump.attach()
    causes = {
        "events": lambda: pump.events(1),
        "gap": lambda: pump.gap(1),
        "control": lambda: subscriber.send(b"frame"),
        "end": lambda: subscriber.finish(CLOSED),
        "wake": subscriber.wake,
    }
    asyncio.get_running_loop().call_soon(causes[cause])
    async with asyncio.timeout(60):
        await subscriber.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("cause", ["events", "gap", "control", "end", "set aside"])
async def test_wait_returns_at_once_for_what_came_before_it(cause: str) -> None:
    pump = Pump()
    subscriber = pump.attach(limits=limit(events=2), policy=Told(DropNewest(0)))
    match cause:
        case "events":
            pump.events(1)
        case "gap":
            pump.gap(1)
        case "control":
            subscriber.send(b"frame")
        case "end":
            subscriber.finish(CLOSED)
        case _:
            pump.events(3)
    async with asyncio.timeout(60):
        await subscriber.wait()

    assert subscriber.take(1000) is not None


@pytest.mark.asyncio
async def test_a_wait_that_was_cancelled_leaves_nothing_behind() -> None:
    pump = Pump()
    subscriber = pump.attach()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await subscriber.wait()
    pump.events(1)
    async with asyncio.timeout(60):
        await subscriber.wait()

    assert told(taken(subscriber)) == [1]


@pytest.mark.asyncio
async def test_a_reader_that_takes_and_waits_in_turns_misses_nothing_whatever_the_interleaving() -> None:
    pump = Pump()
    subscriber = pump.attach()
    seen: list[object] = []

    async def read() -> None:
        while True:
            item = subscriber.take(50)
            if item is None:
                await subscriber.wait()
                continue
            seen.extend(told([item]))
            if isinstance(item, End):
                return
            if len(seen) % 3 == 0:
                await asyncio.sleep(0)

    async def write() -> None:
        for n in range(200):
            pump.events(1 + n % 3)
            if n % 5:
                await asyncio.sleep(0)
        subscriber.finish(CLOSED)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        tasks.create_task(write())

    assert seen == [*range(1, pump.head + 1), "end SESSION_CLOSED"]
