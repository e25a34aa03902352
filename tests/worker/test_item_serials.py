"""Serials: never given twice, told before anything bears them, and compared in the moment of the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mxgw.convert import ok_status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetState
from mxgw_worker import items as items_module
from mxgw_worker.backends.base import E_INVALIDARG
from mxgw_worker.testing import ScriptedBackend
from mxgw_worker.testing.driver import running_worker

pytestmark = pytest.mark.asyncio


async def added(worker: Any, server: int, reference: str) -> tuple[int, int]:
    reply = await worker.mx(c.MxCommand(add_item=c.AddItemCommand(server_handle=server, item_definition=reference)))
    return reply.item_handle, reply.item_serial


async def removed(worker: Any, server: int, handle: int) -> None:
    await worker.mx(c.MxCommand(remove_item=c.RemoveItemCommand(server_handle=server, item_handle=handle)))


async def test_a_reused_handle_is_another_item_in_answers_state_and_events(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        old = await added(worker, server, "A")
        worker.backend.emit(server, old[0], 1.0)
        await removed(worker, server, old[0])
        new = await added(worker, server, "B")
        worker.backend.emit(server, new[0], 2.0)
        state = (await worker.submit(CommandRequest(get_state=GetState()))).state

        assert (old[0], old[1] < new[1]) == (new[0], True)
        assert [event.item_serial for event in worker.events()] == [old[1], new[1]]
        assert [item.item_serial for item in state.items] == [new[1]]


async def test_every_way_to_add_names_the_serial(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        replies = [
            await worker.mx(c.MxCommand(add_item=c.AddItemCommand(server_handle=h, item_definition="A"))),
            await worker.mx(
                c.MxCommand(add_item2=c.AddItem2Command(server_handle=h, item_definition="B", item_context="X"))
            ),
            await worker.mx(
                c.MxCommand(add_buffered_item=c.AddBufferedItemCommand(server_handle=h, item_definition="C"))
            ),
        ]
        items = [c.ItemReference(item_definition=name) for name in "DE"]
        bulk = await worker.mx(c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(server_handle=h, items=items)))
        serials = [reply.item_serial for reply in replies] + [item.item_serial for item in bulk.bulk.items]

        assert serials == [1, 2, 3, 4, 5]


async def test_an_event_of_a_handle_that_is_no_items_has_a_serial_that_is_no_items(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        _, serial = await added(worker, server, "A")
        for _ in range(2):
            worker.sink.data_change(server, 77, to_value(1.0), 192, None, [])
        strays = {event.item_serial for event in worker.events()}

        assert len(strays) == 2
        assert not strays & {0, serial}


# records


async def test_records_come_before_answers_and_events_and_ends_tell_the_head(attached) -> None:
    backend = ScriptedBackend()
    backend.first_values["A"] = [(to_value(1.0), 192, [])]
    async with attached(backend) as (driver, _):
        server = (await driver.mx(c.MxCommand(register=c.RegisterCommand(client_name="x")))).server_handle
        items = [c.ItemReference(item_definition="A")] * 3
        reply = await driver.mx(c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(server_handle=server, items=items)))
        handles = [item.item_handle for item in reply.bulk.items]

        assert [(r.item_serial, r.item_handle, r.item_definition) for r in driver.records] == [
            (item.item_serial, item.item_handle, "A") for item in reply.bulk.items
        ]

        unsubscribe = c.UnsubscribeBulkCommand(server_handle=server, item_handles=handles[:2])
        await driver.mx(c.MxCommand(unsubscribe_bulk=unsubscribe))

        assert [(r.item_handle, r.ended, r.last_sequence) for r in driver.records[3:]] == [
            (handle, True, 3) for handle in handles[:2]
        ]
        assert len(await driver.until_events(3)) == 3
        assert driver.unreported_serials == []


async def test_a_gateway_that_comes_anew_is_told_everything_before_ready_and_events(tmp_path: Path) -> None:
    options = {"profile": "load", "items": 20, "rate": 500.0}
    async with running_worker(tmp_path, "sim", options, orphan_lifetime_ms=60_000) as worker:
        await worker.mx(c.MxCommand(register=c.RegisterCommand(client_name="x")))
        state = (await worker.ask(CommandRequest(get_state=GetState(), timeout_ms=60_000))).state

        assert list(state.items) == []

        items = [c.ItemReference(item_definition=f"Load.Item{number:05d}") for number in range(1, 6)]
        bulk = (await worker.mx(c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=items)))).bulk
        gone = bulk.items[1]
        await removed(worker, 1, gone.item_handle)
        _, newest = await added(worker, 1, "Load.Item00001")
        await worker.until_events(20)
        await worker.disconnect()
        worker.events.clear()
        worker.records.clear()
        worker.unreported_serials.clear()
        await worker.accept()
        await worker.shake_hands()
        await worker.ready()
        told = list(worker.records)

        assert [r.item_serial for r in told] == sorted([*(i.item_serial for i in bulk.items), newest])
        assert [r.item_serial for r in told if r.ended] == [gone.item_serial]

        await worker.until_events(20)

        assert worker.unreported_serials == []
        assert worker.records == told


async def test_ended_items_are_told_of_as_far_as_they_are_kept_and_live_ones_always(inside, monkeypatch) -> None:
    monkeypatch.setattr(items_module, "ENDED_RECORDS_BYTES", 20_000)
    async with inside() as worker:
        server = await worker.register()
        _, live = await added(worker, server, "Live")
        for _ in range(300):
            handle, newest = await added(worker, server, "x" * 50)
            await removed(worker, server, handle)
        told = worker.items.records()

        assert [r.item_serial for r in told if not r.ended] == [live]
        assert [r.item_serial for r in told if r.ended] == list(range(newest - len(told) + 2, newest + 1))
        assert 50 < len(told) < 120
        assert worker.items.unsent() == ()


async def test_a_reference_that_fits_no_record_is_refused(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        command = c.AddItem2Command(server_handle=server, item_definition="x" * 5000, item_context="y" * 5000)

        assert (await worker.mx(c.MxCommand(add_item2=command))).hresult == E_INVALIDARG
        assert worker.backend.names()[1:] == []


# the comparison

ONE_ITEM = {
    "write": {"value": to_value(1.0)},
    "write2": {"value": to_value(1.0)},
    "write_secured": {"value": to_value(1.0)},
    "write_secured2": {"value": to_value(1.0)},
    "advise": {},
    "advise_supervisory": {},
    "un_advise": {},
    "remove_item": {},
    "suspend": {},
    "activate": {},
}


def of_item(method: str, server: int, handle: int) -> c.MxCommand:
    return c.MxCommand(**{method: {"server_handle": server, "item_handle": handle, **ONE_ITEM[method]}})


@pytest.mark.parametrize("method", ONE_ITEM)
@pytest.mark.parametrize("was_an_item", [True, False], ids=["another item", "no item"])
async def test_a_handle_that_means_another_item_than_was_judged_is_refused(
    inside, method: str, was_an_item: bool
) -> None:
    async with inside() as worker:
        server = await worker.register()
        handle, judged = await added(worker, server, "Permitted")
        await removed(worker, server, handle)
        # Judged while the handle was the first item's, or nobody's; the rest lines up before it.
        hold = worker.backend.holds["add_item"] = worker.backend.reached["never"]
        adding = worker.submit(
            c.MxCommand(add_item=c.AddItemCommand(server_handle=server, item_definition="Forbidden"))
        )
        serials = [judged if was_an_item else 0]
        using = worker.submit(CommandRequest(mx=of_item(method, server, handle), item_serials=serials))
        hold.set()
        reply = (await using).mx

        assert (await adding).mx.item_handle == handle
        assert reply.reason == "ITEM_CHANGED"
        assert method not in worker.backend.names()[4:]

        serials = [(await adding).mx.item_serial]
        used = (await worker.submit(CommandRequest(mx=of_item(method, server, handle), item_serials=serials))).mx

        assert used.reason == ""
        assert method in worker.backend.names()[4:]


async def test_a_write_that_waited_behind_another_is_compared_when_its_turn_comes(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        handle = await worker.add(server, "A")
        serial = worker.items.serial_of(server, handle)
        write = of_item("write", server, handle)
        first = worker.submit(CommandRequest(mx=write, item_serials=[serial]))
        second = worker.submit(CommandRequest(mx=write, item_serials=[serial + 1]))
        await first
        worker.sink.write_complete(server, handle, [ok_status()])

        assert (await second).mx.reason == "ITEM_CHANGED"
        assert worker.backend.names().count("write") == 1


@pytest.mark.parametrize("method", ["write_bulk", "unsubscribe_bulk"])
@pytest.mark.parametrize("is_busy", [False, True], ids=["at once", "deferred"])
async def test_of_a_bulk_call_only_the_entries_whose_item_changed_are_refused(
    inside, method: str, is_busy: bool
) -> None:
    async with inside() as worker:
        server = await worker.register()
        handles = [await worker.add(server, name) for name in "ABC"]
        serials = [worker.items.serial_of(server, handle) for handle in handles]
        serials[1] += 1000
        if is_busy:
            for handle in handles:
                await worker.mx(of_item("write", server, handle))
        if method == "write_bulk":
            writes = [c.BulkWrite(item_handle=handle, value=to_value(2.0)) for handle in handles]
            command = c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=server, writes=writes))
        else:
            command = c.MxCommand(unsubscribe_bulk=c.UnsubscribeBulkCommand(server_handle=server, item_handles=handles))
        before = len(worker.backend.calls)
        asked = worker.submit(CommandRequest(mx=command, item_serials=serials))
        if is_busy:
            for handle in handles:
                worker.sink.write_complete(server, handle, [ok_status()])
        results = (await asked).mx.bulk.items
        touched = [call[2] for call in worker.backend.calls[before:] if call[0] in ("write", "remove_item")]

        assert [result.reason for result in results] == ["", "ITEM_CHANGED", ""]
        assert touched == [handles[0], handles[2]]


async def test_judged_serials_that_are_too_few_refuse_the_rest(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        handles = [await worker.add(server, name) for name in "AB"]
        writes = [c.BulkWrite(item_handle=handle, value=to_value(2.0)) for handle in handles]
        command = c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=server, writes=writes))
        serials = [worker.items.serial_of(server, handles[0])]
        reply = (await worker.submit(CommandRequest(mx=command, item_serials=serials))).mx

        assert [result.reason for result in reply.bulk.items] == ["", "ITEM_CHANGED"]


@pytest.mark.parametrize("method", ONE_ITEM)
async def test_a_hidden_item_of_a_read_is_nobody_elses(inside, method: str) -> None:
    async with inside() as worker:
        server = await worker.register()
        items = [c.ItemReference(item_definition="A")]
        reading = worker.submit(c.MxCommand(read_bulk=c.ReadBulkCommand(server_handle=server, items=items)))
        while not worker.items.hidden:
            await worker.submit(CommandRequest(get_state=GetState()))
        ((_, handle),) = worker.items.hidden
        before = len(worker.backend.calls)
        free = (await worker.submit(of_item(method, server, handle))).mx
        limited = (await worker.submit(CommandRequest(mx=of_item(method, server, handle), item_serials=[0]))).mx

        assert (free.hresult, limited.reason) == (E_INVALIDARG, "ITEM_CHANGED")
        assert worker.backend.calls[before:] == []

        worker.backend.emit(server, handle, 1.0)

        assert (await reading).mx.bulk.items[0].item_serial == 0
