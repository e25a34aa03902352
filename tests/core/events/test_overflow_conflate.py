"""`Conflate` keeps the newest value of each item and all other events, with exact gaps and a small cost per event."""

from __future__ import annotations

import time

import pytest
from support.accounts import Account
from support.distributing import Told
from support.events import taken, told
from support.overflowing import BUFFERED, CHANGE, OPERATION, WRITE, RecordingPump, happening

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Conflate, Disconnect, DropNewest, DropOldest, QueueLimits, Select, SelectEvents
from mxgw_core.events.conflation import Conflation
from mxgw_core.events.counts import OVERFLOW
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.pieces import Chunk, Gap, chunk_of
from mxgw_core.events.subscriber import Subscriber

CONFLATED = e.GAP_REASON_CONFLATED


def conflating(pump: RecordingPump, events: int = 3, size: int = 0) -> Subscriber:
    return pump.attach(limits=QueueLimits(events, size, 0.0), policy=Told(Conflate(), name="conflate"))


def test_only_the_newest_value_of_each_item_is_kept_and_gaps_are_exact() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, 2, 3, 1, 2, 1)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == [3, 5, 6]
    assert account.lost_for(CONFLATED) == {1, 2, 4}
    assert len(account.gaps) == 1


def test_what_comes_while_the_reader_is_behind_replaces_what_is_unread() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    for _ in range(50):
        pump.happen(1, 2, 1)
    account = Account()
    account.take(taken(subscriber))

    assert sorted(account.events) == [149, 150]
    assert subscriber.unread.events == 0


def test_a_reader_that_is_level_again_gets_every_event() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, 1, 1, 1, 1)
    taken(subscriber)
    pump.happen(1, 1, 1)

    assert told(taken(subscriber)) == [6, 7, 8]


@pytest.mark.parametrize("kind", [WRITE, OPERATION, BUFFERED])
def test_events_of_other_kinds_are_never_conflated(kind: e.EventKind.ValueType) -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, (1, kind), 1, (1, kind), 1)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == [2, 4, 5]


@pytest.mark.parametrize("server", [0, 2, 127, 128, 70_000])
def test_the_same_handle_of_two_servers_is_two_items(server: int) -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.append_block([happening(1, 7, server=1), happening(2, 7, server=server), happening(3, 7, server=1)])
    pump.append_block([happening(4, 7, server=server), happening(5, -7, server=1), happening(6, -7, server=server)])
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == [3, 4, 5, 6]


def test_a_gap_of_the_workers_keeps_its_place_and_reason() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, 2, 1, 2)
    pump.gap(10)
    pump.happen(1)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == [4, 15]
    assert account.lost_for(e.GAP_REASON_WORKER_OUTBOX_OVERRUN) == set(range(5, 15))


def test_what_is_never_replaced_is_bounded_by_the_limit() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    for _ in range(3):
        pump.happen(1, (1, WRITE), 1)

    assert subscriber.end_error is None

    pump.happen(1, (1, WRITE), 1)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert subscriber.end_error is not None
    assert len(account.events) == 5


def test_newest_values_may_be_more_than_the_limit_in_events_but_not_in_bytes() -> None:
    pump = RecordingPump()
    many, large = conflating(pump, events=3), conflating(pump, events=3, size=2_000)
    pump.happen(*range(1, 11), text="x" * 50)

    assert (many.end_error, large.end_error) == (None, None)

    for item in range(11, 41):
        pump.happen(item, text="x" * 50)

    assert many.end_error is None
    assert large.end_error is not None
    assert many.unread.events == 40


def test_an_item_that_changes_all_the_time_is_read_all_the_same() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump, events=2)
    pump.happen(*range(1, 6), text="x" * 30_000)
    seen: set[int] = set()
    for _ in range(5):  # the reader takes one piece, and then every item changes
        item = subscriber.take(1 << 20)
        if isinstance(item, Chunk):
            account = Account(item.first - 1)
            account.take([item])
            seen |= {event.item_handle for event in account.events.values()}
        pump.happen(*range(1, 6), text="x" * 30_000)

    assert seen == {1, 2, 3, 4, 5}


def test_a_long_backlog_is_conflated_in_steps_and_read_in_order_meanwhile() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump, events=2_990)
    for _ in range(30):
        pump.happen(*range(1, 101))

    assert pump.head - (subscriber.source.reads_after or 0) > 2_000  # conflating has done one of its steps

    account = Account()
    for _ in range(20):
        pump.happen(1, 2, 3)
        item = subscriber.take(1_000)
        account.take([item] if item is not None else [])
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert account.at == pump.head


def test_a_stalled_reader_is_asked_for_once_per_limit_and_not_once_per_event() -> None:
    pump = RecordingPump()
    policy = Told(Conflate(), name="conflate")
    pump.attach(limits=QueueLimits(100, 0, 0.0), policy=policy)
    for _ in range(1_000):
        pump.happen(1)

    assert 9 <= len(policy.asked) <= 10
    assert pump.distributor.counts.total(OVERFLOW, "conflate", "Conflate") == len(policy.asked)


def test_a_policy_is_told_how_long_a_reader_has_been_behind_until_it_is_level() -> None:
    pump = RecordingPump()
    policy = Told(Conflate())
    subscriber = pump.attach(limits=QueueLimits(2, 0, 0.0), policy=policy)
    for _ in range(3):
        pump.happen(1, 1, 1)
        pump.clock.now += 2
    taken(subscriber)
    pump.happen(1, 1, 1)

    assert [lag.over_limit_s for lag in policy.asked] == [0.0, 2.0, 4.0, 0.0]


def test_a_policy_may_grow_tired_of_conflating() -> None:
    pump = RecordingPump()
    policy = Told(Conflate())
    subscriber = pump.attach(limits=QueueLimits(3, 0, 0.0), policy=policy)
    pump.happen(1, 2, 1, 2)
    policy.answer = Disconnect()
    pump.happen(1, 2, 1, 2)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert subscriber.end_error is not None
    assert sorted(account.events) == [7, 8]


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        (DropOldest(1), [12]),
        (DropNewest(0), [11, 12]),
        (Select(lambda item, kind: item.item_handle == 1), [11]),
        (SelectEvents(lambda item, kind, sequence: sequence % 4 == 0), [12]),
    ],
)
def test_another_action_after_conflating_is_exact_too(then: object, kept: list[int]) -> None:
    pump = RecordingPump()
    policy = Told(Conflate())
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=policy)
    pump.happen(1, 2, 1, 2, 1, 2)
    policy.answer = then
    pump.happen(1, 2, 1, 2, 1, 2)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert sorted(account.events) == kept
    assert account.at == 12


def test_conflating_after_another_action_conflates_what_was_set_aside_too() -> None:
    pump = RecordingPump()
    policy = Told(DropNewest(3))
    subscriber = pump.attach(limits=QueueLimits(3, 0, 0.0), policy=policy)
    for item in (1, 2, 1, 2):
        pump.happen(item, text="x" * 40_000)  # this event is set aside
    pump.happen(3)  # this event is refused
    first = subscriber.take(1)  # so few events are unread now that the subscriber gets new events again
    assert first is not None
    account = Account()
    account.take([first])
    policy.answer = Conflate()
    pump.happen(1, 2, 1)
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert account.lost_for(e.GAP_REASON_QUEUE_DROPPED) == {5}
    assert sorted(account.events) == [1, 7, 8]


def test_the_end_delivers_what_was_conflated_and_the_rest() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump, events=1_000)
    for _ in range(15):
        pump.happen(*range(1, 101))
    pump.distributor.end(SessionEnded("the session ended", close_reason="CLIENT"))
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert account.at == pump.head


def test_what_is_held_for_it_is_shown_as_events_bytes_memory_and_age() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, 2, 3, 1)
    pump.clock.now += 7
    pump.happen(1)

    assert subscriber.unread.events == 3
    assert subscriber.unread.bytes < subscriber.backlog_bytes < subscriber.unread.bytes + 3 * 1_000
    assert subscriber.unread.seconds == 7.0


def test_a_stalled_reader_does_not_hold_the_log() -> None:
    pump = RecordingPump()
    conflating(pump)
    for _ in range(3_000):
        pump.happen(1, 2)

    assert pump.distributor.log.events < 3_000


def test_the_oldest_position_that_is_safe_to_resume_after_never_runs_ahead() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump)
    pump.happen(1, 2, 3, 1, 2, 1)
    gap, batch = subscriber.take(1 << 20), None

    assert isinstance(gap, Gap)
    assert gap.runs
    assert subscriber.delivered == 0  # event 3 lies inside the range of the gap and was not delivered yet

    batch = subscriber.take(1 << 20)

    assert isinstance(batch, Chunk)
    assert subscriber.delivered == 6


@pytest.mark.parametrize("then", [DropOldest(0), Disconnect(), Select(lambda *_: False)], ids=["drop", "end", "select"])
def test_what_a_gap_said_would_follow_follows_whatever_comes_in_between(then: object) -> None:
    pump = RecordingPump()
    policy = Told(Conflate())
    subscriber = pump.attach(limits=QueueLimits(3, 0, 0.0), policy=policy)
    pump.happen(1, 2, 3, 1, 2, 1)
    gap = subscriber.take(1 << 20)
    policy.answer = then
    for _ in range(3):
        pump.happen(1, 1, 1)
    account = Account()
    account.take([gap] if gap is not None else [])
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert {3, 5, 6} <= set(account.events)


@pytest.mark.parametrize("numbers", [(1, 1), (2, 1), (1, 3)])
def test_events_numbered_otherwise_than_their_block_says_are_the_workers_failure(numbers: tuple[int, int]) -> None:
    batch = e.EventBatch(events=[happening(number) for number in numbers]).SerializeToString()
    with pytest.raises(MalformedBatch, match="in the place of"):
        Conflation("").absorb(chunk_of(1, 2, batch), 0.0)


def test_a_malformed_batch_is_never_blamed_on_the_policy() -> None:
    pump = RecordingPump()
    subscriber = conflating(pump, events=1)
    pump.distributor.append(1, 2, b"\x0a\x01\x00\x0a\x01\x00")
    with pytest.raises(MalformedBatch):
        pump.distributor.flush()

    assert not subscriber.counts.lost_events
    assert subscriber.end_error is None


def test_one_event_costs_a_stalled_reader_the_same_whether_one_or_twenty_thousand_items_wait() -> None:
    """Both costs are measured in one run, and the best of several counts.

    If the cost grew with the number of waiting items, the factor would be 200 or more.
    """
    few, many = cost_of_an_event(items=100), cost_of_an_event(items=20_000)

    assert many < 5 * few


def cost_of_an_event(items: int) -> float:
    count = items + 3_000
    events = [happening(s, (s * 7_919) % items + 1) for s in range(1, count + 1)]
    chunks = [
        chunk_of(first + 1, first + 100, e.EventBatch(events=events[first : first + 100]).SerializeToString())
        for first in range(0, count, 100)
    ]
    conflation = Conflation("")
    times = []
    for chunk in chunks:
        began = time.thread_time()
        conflation.absorb(chunk, 0.0)
        times.append(time.thread_time() - began)

    assert conflation.events == items

    return min(times[-20:])


def test_kinds_are_those_of_the_contract() -> None:
    assert (CHANGE, WRITE, OPERATION, BUFFERED) == (1, 2, 3, 4)
