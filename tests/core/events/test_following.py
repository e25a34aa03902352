"""A follower gets every event or an exact gap; the log keeps what it has not acknowledged, within two limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.distributing import EVERYTHING, Pump
from support.events import EPOCH, OTHER_EPOCH, Clock, taken, told
from support.seams import GatewayRun, Source

from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import GatewayDraining, InvalidRequest, PositionForeign, SessionEnded
from mxgw_core.api.events import Retention
from mxgw_core.api.following import Followed, FollowedBatch, FollowedGap, FollowedItems
from mxgw_core.api.types import Position
from mxgw_core.events.distributor import NOTHING_RETAINED, Distributor
from mxgw_core.events.following import Following, LogFollower
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.start import Start
from mxgw_core.sessions.memory import GatewayMemory
from mxgw_core.testing import until

KIB = 1024
MIB = 1024 * KIB
FROM_THE_FIRST = Position(EPOCH, 0)
ENDED = SessionEnded("the session ended", close_reason="CLIENT")


def bare() -> Pump:
    """Return a session whose log keeps nothing for itself."""
    return Pump(unattached=NOTHING_RETAINED)


def follow(
    pump: Pump,
    after: Position | None = FROM_THE_FIRST,
    following: Following | None = None,
    name: str = "test",
    batch_bytes: int = 64 * KIB,
) -> LogFollower:
    following = following or Following(MIB, 8 * MIB)
    return pump.distributor.follow(following, after, session_id="s", name=name, batch_bytes=batch_bytes)


def read(follower: LogFollower) -> list[Followed]:
    """Return what the follower has without waiting."""
    found = []
    while not follower.is_closed and (one := follower._take()) is not None:
        found.append(one)
    return found


def short(followed: Sequence[Followed]) -> list[object]:
    """Return events as their sequences, gaps as pairs, and items as lists of their serials."""
    out: list[object] = []
    for one in followed:
        match one:
            case FollowedBatch(first, last, events):
                sequences = [event.sequence for event in e.EventBatch.FromString(events).events]
                assert sequences == list(range(first, last + 1))
                out += sequences
            case FollowedGap(first, last):
                out.append((first, last))
            case FollowedItems(items):
                out.append([item.serial for item in items])
    return out


def test_what_is_not_acknowledged_stays_in_the_log_and_what_is_acknowledged_goes() -> None:
    pump = bare()
    follower = follow(pump)
    for _ in range(4):
        pump.events(3, text="x" * 30 * KIB)

    assert short(read(follower)) == list(range(1, 13))
    assert (follower.delivered, follower.acknowledged) == (12, 0)
    assert pump.distributor.log.oldest == 1

    follower.acknowledge(7)

    # The log forgets whole segments only.
    assert pump.distributor.log.oldest == 7
    assert follower.lag[0] == 5

    follower.acknowledge(5)

    assert follower.acknowledged == 7
    with pytest.raises(ValueError, match="acknowledged 13, and was handed everything up to 12"):
        follower.acknowledge(13)
    for wrong in ("x", 1.5, True, None):
        with pytest.raises(TypeError, match="sequence must be a whole number"):
            follower.acknowledge(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sequence is -1; it must be 0 or more"):
        follower.acknowledge(-1)

    follower.acknowledge(12)

    assert pump.distributor.log.events == 0

    pump.events(2)

    assert short(read(follower)) == [13, 14]

    follower.close()

    assert pump.distributor.log.events == 0


def test_a_gap_of_the_worker_keeps_its_place_its_count_and_its_reason() -> None:
    pump = bare()
    follower = follow(pump)
    pump.events(2)
    pump.gap(3)
    pump.events(1)
    found = read(follower)

    assert short(found) == [1, 2, (3, 5), 6]
    assert found[1] == FollowedGap(3, 5, 3, e.GAP_REASON_WORKER_OUTBOX_OVERRUN, "lost at the worker")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (None, [4, 5, 6]),
        (Position(EPOCH, 0), [(1, 3), 4, 5, 6]),
        (Position(EPOCH, 2), [(3, 3), 4, 5, 6]),
        (Position(EPOCH, 3), [4, 5, 6]),
        (Position(EPOCH, 5), [6]),
        (Position(EPOCH, 6), []),
    ],
)
def test_a_follower_begins_behind_its_position_or_at_the_oldest_event(
    after: Position | None, expected: list[object]
) -> None:
    pump = Pump(unattached=Retention(3, MIB, 0.0))
    for _ in range(6):
        pump.events(1, text="x" * 64 * KIB)
    follower = follow(pump, after)
    found = read(follower)

    assert short(found) == expected
    assert follower.acknowledged == (3 if after is None else after.sequence)
    if isinstance(found[:1], FollowedGap):
        assert found[0].reason == e.GAP_REASON_RING_EVICTED


def test_a_position_of_another_epoch_or_ahead_of_the_log_is_refused_in_words() -> None:
    pump = bare()
    pump.events(2)
    with pytest.raises(PositionForeign, match="another worker's counting"):
        follow(pump, Position(OTHER_EPOCH, 1))
    with pytest.raises(InvalidRequest, match=r"ahead of the newest event \(2\)"):
        follow(pump, Position(EPOCH, 3))

    assert not pump.distributor.followers

    pump.distributor.end(ENDED)
    with pytest.raises(SessionEnded):
        follow(pump)


def test_a_follower_that_reads_nothing_costs_its_limit_and_gets_an_exact_gap(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pump, following = bare(), Following(MIB, 8 * MIB)
    silent, prompt = follow(pump, following=following, name="silent"), follow(pump, following=following, name="prompt")
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            pump.events(1, text="x" * 10 * KIB)
            prompt.acknowledge(read(prompt)[-1].last)

            assert pump.distributor.log.memory_bytes <= MIB + 64 * KIB

    oldest = pump.distributor.log.oldest
    gap = read(silent)[0]

    assert isinstance(gap, FollowedGap)
    assert (gap.first, gap.last, gap.count, gap.reason) == (1, oldest - 1, oldest - 1, e.GAP_REASON_QUEUE_DROPPED)
    assert "events.follow_bytes" in gap.detail
    assert "acknowledge sooner" in gap.detail
    assert following.lost_events == {"silent": oldest - 1, "prompt": 0}
    assert [record.getMessage() for record in caplog.records] == [
        f"follower silent of session s loses events from 1 on: {gap.detail}".replace(": acknowledge", "; acknowledge")
    ]
    assert prompt.acknowledged == 200


def test_events_that_were_handed_over_and_not_acknowledged_are_released_without_a_gap() -> None:
    pump, following = bare(), Following(MIB, 8 * MIB)
    follower = follow(pump, following=following)
    for number in range(1, 200):
        pump.events(1, text="x" * 10 * KIB)

        assert short(read(follower)) == [number]

    assert pump.distributor.log.memory_bytes <= MIB + 64 * KIB
    assert following.lost_events == {"test": 0}
    # Who follows again behind what it has stored learns what it missed.
    again = follow(pump, following=following)

    assert short(read(again))[0] == (1, pump.distributor.log.oldest - 1)


def test_nothing_is_lost_that_the_log_keeps_for_others() -> None:
    pump, following = bare(), Following(MIB, 8 * MIB)
    pump.distributor.retain(EVERYTHING)
    follower = follow(pump, following=following)
    for _ in range(200):
        pump.events(1, text="x" * 10 * KIB)

    assert short(read(follower)) == list(range(1, 201))


def test_only_gaps_of_the_worker_are_bounded_too() -> None:
    pump, following = bare(), Following(MIB, 8 * MIB)
    follower = follow(pump, following=following)
    for _ in range(5_000):
        pump.gap()

    assert pump.distributor.log.memory_bytes <= MIB
    assert short(read(follower))[0] == (1, pump.distributor.log.oldest - 1)
    assert following.lost_events == {"test": 0}


def test_one_block_that_is_larger_than_the_limit_still_reaches_a_prompt_follower() -> None:
    pump, following = bare(), Following(KIB, KIB)
    follower = follow(pump, following=following)
    for number in range(1, 4):
        pump.events(1, text="x" * 10 * KIB)

        assert short(read(follower)) == [number]

        follower.acknowledge(number)


def test_all_sessions_together_have_a_limit_and_the_one_that_holds_the_most_releases() -> None:
    small, large, following = bare(), bare(), Following(8 * MIB, 2 * MIB)
    followers = [follow(small, following=following, name="small"), follow(large, following=following, name="large")]
    for _ in range(40):
        large.events(1, text="x" * 100 * KIB)
    for _ in range(5):
        small.events(1, text="x" * 100 * KIB)

    assert following.held_bytes <= 2 * MIB
    assert sum(pump.distributor.log.memory_bytes for pump in (small, large)) == following.held_bytes
    assert short(read(followers[0])) == [1, 2, 3, 4, 5]
    gap = read(followers[1])[0]
    assert isinstance(gap, FollowedGap)
    assert "events.follow_total_bytes" in gap.detail
    assert following.lost_events["small"] == 0
    assert following.lost_events["large"] == gap.last

    for follower in followers:
        follower.close()

    assert following.held_bytes == 0


def test_beyond_the_total_limit_a_sixteenth_of_it_becomes_free_at_once() -> None:
    pumps, following = [bare() for _ in range(4)], Following(8 * MIB, MIB)
    followers = [follow(pump, following=following) for pump in pumps]
    before, releases = 0, 0
    for number in range(400):
        pumps[number % 4].events(1, text="x" * 10 * KIB)
        if following.held_bytes < before:
            releases += 1

            assert MIB * 3 // 4 < following.held_bytes <= MIB - MIB // 16
        before = following.held_bytes

    # 400 events of 10 KiB come, and 1 MiB holds about 100 of them.
    assert 1 < releases < 300 / 6
    assert all(follower.holds_after for follower in followers)


def test_when_the_session_that_holds_the_most_has_nothing_to_release_the_next_one_releases() -> None:
    whole, many, following = bare(), bare(), Following(8 * MIB, MIB)
    followers = [follow(pump, following=following) for pump in (whole, many)]
    whole.events(1, text="x" * 900 * KIB)
    for _ in range(10):
        many.events(1, text="x" * 80 * KIB)

    assert following.held_bytes <= MIB
    assert short(read(followers[0])) == [1]
    assert short(read(followers[1]))[1:] == [10]


def test_a_limit_that_a_plugin_sets_for_a_session_holds_for_followers_too() -> None:
    pump = bare()
    pump.distributor.bound(100 * KIB, "the key's --max-kept")
    follower = follow(pump)
    for _ in range(20):
        pump.events(1, text="x" * 20 * KIB)

    assert pump.distributor.log.memory_bytes <= 100 * KIB
    gap = read(follower)[0]
    assert isinstance(gap, FollowedGap)
    assert "the key's --max-kept" in gap.detail


def test_when_memory_is_short_followers_release_before_subscribers_lose_unread_events() -> None:
    pump, following = bare(), Following(8 * MIB, 8 * MIB)
    follower = follow(pump, following=following)
    subscriber = pump.attach(Start.OLDEST_RETAINED)
    for _ in range(10):
        pump.events(1, text="x" * 100 * KIB)
    read_by_subscriber = told(taken(subscriber))
    for _ in range(5):
        pump.events(1, text="x" * 100 * KIB)
    memory = GatewayMemory(700 * KIB, 0)
    memory.watch(pump.distributor, "anna")
    asyncio.run(memory.relieve())
    gap = read(follower)[0]

    assert isinstance(gap, FollowedGap)
    assert (gap.first, "limits.memory_bytes" in gap.detail) == (1, True)
    assert read_by_subscriber + told(taken(subscriber)) == list(range(1, 16))


def item(serial: int, *, ended: bool = False) -> w.ItemRecord:
    return w.ItemRecord(
        item_serial=serial, server_handle=1, item_handle=serial, item_definition=f"Tank{serial}.PV", ended=ended
    )


def session_with_items() -> tuple[Distributor, Pump]:
    pump = bare()
    distributor = Distributor(items=ItemBook(100_000), unattached=NOTHING_RETAINED, clock=pump.clock)
    distributor.epoch = EPOCH
    pump.distributor = distributor
    return distributor, pump


def test_the_records_of_items_come_before_the_first_batch_that_may_have_their_events() -> None:
    distributor, pump = session_with_items()
    assert distributor.items is not None
    distributor.items.take(w.ItemRecords(records=[item(1), item(2)]))
    follower = follow(pump)
    pump.events(1)
    distributor.items.take(w.ItemRecords(records=[item(3)]))
    pump.events(1)

    assert short(read(follower)) == [[1, 2, 3], 1, 2]

    # A removed item, and one that was added and removed before the follower looked.
    distributor.items.take(w.ItemRecords(records=[item(2, ended=True), item(4, ended=True)]))
    pump.events(1)
    found = read(follower)

    assert short(found) == [[4], 3]
    assert isinstance(found[0], FollowedItems)
    assert found[0].items[0].item_definition == "Tank4.PV"
    # A new follower gets the records of all items, also of removed ones.
    assert short(read(follow(pump, Position(EPOCH, 3)))) == [[1, 2, 3, 4]]


def test_many_records_come_in_parts() -> None:
    distributor, pump = session_with_items()
    assert distributor.items is not None
    distributor.items.take(w.ItemRecords(records=[item(number) for number in range(1, 7_001)]))
    found = read(follow(pump))

    assert [len(one.items) for one in found if isinstance(one, FollowedItems)] == [5_000, 2_000]


def test_a_batch_is_about_as_large_as_asked_for() -> None:
    pump = bare()
    follower = follow(pump, batch_bytes=4 * KIB)
    for _ in range(20):
        pump.events(1, text="x" * KIB)
    batches = [one for one in read(follower) if isinstance(one, FollowedBatch)]

    assert [batch.last for batch in batches][-1] == 20
    assert max(len(batch.events) for batch in batches) <= 4 * KIB
    assert len(batches) < 10


# The rest waits for events, and so needs an event loop.


def is_waiting(follower: LogFollower) -> bool:
    return follower._woken is not None and not follower._woken.done()


async def rest_of(follower: LogFollower) -> list[object]:
    return short([one async for one in follower])


@pytest.mark.asyncio
async def test_a_follower_waits_for_events_and_ends_with_the_session_after_the_last_one() -> None:
    pump, following = bare(), Following(MIB, MIB)
    follower = follow(pump, following=following)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(rest_of(follower))
        await until(lambda: is_waiting(follower))
        pump.events(2)
        await until(lambda: follower.delivered == 2 and is_waiting(follower))
        with pytest.raises(RuntimeError, match="two tasks read the follower 'test' of session s"):
            await anext(follower)
        pump.distributor.end(ENDED)
        # A worker that is asked to exit can still send events.
        pump.events(1)
        pump.distributor.release()

    assert reading.result() == [1, 2, 3]
    assert follower.end_error is ENDED
    assert (follower.is_closed, following.followers, pump.distributor.log.events) == (True, [], 0)

    follower.acknowledge(3)

    assert follower.acknowledged == 3


@pytest.mark.asyncio
async def test_a_follower_that_is_behind_reads_the_rest_of_a_session_that_has_ended() -> None:
    pump, following = bare(), Following(MIB, MIB)
    pump.distributor.retain(EVERYTHING)
    behind, idle = follow(pump, following=following), follow(pump, following=following)
    for _ in range(5):
        pump.events(1, text="x" * 64 * KIB)
    behind.acknowledge(read(behind)[2].last)
    pump.distributor.end(GatewayDraining("the session goes on at the next one"))
    pump.distributor.release()
    idle.close()

    # The log keeps what the follower holds, and nothing for clients that come back.
    assert pump.distributor.log.oldest == 4
    assert following.held_bytes == pump.distributor.log.memory_bytes

    assert await rest_of(behind) == []
    assert isinstance(behind.end_error, GatewayDraining)
    assert (pump.distributor.log.events, following.held_bytes) == (0, 0)


@pytest.mark.asyncio
async def test_closing_ends_the_iteration_and_a_context_closes() -> None:
    pump = bare()
    async with follow(pump) as follower:
        pump.events(2)

        assert isinstance(await anext(follower), FollowedBatch)

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(rest_of(follower))
            await until(lambda: is_waiting(follower))
            follower.close()

        assert reading.result() == []
        assert follower.end_error is None

    assert pump.distributor.log.events == 0


@pytest.mark.asyncio
async def test_the_gateway_waits_for_followers_until_its_deadline_and_names_those_that_did_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pump, following = bare(), Following(MIB, MIB)
    prompt, stuck = follow(pump, following=following), follow(pump, following=following, name="stuck")
    pump.events(3)
    pump.distributor.end(GatewayDraining("stopping"))
    pump.distributor.release()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(rest_of(prompt))
        await until(lambda: prompt.is_closed)
        with caplog.at_level(logging.WARNING):
            await following.drained(0)

    assert (reading.result(), following.followers) == ([1, 2, 3], [])
    assert [record.getMessage() for record in caplog.records] == [
        "follower stuck of session s did not read the last events, behind 0, before the gateway stopped"
    ]
    assert await rest_of(stuck) == []

    await following.drained(60)

    one = bare()
    async with asyncio.TaskGroup() as tasks:
        last = follow(one, following=following)
        one.distributor.end(GatewayDraining("stopping"))
        one.distributor.release()
        waiting = tasks.create_task(following.drained(60))
        await until(lambda: following._drained is not None and not following._drained.done())

        assert not waiting.done()
        assert await rest_of(last) == []

    assert last.is_closed
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("outbox_events", "expected"), [(100, [*range(4, 41)]), (15, [(4, 25), *range(26, 41)])])
def test_after_a_kill_what_was_not_acknowledged_comes_again_from_the_outbox_or_is_an_exact_gap(
    outbox_events: int, expected: list[object]
) -> None:
    source = Source(outbox_events)
    for number in range(10):
        source.event(1, str(number))
    run = GatewayRun(source, Clock(), NOTHING_RETAINED, refills=False)
    run.connection.catch_up()
    run.connection.acknowledge()
    pump = bare()
    pump.distributor = run.distributor
    follower = follow(pump)

    assert short(read(follower)) == list(range(1, 11))

    follower.acknowledge(3)
    # The gateway is killed. Events go on, and the next gateway fills its log from the worker's outbox.
    for number in range(30):
        source.event(1, str(number))
    run = GatewayRun(source, Clock(), NOTHING_RETAINED, refills=True)
    run.connection.catch_up()
    pump.distributor = run.distributor

    assert short(read(follow(pump, Position(EPOCH, follower.acknowledged)))) == expected


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.integers(1, 40)),
        st.tuples(st.just("gap"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(0, 1)),
        st.tuples(st.just("acknowledge"), st.integers(0, 20)),
        st.tuples(st.just("again"), st.integers(0, 1)),
    ),
    max_size=60,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(STEPS)
def test_batches_and_gaps_cover_every_sequence_once_and_nothing_acknowledged_comes_again(
    steps: list[tuple[str, int]],
) -> None:
    pump, following = bare(), Following(40 * KIB, 50 * KIB)
    followers = [follow(pump, following=following, name="a"), follow(pump, following=following, name="b")]
    made = set[int]()
    at = [0, 0]
    for step, number in steps:
        match step:
            case "events":
                made.update(range(pump.head + 1, pump.head + number + 1))
                pump.events(number, text="x" * 1000)
            case "gap":
                pump.gap(number)
            case "read":
                for one in read(followers[number]):
                    assert not isinstance(one, FollowedItems)
                    assert one.first == at[number] + 1
                    at[number] = one.last
                    events = len(made & set(range(one.first, one.last + 1)))
                    if isinstance(one, FollowedBatch):
                        assert events == one.last - one.first + 1
                    elif one.reason == e.GAP_REASON_WORKER_OUTBOX_OVERRUN:
                        assert not events
                    else:
                        assert one.last < pump.distributor.log.oldest
                        assert one.count == events or one.reason == e.GAP_REASON_RING_EVICTED

                assert at[number] == followers[number].delivered == pump.head
            case "acknowledge":
                for follower in followers:
                    follower.acknowledge(min(follower.delivered, follower.acknowledged + number))
            case _:
                at[number] = followers[number].acknowledged
                followers[number].close()
                followers[number] = follow(pump, Position(EPOCH, at[number]), following)
        events_log = pump.distributor.log

        # The newest segment is always held, and has at most 64 KiB.
        assert following.held_bytes == events_log.memory_bytes <= 40 * KIB + 64 * KIB
        for follower in followers:
            assert follower.acknowledged >= events_log.oldest - 1 or follower.holds_after > follower.acknowledged
