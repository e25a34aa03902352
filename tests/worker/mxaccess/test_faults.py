"""What goes wrong around MXAccess in a plant: starts and stops at bad moments, handles that clash, floods of events."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.mxaccess.python_double import DoubledBackend, ThreadPump
from support.mxaccess.rigs import Start
from support.waiting import until

from mxgw.convert import status, to_value
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, BackendUnavailable, MxError
from mxgw_worker.backends.mxaccess.apartment import Apartment, Busy
from mxgw_worker.backends.mxaccess.com import ComEvents
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.mxaccess.health import Health
from mxgw_worker.backends.mxaccess.watch import Probe
from mxgw_worker.backends.sim.testing import RecordingSink

pytestmark = pytest.mark.asyncio

OK = ((-1, 0, 0, 0),)


class _HangingStart:
    """A backend whose object is made only after `released` is set."""

    def __init__(self, options: dict[str, object], **knobs: Any) -> None:
        self.doubled = DoubledBackend(options, {}, **knobs)
        self.released = threading.Event()
        self.begun = threading.Event()
        connect = self.doubled.backend._make

        def slowly(events: ComEvents) -> Any:
            self.begun.set()
            self.released.wait()
            return connect(events)

        self.doubled.backend._make = slowly

    def calls(self) -> list[str]:
        return [] if self.doubled.double is None else self.doubled.double.calls

    async def thread_has_ended(self) -> None:
        await until(lambda: self.begun.is_set() and self.doubled.pump.thread is None)


# Starts and stops.


async def test_an_object_that_is_made_too_late_is_released_in_its_apartment() -> None:
    slow = _HangingStart({"start_limit_s": 0.1})
    with pytest.raises(BackendUnavailable, match="has not started within"):
        await slow.doubled.backend.start(RecordingSink())
    await slow.doubled.backend.stop()  # does not wait for the object
    slow.released.set()
    await slow.thread_has_ended()

    assert slow.calls() == ["release"]


async def test_a_start_that_is_cancelled_leaves_no_object_behind() -> None:
    slow = _HangingStart({})
    start = asyncio.ensure_future(slow.doubled.backend.start(RecordingSink()))  # noqa: TID251  cancelled below
    await until(slow.begun.is_set)
    start.cancel()
    await asyncio.wait((start,))
    slow.released.set()
    await slow.doubled.backend.stop()

    assert start.cancelled()
    assert slow.calls() == ["release"]
    assert slow.doubled.pump.thread is None


async def test_a_probe_that_hangs_at_the_start_is_told_and_released_when_it_returns() -> None:
    doubled = DoubledBackend({"start_limit_s": 0.1, "probe": "X.Y"}, {}, hanging=["add_item"])
    with pytest.raises(BackendUnavailable, match="has not started within"):
        await doubled.backend.start(RecordingSink())
    assert doubled.double is not None
    doubled.double.released.set()
    await until(lambda: doubled.pump.thread is None)

    assert doubled.double.calls[-1] == "release"


async def test_stopping_twice_releases_once(start: Start) -> None:
    rig = await start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.backend.stop())
        tasks.create_task(rig.backend.stop())
    await rig.backend.stop()

    assert rig.double.calls.count("release") == 1


async def test_calls_that_have_not_begun_when_the_session_ends_are_never_made(start: Start) -> None:
    rig = await start(hanging=["add_item"])
    adding = [
        asyncio.ensure_future(rig.backend.add_item(rig.server, "Bench_001.Count"))  # noqa: TID251  ended below
        for _ in range(50)
    ]
    await until(lambda: "add_item" in rig.double.calls)
    stop = asyncio.ensure_future(rig.backend.stop())  # noqa: TID251  awaited below
    await asyncio.wait(adding[1:])
    rig.double.released.set()
    await stop
    await asyncio.wait(adding)

    assert rig.double.calls == ["register", "add_item", "remove_item", "unregister", "release"]
    assert all(one.cancelled() for one in adding[1:])


async def test_an_item_whose_caller_has_gone_is_removed_with_the_session(start: Start) -> None:
    rig = await start(hanging=["add_item"])
    adding = asyncio.ensure_future(rig.backend.add_item(rig.server, "Bench_001.Count"))  # noqa: TID251  cancelled
    await until(lambda: "add_item" in rig.double.calls)
    adding.cancel()
    await asyncio.wait((adding,))
    rig.double.released.set()
    await rig.backend.stop()

    assert rig.double.calls[-3:] == ["remove_item", "unregister", "release"]


async def test_the_object_is_released_even_if_its_taking_down_fails(start: Start) -> None:
    rig = await start()
    await rig.advised("Bench_001.Count")

    def broken(_server: int, _item: int) -> None:
        raise ZeroDivisionError

    rig.double.un_advise = broken  # type: ignore[method-assign]
    await rig.backend.stop()

    assert rig.double.calls[-1] == "release"


# The apartment.


async def test_a_pump_that_fails_ends_the_worker_and_every_call(start: Start) -> None:
    rig = await start(hanging=["add_item"])
    rig.expected_failures = 1

    def broken() -> None:
        raise OSError("the wait says no")

    rig.doubled.pump.wait = broken  # type: ignore[method-assign]
    waiting = asyncio.ensure_future(rig.backend.add_item(rig.server, "Bench_001.Count"))  # noqa: TID251  fails below
    rig.double.released.set()
    await until(lambda: bool(rig.sink.failures))
    await asyncio.wait((waiting,))

    assert "can no longer receive messages: the wait says no" in rig.sink.failures[0]
    with pytest.raises(RuntimeError, match="has ended"):
        await rig.backend.remove_item(rig.server, 1)
    rig.doubled.pump.thread = None  # it never left the apartment, because its object was not released


async def test_many_messages_are_no_call_that_hangs() -> None:
    seen: list[Busy | None] = []
    apartment: Apartment

    class Flooded(ThreadPump):
        def dispatch(self) -> bool:
            seen.append(apartment.busy)
            return len(seen) < 5

    apartment = Apartment(Flooded(), "test")
    await apartment.start(lambda: None, "nothing")
    await apartment.end()

    assert len(set(map(id, seen[:5]))) == 5


async def test_commands_are_run_in_a_flood_of_long_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("mxgw_worker.backends.mxaccess.apartment.time.perf_counter", lambda: clock)
    delivered = 0

    class Flooded(ThreadPump):
        def dispatch(self) -> bool:
            nonlocal clock, delivered
            clock += 0.2  # as long as 2,000 events take
            delivered += 1
            return delivered < 1_000

    apartment = Apartment(Flooded(), "test")
    apartment.call("the first", lambda: None)
    seen = await apartment.start(lambda: delivered, "nothing")
    await apartment.end()

    assert seen == 1


class _Held:
    pass


async def test_an_error_keeps_nothing_of_the_apartment(caplog: pytest.LogCaptureFixture) -> None:
    held: list[weakref.ref[_Held]] = []

    def fail() -> None:
        mine = _Held()
        held.append(weakref.ref(mine))
        try:
            mine.missing  # type: ignore[attr-defined]  # noqa: B018
        except AttributeError:
            raise MxError(E_FAIL, "no") from None

    apartment = Apartment(ThreadPump(), "test")
    await apartment.start(lambda: None, "nothing")
    with pytest.raises(MxError, match="no") as failed:
        await apartment.call("a call", fail)
    assert failed.value.__context__ is None
    assert held[0]() is None

    with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError):
        await apartment.call("a call with a bug", lambda: 1 // 0)
    await apartment.end()

    (record,) = caplog.records
    assert "a call with a bug failed in a way" in record.getMessage()
    assert record.exc_text is not None or record.exc_info is not None
    caplog.clear()


# Handles.


async def test_a_client_cannot_use_a_server_handle_of_the_worker_itself(start: Start) -> None:
    rig = await start({"probe": "AppEngine_001.ScanCount"}, {"update_period_s": 0.02})
    probe, item, backend = 1, 1, rig.backend
    assert rig.server != probe
    calls: list[Callable[[], Any]] = [
        lambda: backend.unregister(probe),
        lambda: backend.add_item(probe, "Bench_001.Count"),
        lambda: backend.add_item2(probe, "Count", "Bench_001"),
        lambda: backend.add_buffered_item(probe, "Bench_001.Count", ""),
        lambda: backend.remove_item(probe, item),
        lambda: backend.advise(probe, item),
        lambda: backend.advise_supervisory(probe, item),
        lambda: backend.un_advise(probe, item),
        lambda: backend.write(probe, item, to_value(1), 0),
        lambda: backend.write2(probe, item, to_value(1), None, 0),
        lambda: backend.write_secured(probe, item, 1, 1, to_value(1)),
        lambda: backend.write_secured2(probe, item, 1, 1, to_value(1), None),
        lambda: backend.authenticate_user(probe, "x", "y"),
        lambda: backend.archestra_user_to_id(probe, "x"),
        lambda: backend.suspend(probe, item),
        lambda: backend.activate(probe, item),
        lambda: backend.set_buffered_update_interval(probe, 100),
    ]
    before = list(rig.double.calls)
    for call in calls:
        with pytest.raises(MxError, match="expected range") as refused:
            await call()
        assert refused.value.hresult == E_INVALIDARG

    assert rig.double.calls == before


async def test_a_server_handle_that_is_given_out_twice_is_refused(start: Start) -> None:
    rig = await start({"probe": "AppEngine_001.ScanCount"}, {"update_period_s": 0.02})
    register = rig.double.register
    rig.double.register = lambda _name: 1  # type: ignore[method-assign]
    with pytest.raises(MxError, match="the server handle 1, which this worker uses itself"):
        await rig.backend.register("again")
    rig.double.register = lambda _name: rig.server  # type: ignore[method-assign]
    with pytest.raises(MxError, match=f"the server handle {rig.server} a second time"):
        await rig.backend.browse("Bench_001")
    rig.double.register = register  # type: ignore[method-assign]

    assert await rig.backend.browse("Bench_001")
    await rig.advised("Bench_001.Count")


async def test_two_clients_get_their_own_events_and_one_can_leave(start: Start) -> None:
    rig = await start()
    other = await rig.backend.register("other")
    mine = await rig.advised("Bench_001.Count")
    theirs = await rig.backend.add_item(other, "Bench_001.Count")
    await rig.backend.advise(other, theirs)
    await until(lambda: any(event.server == other and event.value is not None for event in rig.sink.events))
    await rig.backend.unregister(other)
    rig.sink.take()
    await rig.written(mine, 5)
    await rig.value(mine)

    assert mine == theirs
    assert {event.server for event in rig.sink.events} == {rig.server}
    assert await rig.backend.register("again") == other


# The probe and browsing.


async def test_a_probe_works_with_the_first_interface_and_is_taken_down_in_order(start: Start) -> None:
    rig = await start({"probe": "AppEngine_001.ScanCount"}, {"update_period_s": 0.02}, version=1)
    await rig.advised("Bench_001.Count")
    calls = len(rig.double.calls)
    await rig.backend.stop()

    assert rig.double.calls[calls:] == [
        "un_advise", "remove_item", "un_advise", "remove_item", "unregister", "unregister", "release",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quality", "one"),
    [(32, status(-1, 0, 0, 0)), (0, status(0, 5, 5, 1010)), (0, status(-1, 0, 0, 11)), (192, status(-1, 1, 0, 0))],
)
async def test_a_probe_that_is_still_initialising_says_nothing(quality: int, one: Any) -> None:
    sink = RecordingSink()
    probe = Probe("X.Y", Health(sink), timeout_s=60, first_s=60)
    probe.changed(1, MxValue(), quality, (one,))
    assert sink.healths == []
    probe.changed(1, MxValue(integer=1), 192, ())
    assert sink.healths == [SOURCE_HEALTH_GOOD]
    probe.changed(1, MxValue(), 24, (status(0, 3, 2, 2),))
    probe.close()

    assert sink.healths == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST]


async def test_browsing_waits_until_the_object_has_initialised(start: Start) -> None:
    rig = await start()
    double, advise = rig.double, rig.double.advise

    def initialising(server_handle: int, item_handle: int) -> None:
        for quality, detail in ((32, 0), (0, 1010)):
            double.events.data_change(server_handle, item_handle, MxValue(), quality, None, "", ((0, 5, 5, detail),))
        advise(server_handle, item_handle)

    double.advise = initialising  # type: ignore[method-assign]

    assert "Count" in {node.name for node in await rig.backend.browse("Bench_001")}


async def test_browsers_share_one_registration_and_leave_no_item(start: Start) -> None:
    rig = await start()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(rig.backend.browse("Bench_001"))

    assert rig.double.calls.count("register") == 2
    assert rig.double.calls.count("remove_item") == 3
    assert rig.backend._events is not None
    assert not rig.backend._events.items


async def test_browsing_removes_its_item_also_when_it_could_not_be_advised(start: Start) -> None:
    rig = await start()

    def refused(_server_handle: int, _item_handle: int) -> None:
        raise MxError(E_FAIL, "not now")

    rig.double.advise = rig.double.un_advise = refused  # type: ignore[method-assign]
    with pytest.raises(MxError, match="not now"):
        await rig.backend.browse("Bench_001")

    assert rig.double.calls[-1] == "remove_item"


# Floods.


class _HeldApartment:
    """Keeps what is posted, as while the event loop is busy."""

    def __init__(self) -> None:
        self.posted: list[object] = []

    def post(self, callback: object) -> None:
        self.posted.append(callback)


class _Flood:
    """Events under a busy event loop, and the order in which they arrive."""

    def __init__(self, **limits: int) -> None:
        sink = RecordingSink()
        self.order: list[object] = []
        sink.data_change = lambda *arguments: self.order.append(arguments[2].integer)  # type: ignore[method-assign]
        sink.source_gap = lambda _reason, detail, count: self.order.append((detail, count))  # type: ignore[method-assign,misc,assignment]
        self.events = Events(sink, _HeldApartment(), **limits)  # type: ignore[arg-type]
        self.events.advised.add((1, 1))

    def change(self, number: int, value: MxValue | None = None) -> None:
        self.events.data_change(1, 1, value or MxValue(integer=number), 192, None, "", OK)


async def test_each_loss_has_a_place_of_its_own_among_the_events() -> None:
    flood = _Flood(most_waiting=3)
    for number in range(5):
        flood.change(number)
    for _ in range(2):
        flood.events._deliver_one()
    for number in range(5, 9):
        flood.change(number)
    await flood.events.deliver()
    told = "more than 3 events of MXAccess waited for this worker"

    assert flood.order == [0, 1, 2, (told, 2), 5, (told, 3)]


async def test_large_values_are_limited_by_their_bytes_and_one_always_passes() -> None:
    flood = _Flood(most_waiting_bytes=1000)
    large = MxValue(string="x" * 2000)
    for number in range(3):
        flood.change(number, large)
    await flood.events.deliver()
    flood.change(7)
    await flood.events.deliver()

    assert flood.order == [0, ("more than 1000 bytes of values of MXAccess waited for this worker", 2), 7]


async def test_a_flood_of_events_that_cannot_be_read_is_one_gap() -> None:
    flood = _Flood(most_waiting=3)
    for _ in range(1000):
        flood.events.unreadable("OnDataChange", "no")
    flood.change(1)
    for number in range(1000):
        flood.events.unreadable("OnDataChange", f"no {number}")
    await flood.events.deliver()

    assert flood.order[:2] == [("an OnDataChange of MXAccess could not be read: no", 1000), 1]
    assert sum(count for _, count in flood.order[2:]) == 1000  # type: ignore[misc]
    assert len(flood.order) == 4


async def test_what_waits_is_passed_on_while_the_event_loop_does_other_work() -> None:
    flood = _Flood()
    for number in range(5_000):
        flood.change(number)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while len(flood.order) < 5_000:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(count_turns())
        await flood.events.deliver()

    assert flood.order == list(range(5_000))
    assert turns >= 5
