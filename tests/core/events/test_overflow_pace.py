"""A paced stream: at most one value per item and interval, and the last value of an item within the interval."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.accounts import Account
from support.clock import advance
from support.events import taken, told
from support.overflowing import WRITE, RecordingPump

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Action, Conflate, DropOldest, Lag, QueueLimits
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")


@dataclass
class Paced:
    """A policy with a pace: an interval within which each item is sent at most once."""

    interval_s: float = 1.0
    answer: Action = field(default_factory=Conflate)
    name: str = "paced"
    asked: int = 0

    def on_overflow(self, lag: Lag) -> Action:
        self.asked += 1
        return self.answer


def paced(pump: RecordingPump, policy: Paced | None = None, events: int = 0, start: Start = Start.NOW) -> Subscriber:
    return pump.attach(start, limits=QueueLimits(events, 0, 0.0), policy=policy or Paced())


def test_the_first_values_go_out_at_once_and_the_next_after_the_interval() -> None:
    pump = RecordingPump()
    subscriber = paced(pump)
    pump.happen(1, 2)
    first = told(taken(subscriber))
    pump.happen(1, 2, 1)
    early = told(taken(subscriber))
    pump.clock.now += 1
    account = Account(2)
    account.take(taken(subscriber))

    assert (first, early) == ([1, 2], [])
    assert sorted(account.events) == [4, 5]
    assert account.lost_for(e.GAP_REASON_CONFLATED) == {3}


def test_an_overflow_within_an_interval_sends_nothing_before_its_time() -> None:
    pump = RecordingPump()
    policy = Paced()
    subscriber = paced(pump, policy, events=3)
    pump.happen(1)
    taken(subscriber)
    for _ in range(20):
        pump.happen(1, 2)

    assert taken(subscriber) == []
    assert policy.asked == 0  # the subscriber is not behind, because it waits for the interval to end

    pump.clock.now += 1
    account = Account(1)
    account.take(taken(subscriber))

    assert sorted(account.events) == [40, 41]


def test_other_events_keep_their_place_and_are_bounded() -> None:
    pump = RecordingPump()
    policy = Paced()
    subscriber = paced(pump, policy, events=3)
    pump.happen((1, WRITE))
    taken(subscriber)
    pump.happen(1, (1, WRITE), 1, (2, WRITE), (3, WRITE))

    assert (policy.asked, subscriber.end_error) == (0, None)

    pump.happen((4, WRITE))

    assert policy.asked == 1
    assert subscriber.end_error is not None  # conflating would drop none of these events, so the stream is ended

    account = Account(1)
    account.take(taken(subscriber))
    pump.produced.check(account, after=1)

    assert sorted(account.events) == [3, 4, 5, 6, 7]


def test_a_policy_with_a_pace_may_drop_instead() -> None:
    pump = RecordingPump()
    subscriber = paced(pump, Paced(answer=DropOldest(1)), events=2)
    pump.happen((1, WRITE), (2, WRITE), (3, WRITE))
    account = Account()
    account.take(taken(subscriber))
    pump.happen(1)
    pump.clock.now += 5
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == [3, 4]


def test_the_end_does_not_wait_for_the_interval() -> None:
    pump = RecordingPump()
    subscriber = paced(pump)
    pump.happen(1)
    taken(subscriber)
    pump.happen(1, 1)
    pump.distributor.end(CLOSED)

    assert told(taken(subscriber)) == [(2, 2), 3, "end SESSION_CLOSED"]


def test_a_backlog_that_the_reader_asked_for_is_sampled_too() -> None:
    pump = RecordingPump()
    for _ in range(30):
        pump.happen(*range(1, 101))
    subscriber = paced(pump, start=Start.OLDEST_RETAINED)
    account = Account()
    for _ in range(100):
        account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == list(range(2_901, 3_001))


def test_a_slow_reader_of_a_paced_stream_gets_every_item() -> None:
    pump = RecordingPump()
    subscriber = paced(pump)
    seen: set[int] = set()
    for _ in range(8):  # one message per interval, while all items change
        pump.happen(*range(1, 6), text="x" * 30_000)
        pump.clock.now += 1.1
        item = subscriber.take(1 << 20)
        account = Account(item.first - 1) if item is not None and hasattr(item, "first") else Account()
        account.take([item] if item is not None else [])
        seen |= {event.item_handle for event in account.events.values()}

    assert seen == {1, 2, 3, 4, 5}


blocks = st.lists(
    st.tuples(st.floats(0.01, 0.9), st.lists(st.integers(1, 4), min_size=1, max_size=6), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(blocks)
def test_no_item_comes_twice_within_an_interval_and_the_last_value_always_within_one(
    history: list[tuple[float, list[int], bool]],
) -> None:
    pump = RecordingPump()
    subscriber = paced(pump)
    account = Account()
    sent: dict[int, float] = {}
    came: dict[int, float] = {}
    for pause_s, items, reads in history:
        pump.clock.now += pause_s
        pump.happen(*items)
        came.update(dict.fromkeys(items, pump.clock.now))
        if reads:
            before = set(account.events)
            account.take(taken(subscriber))
            for sequence in set(account.events) - before:
                item = account.events[sequence].item_handle

                assert pump.clock.now - sent.get(item, -10.0) >= 1.0 - 1e-9

                sent[item] = pump.clock.now
    pump.clock.now += 1.0
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert account.at == pump.head
    assert {*pump.produced.newest(pump.head).values()} <= set(account.events)


# waiting, on the event loop's own clock


@pytest.mark.asyncio
async def test_an_idle_paced_stream_sleeps() -> None:
    pump = RecordingPump()
    subscriber = paced(pump)

    assert subscriber.take(1000) is None

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await subscriber.wait()


@pytest.mark.asyncio
async def test_a_paced_stream_is_woken_by_its_time_and_not_by_every_event() -> None:
    loop = asyncio.get_running_loop()
    pump = RecordingPump()
    pump.clock.now = loop.time()
    subscriber = paced(pump, Paced(interval_s=100.0))
    pump.happen(1)
    taken(subscriber)
    began, wakes = loop.time(), 0

    async def read() -> list[object]:
        nonlocal wakes
        while not (items := told(taken(subscriber))):
            await subscriber.wait()
            wakes += 1
            pump.clock.now = loop.time()
        return items

    async def write() -> None:
        for _ in range(20):
            pump.happen(1)
            await asyncio.sleep(0)
        advance(100)

    async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        tasks.create_task(write())

    assert reading.result() == [(2, 20), 21]
    assert loop.time() - began >= 100
    assert wakes <= 3
