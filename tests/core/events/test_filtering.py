"""Filters that cannot say yet: the stream stands before such an event, and loses nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from support.distributing import Pump, Told
from support.events import sequences_of

from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Conflate, QueueLimits
from mxgw_core.events.filtering import Sieve
from mxgw_core.events.items import End, Progress
from mxgw_core.events.log import Chunk
from mxgw_core.events.subscriber import Subscriber


@dataclass
class Knowing:
    """A filter that knows some items, one way or the other, and cannot say of the rest."""

    known: dict[int, bool] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def keep(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        self.asked.append(sequence)
        return self.known.get(item_handle)


def taken(subscriber: Subscriber) -> list[int]:
    """Take everything there is; return the sequences of the events."""
    sequences: list[int] = []
    while isinstance(item := subscriber.take(1 << 20), Chunk | Progress):
        if isinstance(item, Chunk):
            sequences += sequences_of(item)
    return sequences


def test_the_stream_stands_before_what_cannot_be_judged_and_goes_on_from_there() -> None:
    pump, knowing = Pump(), Knowing({1: True})
    subscriber = pump.attach(filters=[knowing])
    pump.events(2, item_handle=1)
    pump.events(1, item_handle=2)
    pump.events(2, item_handle=1)

    assert taken(subscriber) == [1, 2]
    assert subscriber.delivered == 2
    assert taken(subscriber) == []

    knowing.known[2] = True

    assert taken(subscriber) == [3, 4, 5]
    assert subscriber.delivered == 5
    assert subscriber.figures.delivered_events == 5


def test_what_turns_out_to_be_denied_is_left_out_and_counted_once() -> None:
    pump, knowing = Pump(), Knowing({1: True})
    subscriber = pump.attach(filters=[knowing])
    pump.events(1, item_handle=2)
    pump.events(1, item_handle=1)

    assert taken(subscriber) == []

    knowing.known[2] = False

    assert taken(subscriber) == [2]
    assert (subscriber.figures.delivered_events, subscriber.figures.filtered_events) == (1, 1)


def test_one_filter_that_denies_settles_what_another_cannot_say() -> None:
    pump = Pump()
    subscriber = pump.attach(filters=[Knowing(), Knowing({1: False})])
    pump.events(1, item_handle=1)
    taken(subscriber)

    assert subscriber.delivered == 1


def test_filters_are_told_the_sequence_of_each_event() -> None:
    pump, knowing = Pump(), Knowing({1: True})
    subscriber = pump.attach(filters=[knowing])
    pump.events(3)
    taken(subscriber)

    assert knowing.asked == [1, 2, 3]


def test_where_nothing_can_wait_an_undecided_event_does_not_pass() -> None:
    pump, knowing = Pump(), Knowing({})
    pump.events(3)
    chunk = pump.distributor.log.read(0, 1 << 20)

    assert isinstance(chunk, Chunk)
    assert Sieve([knowing]).judge(chunk).kept is None


def test_a_reader_whose_filter_cannot_say_is_bounded_like_any_other() -> None:
    pump = Pump()
    policy = Told(Conflate())
    subscriber = pump.attach(filters=[Knowing()], policy=policy, limits=QueueLimits(10, 0, 0.0))
    for _ in range(50):
        pump.events(1)
        subscriber.take(1 << 20)

    assert policy.asked


@pytest.mark.asyncio
async def test_waiting_for_a_filter_ends_when_its_session_s_command_finished() -> None:
    pump, knowing = Pump(), Knowing()
    subscriber = pump.attach(filters=[knowing])
    pump.events(1)

    assert subscriber.take(1 << 20) is None

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(subscriber.wait())
        for _ in range(5):
            await asyncio.sleep(0)

        assert not waiting.done()

        knowing.known[1] = True
        pump.distributor.wake()
        await waiting

    assert taken(subscriber) == [1]


@pytest.mark.asyncio
async def test_the_end_of_a_session_does_not_spin_before_an_undecided_event() -> None:
    pump, knowing = Pump(), Knowing()
    subscriber = pump.attach(filters=[knowing])
    pump.events(2)
    pump.distributor.end(SessionEnded("over", close_reason="CLIENT"))

    assert subscriber.take(1 << 20) is None

    async def read() -> None:
        async with asyncio.timeout(0.05):
            while subscriber.take(1 << 20) is None:
                await subscriber.wait()

    with pytest.raises(TimeoutError):
        await read()

    assert len(knowing.asked) < 10

    knowing.known[1] = True

    assert taken(subscriber) == [1, 2]
    assert isinstance(subscriber.take(1 << 20), End)
