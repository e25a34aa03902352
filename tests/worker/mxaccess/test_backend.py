"""The backend for MXAccess on a double: its calls, its events, its apartment, and what goes wrong."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from support.mxaccess.python_double import DoubledBackend
from support.mxaccess.rigs import Start
from support.waiting import until

from mxgw.convert import to_value
from mxgw.v1.events_pb2 import (
    GAP_REASON_SOURCE_OVERFLOW,
    SOURCE_HEALTH_DEGRADED,
    SOURCE_HEALTH_GOOD,
    SOURCE_HEALTH_LOST,
)
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_ACCESSDENIED, E_INVALIDARG, E_NOTIMPL, Backend, BackendUnavailable, MxError
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.registry import create_backend
from mxgw_worker.backends.sim.testing import RecordingSink

pytestmark = pytest.mark.asyncio


async def test_it_is_a_backend_with_all_methods(start: Start) -> None:
    backend: Backend = (await start()).backend

    assert backend.info().kind == "mxaccess"


@pytest.mark.skipif(sys.platform == "win32", reason="MXAccess can be there")
async def test_without_windows_it_says_what_it_needs() -> None:
    with pytest.raises(BackendUnavailable, match=r"needs Windows.*'sim' stands in for it"):
        create_backend("mxaccess", {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prob": "x"}, "no option 'prob'; did you mean 'probe'"),
        ({"colour": "x"}, "it knows probe, probe_timeout_s"),
        ({"probe": 1}, "'probe' .* must be a text, not 1"),
        ({"probe_timeout_s": "1"}, "seconds from 0.1 to 86400, not '1'"),
        ({"probe_timeout_s": 0}, "seconds from 0.1"),
        ({"call_limit_s": True}, "not True"),
        ({"call_limit_s": float("nan")}, "not nan"),
        ({"objects": "Tank_001"}, "must be a list of tag names, not 'Tank_001'"),
        ({"times": "CET"}, "must be 'utc' or 'local', not 'CET'"),
        ({"slow_call_s": 90.0}, r"'slow_call_s' .*\(90\) must not be more than 'call_limit_s' \(60\)"),
    ],
)
async def test_wrong_options_are_named(options: dict[str, object], told: str) -> None:
    with pytest.raises(BackendUnavailable, match=told):
        DoubledBackend(options, {})


async def test_values_come_with_their_vartype_and_all_of_the_status(start: Start) -> None:
    rig = await start()
    kept: list[MxValue] = []
    rig.sink.data_change = lambda *arguments: kept.append(arguments[2])  # type: ignore[method-assign]
    item = await rig.backend.add_item(rig.server, "Bench_001.Count")
    await rig.backend.advise(rig.server, item)
    await until(lambda: len(kept) == 2)

    assert [value.variant_type for value in kept] == [0, 3]


async def test_a_wrong_name_fails_later_with_its_status(start: Start) -> None:
    rig = await start()
    item = await rig.backend.add_item(rig.server, "Nobody.Knows")
    await rig.backend.advise(rig.server, item)

    event = await rig.value(item)

    assert (event.success, event.category, event.detected_by, event.detail) == (0, 4, 1, 8)


async def test_a_write_completes_and_the_new_value_follows(start: Start) -> None:
    rig = await start()
    item = await rig.advised("Bench_001.Count")

    assert (await rig.written(item, "77")).success == -1
    assert (await rig.value(item)).value == 77


async def test_a_value_that_no_variant_holds_is_refused_before_the_call(start: Start) -> None:
    rig = await start()
    item = await rig.advised("Bench_001.Count")

    with pytest.raises(MxError, match="plain bytes") as refused:
        await rig.backend.write(rig.server, item, MxValue(opaque=b"x"), 0)
    assert refused.value.hresult == E_INVALIDARG


async def test_every_call_runs_in_the_apartment_in_order(start: Start) -> None:
    rig = await start()
    item = await rig.advised("Bench_001.Count")
    backend, server = rig.backend, rig.server
    await backend.add_item2(server, "Count", "Bench_001")
    await backend.add_buffered_item(server, "Bench_001.Count", "")
    await backend.set_buffered_update_interval(server, 500)
    await backend.advise_supervisory(server, item)
    await backend.write2(server, item, to_value(1), 0, 0)
    await backend.write_secured(server, item, 1, 1, to_value(2))
    await backend.write_secured2(server, item, 1, 1, to_value(3), None)
    await backend.authenticate_user(server, "x", "y")
    with pytest.raises(MxError):
        await backend.archestra_user_to_id(server, "no guid")
    assert (await backend.suspend(server, item)).raw_category == 1
    await rig.event(lambda event: event.kind == "operation_complete")
    await backend.activate(server, item)
    await backend.un_advise(server, item)
    await backend.remove_item(server, item)
    await backend.unregister(server)

    assert rig.double.calls == [
        "register", "add_item", "advise", "add_item2", "add_buffered_item", "set_buffered_update_interval",
        "advise_supervisory", "write2", "write_secured", "write_secured2", "authenticate_user", "archestra_user_to_id",
        "suspend", "activate", "un_advise", "remove_item", "unregister",
    ]  # fmt: skip


async def test_an_older_object_lacks_the_newer_methods_only(start: Start) -> None:
    rig = await start(version=3)
    item = await rig.advised("Bench_001.Count")

    for call in (
        rig.backend.suspend(rig.server, item),
        rig.backend.write2(rig.server, item, to_value(1), None, 0),
        rig.backend.add_buffered_item(rig.server, "Bench_001.Count", ""),
    ):
        with pytest.raises(MxError, match="version 3") as missing:
            await call
        assert missing.value.hresult == E_NOTIMPL
    assert (await rig.written(item, 5)).success == -1


async def test_a_missing_licence_is_named(start: Start) -> None:
    rig = await start(denied=["Bench_001.Count"])

    with pytest.raises(MxError, match="run-time licence is missing") as refused:
        await rig.backend.add_item(rig.server, "Bench_001.Count")
    assert refused.value.hresult == E_ACCESSDENIED


async def test_a_name_with_a_nul_is_refused(start: Start) -> None:
    rig = await start()

    with pytest.raises(MxError, match="Value does not fall within the expected range"):
        await rig.backend.add_item(rig.server, "Bench_001\0.Count")
    assert "add_item" not in rig.double.calls


async def test_stop_takes_down_in_the_order_of_mxaccess(start: Start) -> None:
    rig = await start()
    await rig.advised("Bench_001.Count")
    await rig.backend.add_item(rig.server, "Bench_001.Amount")
    double, calls = rig.double, len(rig.double.calls)

    await rig.backend.stop()

    assert double.calls[calls:] == ["un_advise", "remove_item", "remove_item", "unregister", "release"]
    with pytest.raises(MxError, match="not running"):
        await rig.backend.add_item(rig.server, "Bench_001.Count")


async def test_nothing_of_an_item_comes_after_its_removal(start: Start) -> None:
    rig = await start()
    item = await rig.advised("AppEngine_001.ScanCount")
    seen_in_apartment = rig.double.events
    await rig.backend.remove_item(rig.server, item)
    rig.sink.take()

    def late() -> None:
        seen_in_apartment.data_change(rig.server, item, MxValue(integer=1), 192, None, "", ((-1, 0, 0, 0),))
        seen_in_apartment.write_complete(rig.server, item, ((-1, 0, 0, 0),))

    apartment = rig.backend._apartment
    assert apartment is not None
    await apartment.call("late events", late)
    await apartment.call("the end", lambda: None)

    assert rig.sink.take() == []


async def test_an_event_before_the_advise_has_returned_is_delivered(start: Start) -> None:
    rig = await start()
    item = await rig.backend.add_item(rig.server, "Bench_001.Count")
    double, real = rig.double, rig.double.advise

    def advise(server_handle: int, item_handle: int) -> None:
        double.events.data_change(server_handle, item_handle, MxValue(integer=41), 192, None, "", ((-1, 0, 0, 0),))
        real(server_handle, item_handle)

    double.advise = advise  # type: ignore[method-assign]
    await rig.backend.advise(rig.server, item)

    assert (await rig.value(item)).value == 41


async def test_an_event_that_cannot_be_read_is_a_gap(start: Start) -> None:
    rig = await start()
    apartment = rig.backend._apartment
    assert apartment is not None
    await apartment.call("an event", lambda: rig.double.events.unreadable("OnDataChange", "statuses of VARTYPE 0x3"))
    await until(lambda: bool(rig.sink.gaps))

    assert rig.sink.gaps == [
        (GAP_REASON_SOURCE_OVERFLOW, "an OnDataChange of MXAccess could not be read: statuses of VARTYPE 0x3", 1)
    ]


class _HeldApartment:
    """Keeps what is posted, as while the event loop is busy."""

    def __init__(self) -> None:
        self.posted: list[object] = []

    def post(self, callback: object) -> None:
        self.posted.append(callback)


async def test_what_the_event_loop_cannot_take_is_a_gap_at_its_place_and_completions_are_kept() -> None:
    sink = RecordingSink()
    order: list[object] = []
    sink.data_change = lambda *arguments: order.append(arguments[2].integer)  # type: ignore[method-assign]
    sink.write_complete = lambda *_arguments: order.append("completion")  # type: ignore[method-assign]
    sink.source_gap = lambda *arguments: order.append((arguments[0], arguments[2]))  # type: ignore[method-assign]
    events = Events(sink, _HeldApartment(), most_waiting=3)  # type: ignore[arg-type]
    events.items.add((1, 1))
    events.advised.add((1, 1))

    for number in range(6):
        events.data_change(1, 1, MxValue(integer=number), 192, None, "", ((-1, 0, 0, 0),))
    events.write_complete(1, 1, ((-1, 0, 0, 0),))
    await events.deliver()
    events.data_change(1, 1, MxValue(integer=6), 192, None, "", ((-1, 0, 0, 0),))
    await events.deliver()

    assert order == [0, 1, 2, (GAP_REASON_SOURCE_OVERFLOW, 3), "completion", 6]


async def test_a_call_that_hangs_is_told_and_then_ends_the_worker(start: Start) -> None:
    rig = await start({"slow_call_s": 0.1, "call_limit_s": 0.3}, hanging=["add_item"])
    rig.expected_failures = 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.backend.add_item(rig.server, "Bench_001.Count"))
        await until(lambda: bool(rig.sink.failures))
        rig.double.released.set()

    assert rig.sink.healths == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_DEGRADED]
    assert "has not returned from AddItem for 0.3 s (call_limit_s)" in rig.sink.failures[0]


async def test_a_slow_call_that_returns_is_good_again(start: Start) -> None:
    rig = await start({"slow_call_s": 0.1}, hanging=["add_item"])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.backend.add_item(rig.server, "Bench_001.Count"))
        await until(lambda: SOURCE_HEALTH_DEGRADED in rig.sink.healths)
        rig.double.released.set()
    await until(lambda: rig.sink.healths[-1] == SOURCE_HEALTH_GOOD)

    assert rig.sink.healths == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD]


async def test_a_backend_whose_call_hangs_stops_nevertheless(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_worker.backends.mxaccess.backend._STOP_S", 0.1)
    rig = await start(hanging=["add_item"])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.backend.add_item(rig.server, "Bench_001.Count"))
        await until(lambda: "add_item" in rig.double.calls)

        await rig.backend.stop()

        assert "release" not in rig.double.calls
        rig.double.released.set()
    await until(lambda: rig.doubled.pump.thread is None)


async def test_a_creation_that_hangs_is_refused_in_words() -> None:
    released = threading.Event()
    doubled = DoubledBackend({"start_limit_s": 0.1}, {})

    def connect(_events: object) -> object:
        released.wait()
        raise MxError(E_INVALIDARG, "too late")

    doubled.backend._make = connect  # type: ignore[assignment]
    with pytest.raises(BackendUnavailable, match=r"has not started within 0.1 s \(start_limit_s\)"):
        await doubled.backend.start(RecordingSink())
    released.set()
    await until(lambda: doubled.pump.thread is None)


async def test_a_thread_that_cannot_be_an_apartment_is_told() -> None:
    doubled = DoubledBackend({}, {})

    def enter() -> None:
        raise OSError("CoInitializeEx says no")

    doubled.pump.enter = enter  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable, match="no apartment for MXAccess: CoInitializeEx says no"):
        await doubled.backend.start(RecordingSink())


async def test_a_probe_tells_of_a_lost_platform_and_of_its_return(start: Start) -> None:
    rig = await start(
        {"probe": "AppEngine_001.ScanCount"}, {"controls": True, "recovery_delay_s": 0.01, "update_period_s": 0.02}
    )
    item = await rig.advised("Sim.PlatformDown")
    assert set(rig.sink.healths) == {SOURCE_HEALTH_GOOD}

    await rig.written(item, True)
    await until(lambda: rig.sink.healths[-1] == SOURCE_HEALTH_LOST)
    await rig.written(item, False)
    await until(lambda: rig.sink.healths[-1] == SOURCE_HEALTH_GOOD)

    assert all(event.server == rig.server for event in rig.sink.events)


async def test_a_probe_that_does_not_change_means_a_lost_platform(start: Start) -> None:
    rig = await start(
        {"probe": "Bench_001.Count", "probe_timeout_s": 0.1, "start_limit_s": 60.0},
    )
    await until(lambda: rig.sink.healths[-1] == SOURCE_HEALTH_LOST)


async def test_a_probe_without_a_licence_prevents_the_start() -> None:
    doubled = DoubledBackend({"probe": "X.Y"}, {}, denied=["X.Y"])

    with pytest.raises(BackendUnavailable, match=r"probe 'X.Y' cannot be advised: MXAccess refuses access"):
        await doubled.backend.start(RecordingSink())

    assert doubled.double is not None
    assert doubled.double.calls[-2:] == ["unregister", "release"]
    await until(lambda: doubled.pump.thread is None)


async def test_commands_given_to_an_apartment_that_has_ended_fail() -> None:
    doubled = DoubledBackend({}, {})
    apartment = Apartment(doubled.pump, "test")
    await apartment.start(lambda: None, "nothing")
    await apartment.end()

    with pytest.raises(RuntimeError, match="has ended"):
        await apartment.call("too late", lambda: None)


async def test_the_process_can_end_while_a_call_hangs() -> None:
    """The thread is a daemon: nothing waits for it."""
    doubled = DoubledBackend({}, {})
    apartment = Apartment(doubled.pump, "test")
    thread = await apartment.start(threading.current_thread, "nothing")

    assert thread.daemon
    await apartment.end()


async def test_attributes_are_listed_by_their_object(start: Start) -> None:
    rig = await start({"objects": ["Bench_001"]})
    (bench,) = await rig.backend.browse("")
    nodes = await rig.backend.browse(bench.path)

    assert (bench.name, bench.has_children, bench.reference) == ("Bench_001", True, "")
    count = next(node for node in nodes if node.name == "Count")
    assert (count.path, count.reference) == ("Bench_001.Count", "Bench_001.Count")
    assert rig.double.calls[-2:] == ["un_advise", "remove_item"]
    assert not rig.sink.events


async def test_what_cannot_be_listed_is_told(start: Start) -> None:
    rig = await start()

    with pytest.raises(MxError, match="cannot list objects"):
        await rig.backend.browse("")
    with pytest.raises(MxError, match="no object of this name"):
        await rig.backend.browse("Nobody")
    assert rig.double.calls[-2:] == ["un_advise", "remove_item"]


async def test_an_object_that_does_not_answer_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_worker.backends.mxaccess.browse._ANSWER_S", 0.05)
    rig = await start(silent=["Bench_001._Attributes"])

    with pytest.raises(MxError, match=r"has not named its attributes within 0.05 s"):
        await rig.backend.browse("Bench_001")
