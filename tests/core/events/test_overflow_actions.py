"""Actions that let time pass or select events, DropNewest, the internal readers of the gateway, and the counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.accounts import Account
from support.distributing import EVERYTHING, Items, Pump, Told
from support.events import EPOCH, batch, serial_of, taken, told
from support.overflowing import CHANGE, WRITE, RecordingPump

from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import (
    Block,
    Conflate,
    Disconnect,
    DropNewest,
    DropOldest,
    FailSession,
    QueueLimits,
    Resync,
    Select,
    SelectEvents,
    Tolerate,
)
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.counts import DISCONNECTS, GAP_FRAMES, LOST, OVERFLOW, POLICY_ERRORS, RESUMES, STALL
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.sources import Refusing
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")
THREE = QueueLimits(3, 0, 0.0)
WAIT = Block(timeout_s=1.0, then=Disconnect())


# Tolerate


def test_a_policy_that_tolerates_is_asked_again_at_the_next_event_and_at_its_time() -> None:
    pump = RecordingPump()
    policy = Told(Tolerate(recheck_s=2.0))
    subscriber = pump.attach(limits=THREE, policy=policy)
    pump.happen(1, 1, 1, 1)
    pump.timers.pass_time(1.0)
    pump.happen(1)

    assert [lag.over_limit_s for lag in policy.asked] == [0.0, 1.0]

    policy.answer = Disconnect()
    pump.timers.pass_time(1.0)  # time passes and no event comes

    assert [lag.over_limit_s for lag in policy.asked] == [0.0, 1.0, 2.0]
    assert subscriber.end_error is not None


def test_the_most_impatient_decides_when_to_look_again_and_one_timer_does() -> None:
    pump = RecordingPump()
    for recheck_s in (5.0, 0.5, 3.0):
        pump.attach(limits=THREE, policy=Told(Tolerate(recheck_s)))
    pump.happen(1, 1, 1, 1)

    assert pump.timers.pending == [0.5]


@pytest.mark.parametrize("recheck_s", [0.0, 1e-9])
def test_no_policy_keeps_the_event_loop_busy_by_looking_again_at_once(recheck_s: float) -> None:
    pump = RecordingPump()
    pump.attach(limits=THREE, policy=Told(Tolerate(recheck_s)))
    pump.happen(1, 1, 1, 1)

    assert pump.timers.pending == [pytest.approx(0.01)]


def test_patience_begins_anew_once_the_reader_was_within_its_limits() -> None:
    pump = RecordingPump()
    policy = Told(Tolerate(10.0))
    subscriber = pump.attach(limits=THREE, policy=policy)
    pump.happen(1, 1, 1, 1)
    pump.timers.pass_time(4.0)
    taken(subscriber)
    pump.happen(1)
    pump.happen(1, 1, 1)

    assert [lag.over_limit_s for lag in policy.asked] == [0.0, 0.0]


def test_the_end_of_a_session_leaves_no_timer() -> None:
    pump = RecordingPump()
    pump.attach(limits=THREE, policy=Told(Tolerate(10.0)))
    pump.attach(limits=THREE, policy=Told(WAIT))
    pump.happen(1, 1, 1, 1)
    pump.distributor.end(CLOSED)

    assert pump.timers.pending == []


# Block


def blocked(pump: RecordingPump, answer: object = WAIT) -> Subscriber:
    subscriber = pump.attach(limits=THREE, policy=Told(answer))
    pump.happen(1, 1, 1, 1)

    assert pump.held.now

    return subscriber


def test_a_block_ends_as_soon_as_the_reader_is_within_its_limits() -> None:
    pump = RecordingPump()
    subscriber = blocked(pump)
    read = told(taken(subscriber))
    pump.happen(1)

    assert pump.held.calls == [True, False]
    assert read + told(taken(subscriber)) == [1, 2, 3, 4, 5]
    assert pump.timers.pending == []


def test_a_block_that_takes_too_long_becomes_what_the_policy_said() -> None:
    pump = RecordingPump()
    subscriber = blocked(pump)
    pump.timers.pass_time(0.9)

    assert (pump.held.now, subscriber.end_error) == (True, None)

    pump.timers.pass_time(0.1)

    assert pump.held.calls == [True, False]
    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    assert pump.distributor.counts.total(STALL) == 1_000


def test_a_block_may_end_in_a_drop() -> None:
    pump = RecordingPump()
    subscriber = blocked(pump, Block(1.0, then=DropOldest(1)))
    pump.timers.pass_time(1.0)

    assert told(taken(subscriber)) == [(1, 3), 4]


def test_a_blocked_session_does_not_ask_again_and_again() -> None:
    pump = RecordingPump()
    policy = Told(WAIT)
    pump.attach(limits=THREE, policy=policy)
    pump.happen(1, 1, 1, 1)
    for _ in range(10):
        pump.distributor.check()

    assert len(policy.asked) == 1
    assert pump.distributor.counts.total(OVERFLOW, "told", "Block") == 1


@pytest.mark.parametrize(
    "go",
    [lambda pump, s: pump.distributor.detach(s), lambda pump, s: pump.distributor.end(CLOSED)],
    ids=["detach", "end"],
)
def test_whoever_goes_does_not_leave_the_session_held(go: Callable[[RecordingPump, Subscriber], object]) -> None:
    pump = RecordingPump()
    subscriber = blocked(pump)
    go(pump, subscriber)

    assert pump.held.calls == [True, False]
    assert pump.timers.pending == []


def test_a_stream_that_ends_for_another_reason_does_not_leave_the_session_held() -> None:
    pump = RecordingPump()
    subscriber = blocked(pump)
    subscriber.finish(CLOSED)
    pump.distributor.check()

    assert pump.held.calls == [True, False]


def test_two_that_want_to_block_hold_the_session_once_and_after_one_another() -> None:
    pump = RecordingPump()
    one, other = (pump.attach(limits=THREE, policy=Told(WAIT)) for _ in range(2))
    pump.happen(1, 1, 1, 1)
    taken(one)

    assert pump.held.calls == [True, False]

    pump.distributor.check()  # the other subscriber is still behind

    assert pump.held.calls == [True, False, True]

    taken(other)

    assert pump.held.calls == [True, False, True, False]


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf"), -1.0, 61.0, "soon", None])
def test_a_block_without_a_sensible_time_is_the_policys_failure_and_holds_nothing(timeout_s: object) -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(Block(timeout_s, then=Disconnect())))  # type: ignore[arg-type]
    pump.happen(1, 1, 1, 1)

    assert pump.held.calls == []
    assert subscriber.end_error is not None
    assert pump.distributor.counts.total(POLICY_ERRORS, "support.distributing") == 1


@pytest.mark.parametrize("then", [DropOldest("many"), DropOldest(-1), Tolerate(1.0), "disconnect"])  # type: ignore[arg-type]
def test_what_cannot_be_carried_out_after_a_block_is_the_policys_failure_and_holds_nothing(then: Any) -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(Block(1.0, then=then)))
    pump.happen(1, 1, 1, 1)

    assert pump.held.calls == []
    assert subscriber.end_error is not None
    assert pump.distributor.counts.total(POLICY_ERRORS, "support.distributing") == 1


# Select and SelectEvents


def test_select_keeps_what_it_wants_and_names_the_rest() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(Select(lambda item, kind: kind == WRITE)))
    pump.happen(1, (1, WRITE), 2, 2, (2, WRITE))

    assert read(pump, subscriber).events.keys() == {2, 5}


def test_select_events_decides_about_each_event() -> None:
    pump = RecordingPump()
    policy = Told(SelectEvents(lambda item, kind, sequence: item.item_handle == 2 or sequence % 3 == 0))
    subscriber = pump.attach(limits=QueueLimits(5, 0, 0.0), policy=policy)
    pump.happen(1, 2, 1, 1, 1, 1, 1, 2, 1)
    account = read(pump, subscriber)

    assert account.events.keys() == {2, 3, 6, 8, 9}
    assert account.lost_for(e.GAP_REASON_QUEUE_DROPPED) == {1, 4, 5, 7}
    assert pump.distributor.counts.total(OVERFLOW, "told", "SelectEvents") == 1


def read(pump: RecordingPump, subscriber: Subscriber) -> Account:
    """Return the checked account of everything that the subscriber gets: each event, or an exact gap in its place."""
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)
    return account


@pytest.mark.parametrize("select", [Select, SelectEvents])
def test_a_selection_goes_by_references(select: Any) -> None:
    pump = RecordingPump()
    policy = Told(select(lambda item, *_: item.item_definition == "Item_7.PV"))
    subscriber = pump.attach(limits=THREE, policy=policy)
    pump.happen(1, 7, 2, 7, 7)

    assert read(pump, subscriber).events.keys() == {2, 4, 5}


@pytest.mark.parametrize("select", [Select, SelectEvents])
def test_events_of_items_that_are_not_known_are_kept_and_nobody_is_asked(select: Any) -> None:
    asked = []
    pump = RecordingPump()
    pump.items.forgotten.add(serial_of(1, 7))
    policy = Told(select(lambda item, *_: asked.append(item.item_handle) is not None))
    subscriber = pump.attach(limits=THREE, policy=policy)
    pump.happen(1, 7, 2, 7, (7, WRITE))

    assert read(pump, subscriber).events.keys() == {2, 4, 5}
    assert set(asked) == {1, 2}


@pytest.mark.parametrize("select", [Select, SelectEvents])
def test_an_item_is_known_by_its_serial_when_its_handle_belongs_to_another_item(select: Any) -> None:
    book = ItemBook(10)
    critical, ordinary = (
        w.ItemRecord(item_serial=serial, server_handle=1, item_handle=5, item_definition=reference)
        for serial, reference in ((4, "Critical"), (9, "Ordinary"))
    )
    ended = w.ItemRecord(item_serial=4, server_handle=1, item_handle=5, ended=True)
    book.take(w.ItemRecords(records=[critical, ended, ordinary]))
    distributor = Distributor(items=book, unattached=EVERYTHING)
    distributor.epoch = EPOCH
    policy = Told(select(lambda item, *_: item.item_definition == "Critical"))
    subscriber = distributor.attach("s", Start.NOW, limits=THREE, policy=policy)
    events = [e.Event(sequence=s, item_serial=4 if s < 3 else 9, item_handle=5, kind=CHANGE) for s in range(1, 6)]
    distributor.append(1, 5, e.EventBatch(events=events).SerializeToString())
    distributor.flush()

    assert told(taken(subscriber)) == [1, 2, (3, 5)]


def test_in_a_feed_no_event_has_an_item_so_everything_is_kept() -> None:
    distributor = Distributor(unattached=EVERYTHING)
    distributor.epoch = EPOCH
    policy = Told(Select(lambda *_: False))
    subscriber = distributor.attach("s", Start.NOW, limits=THREE, policy=policy)
    distributor.append(1, 4, batch(range(1, 5)))
    distributor.flush()

    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    assert distributor.counts.total(POLICY_ERRORS, "support.distributing") == 0


@pytest.mark.parametrize("select", [Select, SelectEvents])
def test_a_selection_that_keeps_too_much_disconnects_even_if_it_drops_a_little_each_time(select: Any) -> None:
    pump = RecordingPump()
    subscriber = pump.attach(
        limits=QueueLimits(100, 0, 0.0), policy=Told(select(lambda item, *_: item.item_handle > 1))
    )
    for _ in range(100):
        pump.happen(1, 2, 3)
        if subscriber.end_error is not None:
            break

    assert subscriber.end_error is not None
    assert subscriber.unread.events <= 102


def test_select_asks_once_for_each_item_and_kind() -> None:
    asked: list[tuple[int, int]] = []
    pump = RecordingPump()
    pump.attach(
        limits=THREE, policy=Told(Select(lambda item, kind: asked.append((item.item_handle, kind)) is not None))
    )
    pump.happen(1, 2, 1, (1, WRITE), 2, 1)

    assert sorted(asked) == [(1, CHANGE), (1, WRITE), (2, CHANGE)]


def test_select_events_asks_about_each_event_oldest_first_and_again_while_it_is_unread() -> None:
    asked: list[tuple[int, int, int]] = []

    def keep(item: ItemRecord, kind: int, sequence: int) -> bool:
        asked.append((item.item_handle, kind, sequence))
        return item.item_handle == 1

    pump = RecordingPump()
    pump.attach(limits=THREE, policy=Told(SelectEvents(keep)))
    pump.happen(1, 2, (1, WRITE), 2)

    assert asked == [(1, CHANGE, 1), (2, CHANGE, 2), (1, WRITE, 3), (2, CHANGE, 4)]

    asked.clear()
    pump.happen(2, 2)

    assert asked == [(1, CHANGE, 1), (1, WRITE, 3), (2, CHANGE, 5), (2, CHANGE, 6)]


def raises(item: ItemRecord, *_: int) -> bool:
    raise ZeroDivisionError


def sleeps(item: ItemRecord, *_: int) -> bool:
    asked.append(item.item_handle)
    time.sleep(0.002)
    return True


def says_nothing(item: ItemRecord, *_: int) -> None:
    return None


# The items about which `sleeps` was asked.
asked: list[int] = []


@pytest.mark.usefixtures("uninterrupted")
@pytest.mark.parametrize("select", [Select, SelectEvents])
@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (raises, "failed in Select"),
        (sleeps, "ms for"),
        (says_nothing, "returned None from keep, which is neither True nor False"),
        ("no function", "returned an action whose keep is a str"),
        (lambda: True, "failed in Select"),
    ],
    ids=["raises", "sleeps", "says nothing", "no function", "wrong signature"],
)
def test_a_keep_that_fails_disconnects_its_reader_which_gets_everything(
    select: Any, keep: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(select(keep)))
    asked.clear()
    pump.happen(*range(1, 101))

    assert len(asked) < 50  # the function was asked about fewer than half of the hundred items
    assert subscriber.end_error is not None

    account = read(pump, subscriber)

    assert account.events.keys() == set(range(1, 101))
    assert pump.distributor.counts.total(POLICY_ERRORS, "support.distributing") == 1
    assert says in caplog.text


@pytest.mark.parametrize("select", [Select, SelectEvents])
def test_a_quick_keep_may_be_asked_very_often(select: Any) -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(select(lambda *_: False)))
    pump.happen(*range(1, 10_001))

    assert told(taken(subscriber)) == [(1, 10_000)]


# DropNewest


def test_refusing_ends_at_the_low_water_mark_and_not_at_the_first_free_place() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=QueueLimits(4, 0, 0.0), policy=Told(DropNewest(2)))
    for _ in range(5):
        pump.happen(1, text="x" * 40_000)
    account = Account()
    accepted = []
    for _ in range(5):
        pump.happen(2)
        accepted.append(not isinstance(subscriber.source, Refusing))
        item = subscriber.take(1)
        account.take([item] if item is not None else [])
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert accepted == [False, False, False, True, True]
    assert account.lost_for(e.GAP_REASON_QUEUE_DROPPED) == {6, 7, 8}


def test_a_gap_of_the_workers_alone_takes_no_room_and_keeps_its_reason() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(DropNewest(0)))
    pump.happen(1, 1, 1, 1)
    pump.gap(100)
    pump.happen(1)
    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)

    assert account.lost_for(e.GAP_REASON_WORKER_OUTBOX_OVERRUN) == set(range(5, 105))
    assert account.lost_for(e.GAP_REASON_QUEUE_DROPPED) == {105}


# internal readers of the gateway


@pytest.mark.parametrize("answer", [Disconnect(), FailSession(), WAIT, Resync(), ValueError(), None], ids=repr)
def test_an_internal_mirror_is_never_cut_never_faults_and_never_delays(answer: object) -> None:
    pump = RecordingPump()
    mirror = pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(answer))
    pump.happen(1, 2, 3, 4)
    pump.happen(5)

    assert (mirror.end_error, pump.session_failures, pump.held.calls) == (None, [], [])
    assert told(taken(mirror)) == [(1, 4), 5]


def test_an_internal_mirror_is_no_subscriber_and_nothing_of_it_is_counted() -> None:
    pump = RecordingPump()
    mirror = pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(Conflate(), name="conflate"))
    pump.happen(1, 2, 1, 2)
    taken(mirror)

    assert pump.distributor.subscribers == {}
    assert pump.distributor.counts.total(LOST, "CONFLATED") == 0
    assert pump.distributor.detach(mirror) is False


def test_the_last_subscriber_is_the_last_although_a_mirror_stays() -> None:
    pump = RecordingPump()
    pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(Conflate()))
    subscriber = pump.attach()

    assert pump.distributor.detach(subscriber) is True


def test_a_mirror_ends_with_the_session_and_none_begins_after_it() -> None:
    pump = RecordingPump()
    mirror = pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(Conflate()))
    pump.happen(1)
    pump.distributor.end(CLOSED)

    assert told(taken(mirror)) == [1, "end SESSION_CLOSED"]

    with pytest.raises(SessionEnded):
        pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(Conflate()))


def test_a_stalled_mirror_does_not_hold_the_log() -> None:
    pump = RecordingPump()
    pump.distributor.attach_internal("dashboard", limits=THREE, policy=Told(Conflate()))
    reader = pump.attach()
    for _ in range(3_000):
        pump.happen(1, 2)
        taken(reader)

    assert pump.distributor.log.events < 3_000


# counters


def test_every_decision_and_every_loss_is_counted_by_its_name() -> None:
    pump = RecordingPump()
    pump.attach(limits=THREE, policy=Told(DropOldest(1), name="drop_oldest"))
    cut = pump.attach(limits=THREE, policy=Told(Disconnect(), name="disconnect"))
    pump.happen(1, 1, 1, 1)
    for subscriber in tuple(pump.distributor.subscribers.values()):
        taken(subscriber)
    pump.distributor.detach(cut)

    assert pump.distributor.counts.items() == [
        (LOST, {"reason": "QUEUE_DROPPED"}, 3),
        (GAP_FRAMES, {"reason": "QUEUE_DROPPED"}, 1),
        (DISCONNECTS, {"reason": "SUBSCRIBER_OVERFLOW"}, 1),
        (OVERFLOW, {"policy": "disconnect", "kind": "Disconnect"}, 1),
        (OVERFLOW, {"policy": "drop_oldest", "kind": "DropOldest"}, 1),
    ]


def test_resumes_are_counted_by_whether_they_recovered() -> None:
    pump = RecordingPump()
    pump.happen(1)
    for sequence in (0, 1, 99):
        pump.attach(Position(pump.distributor.epoch, sequence))

    assert pump.distributor.counts.total(RESUMES, "true") == 2
    assert pump.distributor.counts.total(RESUMES, "false") == 1


def test_a_subscribers_own_figures_add_up() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(DropOldest(2)), filters=[Items({1})])
    pump.happen(1, 2, 1, 2, 1)
    taken(subscriber)
    counts = subscriber.counts

    assert (counts.delivered_events, counts.filtered_events, dict(counts.lost_events)) == (
        1,
        1,
        {"QUEUE_DROPPED": 3},
    )


def test_what_is_conflated_is_counted_once_although_a_gap_spans_what_follows() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=THREE, policy=Told(Conflate()))
    pump.happen(1, 2, 3, 1, 2, 1)
    taken(subscriber)

    assert (subscriber.counts.delivered_events, dict(subscriber.counts.lost_events)) == (3, {"CONFLATED": 3})
    assert pump.distributor.counts.total(GAP_FRAMES, "CONFLATED") == 1


# the lag that a policy is called with


def test_a_backlog_that_the_reader_asked_for_is_not_told_to_its_policy() -> None:
    pump = RecordingPump()
    pump.happen(*[1] * 50)
    pump.clock.now += 1_000
    policy = Told(DropOldest(2))
    pump.attach(Start.OLDEST_RETAINED, limits=THREE, policy=policy)
    pump.happen(1, 1)
    pump.clock.now += 2
    pump.happen(1, 1)
    (lag,) = policy.asked

    assert (lag.events, lag.seconds) == (4, 2.0)


def test_limits_in_seconds_are_found_without_new_events() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=QueueLimits(0, 0, 5.0))
    pump.happen(1)
    pump.clock.now += 5.1
    pump.distributor.check()

    assert subscriber.end_error is not None


@pytest.mark.asyncio
async def test_on_the_event_loops_own_clock_a_block_ends_by_itself() -> None:
    pump = Pump()
    goes_on = asyncio.Event()
    pump.distributor.hold_with(lambda on: goes_on.clear() if on else goes_on.set())
    subscriber = pump.attach(limits=THREE, policy=Told(Block(0.02, then=Disconnect())))
    pump.events(4)
    async with asyncio.timeout(60):
        await goes_on.wait()

    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]


@pytest.mark.asyncio
async def test_a_reader_that_waits_for_events_is_not_slow_however_many_come_at_once() -> None:
    pump = RecordingPump()
    policy = Told(Disconnect())
    subscriber = pump.attach(limits=THREE, policy=policy)

    async def read_when_there_is_something() -> list[object]:
        await subscriber.wait()
        return told(taken(subscriber))

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_when_there_is_something())
        await asyncio.sleep(0)
        pump.happen(*[1] * 50)
        pump.happen(*[1] * 50)  # the reader has not had its turn of the event loop yet

    assert reading.result() == list(range(1, 101))
    assert policy.asked == []

    pump.happen(1, 1, 1, 1)  # now no reader waits for events

    assert len(policy.asked) == 1
