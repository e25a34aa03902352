"""ReadBulk: from the last value, or by an item nobody sees."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import advance

from mxgw.convert import ok_status, status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.commands_pb2 import MxReply
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetInfo, GetState
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio

INITIALISING = (to_value(None), 32, [ok_status()])


def read(server: int, *names: str, timeout_ms: int = 0) -> c.MxCommand:
    command = c.ReadBulkCommand(server_handle=server, items=[c.ItemReference(item_definition=name) for name in names])
    if timeout_ms:
        command.timeout.FromMilliseconds(timeout_ms)
    return c.MxCommand(read_bulk=command)


def values(reply: MxReply) -> list[float]:
    return [result.value.value.double for result in reply.bulk.items]


async def until_removed(worker) -> None:
    """Wait for the clearing up after a read: it stands in line before any later command."""
    await worker.register()
    assert not worker.items.hidden


async def test_an_advised_item_is_answered_from_its_last_value_and_left_alone(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, 1.0)
        worker.backend.emit(h, i, 2.0)
        calls = len(worker.backend.calls)
        (result,) = (await worker.mx(read(h, "A"))).bulk.items

        assert (result.value.value.double, result.was_cached, result.item_handle) == (2.0, True, i)
        assert len(worker.backend.calls) == calls


async def test_any_other_item_is_added_advised_and_removed_without_a_trace(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["A"] = [(to_value(7.0), 192, [ok_status()])]
        (result,) = (await worker.mx(read(h, "A"))).bulk.items
        await until_removed(worker)
        state = await worker.submit(CommandRequest(get_state=GetState()))
        info = await worker.submit(CommandRequest(get_info=GetInfo()))

        assert (result.value.value.double, result.was_cached, result.item_handle) == (7.0, False, 0)
        assert worker.backend.names()[1:-1] == ["add_item", "advise", "un_advise", "remove_item"]
        assert worker.events() == []
        assert state.state.total_items == info.info.items == 0


async def test_a_hidden_item_stays_out_of_the_state_while_it_lives(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        reply = worker.submit(read(h, "A"))
        await worker.backend.reached["advise"].wait()
        state = await worker.submit(CommandRequest(get_state=GetState()))
        worker.backend.emit(h, 1, 1.0)
        await reply

        assert state.state.total_items == 0


async def test_a_context_makes_it_additem2_and_another_item(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        plain = await worker.add(h, "B")
        worker.backend.emit(h, plain, 1.0)
        worker.backend.first_values["A.B"] = [(to_value(2.0), 192, [ok_status()])]
        command = c.ReadBulkCommand(server_handle=h, items=[{"item_definition": "B", "item_context": "A"}])

        assert values(await worker.mx(c.MxCommand(read_bulk=command))) == [2.0]


@pytest.mark.parametrize(
    ("quality", "statuses"),
    [
        (32, [ok_status()]),
        (32 | 3, [ok_status()]),
        (65536 | 32, [ok_status()]),
        (0, [status(0, 3, 1, 11)]),
        (0, [status(0, 3, 1, 12)]),
        (0, [status(0, 3, 1, 1010)]),
        (192, [ok_status(), status(-1, 1, 1, 1011)]),
    ],
)
async def test_a_value_that_is_only_initialising_is_waited_out(inside, quality, statuses) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["A"] = [
            (to_value(1.0), quality, statuses),
            (to_value(2.0), 192, [ok_status()]),
            (to_value(3.0), 192, [ok_status()]),
        ]

        assert values(await worker.mx(read(h, "A"))) == [2.0]


async def test_a_failure_status_is_an_answer(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        wrong = status(0, 4, 1, 6)
        worker.backend.first_values["A"] = [(to_value(None), 0, [wrong])]
        (result,) = (await worker.mx(read(h, "A"))).bulk.items

        assert (result.hresult, list(result.value.statuses)) == (0, [wrong])


async def test_at_the_deadline_what_came_is_returned_as_timed_out(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["A"] = [INITIALISING]
        worker.backend.first_values["C"] = [(to_value(3.0), 192, [ok_status()])]
        results = (await worker.mx(read(h, "A", "B", "C", timeout_ms=20))).bulk.items

        assert [(r.hresult, r.reason, r.HasField("value")) for r in results] == [
            (E_FAIL, "READ_TIMED_OUT", True),
            (E_FAIL, "READ_TIMED_OUT", False),
            (0, "", True),
        ]
        assert results[0].value.raw_quality == 32
        await until_removed(worker)


async def test_the_setting_caps_the_timeout(inside) -> None:
    async with inside(read_timeout_s=0.02) as worker:
        h = await worker.register()
        async with asyncio.timeout(60):
            results = (await worker.mx(read(h, "A", timeout_ms=600_000), timeout_ms=900_000)).bulk.items

        assert results[0].reason == "READ_TIMED_OUT"


@pytest.mark.parametrize("late_s", [0.0, 0.02, 100.0])
async def test_a_read_answers_with_what_came_at_the_deadline_of_its_command(inside, late_s) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["B"] = [(to_value(3.0), 192, [ok_status()])]
        reply = worker.submit(read(h, "A", "B"), timeout_ms=100_000)
        await worker.backend.reached["advise"].wait()
        # The loop gets its turn when the read is about to be over, when it is, or when all its time is long gone.
        advance(9.99 + late_s)
        results = (await reply).mx.bulk.items

        assert [r.reason for r in results] == ["READ_TIMED_OUT", ""]


async def test_a_read_past_the_deadline_of_its_command_has_an_answer_all_the_same(inside) -> None:
    async with inside(read_timeout_s=600) as worker:
        h = await worker.register()
        reply = worker.submit(read(h, "A"), timeout_ms=60_000)
        await worker.backend.reached["advise"].wait()
        advance(61)  # past the time it waits and the deadline, which are half a second apart

        assert (await reply).mx.bulk.items[0].reason == "READ_TIMED_OUT"


async def test_many_items_are_all_advised_before_any_is_awaited(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        reply = worker.submit(read(h, "A", "B", "C"))
        await worker.register()
        assert worker.backend.names().count("advise") == 3
        assert not reply.done()
        for handle in (3, 1, 2):
            worker.backend.emit(h, handle, float(handle))

        assert values((await reply).mx) == [1.0, 2.0, 3.0]


async def test_an_advised_item_without_a_real_value_is_awaited_and_kept(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, None, quality=32)
        reply = worker.submit(read(h, "A"))
        await worker.register()
        worker.backend.emit(h, i, 5.0)
        (result,) = (await reply).mx.bulk.items

        assert (result.value.value.double, result.was_cached, result.item_handle) == (5.0, False, i)
        assert "remove_item" not in worker.backend.names()
        assert len(worker.events()) == 2
        assert worker.items.get(h, i).readings == {}


async def test_items_that_are_not_advised_or_suspended_or_buffered_are_not_answered_from(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["A"] = [(to_value(2.0), 192, [ok_status()])]
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, 1.0)
        await worker.mx(c.MxCommand(suspend={"server_handle": h, "item_handle": i}))
        suspended = await worker.mx(read(h, "A"))
        await worker.mx(c.MxCommand(activate={"server_handle": h, "item_handle": i}))
        await worker.mx(c.MxCommand(un_advise={"server_handle": h, "item_handle": i}))
        unadvised = await worker.mx(read(h, "A"))

        assert values(suspended) == values(unadvised) == [2.0]
        assert not any(reply.bulk.items[0].was_cached for reply in (suspended, unadvised))


async def test_one_failure_fails_one_item_and_leaves_nothing_behind(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["C"] = [(to_value(3.0), 192, [ok_status()])]
        worker.backend.failures["add_item"] += [MxError(E_INVALIDARG, "bad name")]
        worker.backend.failures["advise"] += [RuntimeError("bug")]
        results = (await worker.mx(read(h, "A", "B", "C", ""))).bulk.items
        await until_removed(worker)

        assert [(r.hresult, r.reason) for r in results] == [
            (E_INVALIDARG, ""),
            (E_FAIL, "INTERNAL"),
            (0, ""),
            (E_INVALIDARG, ""),
        ]
        assert not worker.backend.items


async def test_an_item_the_backend_does_not_let_go_of_stays_hidden(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.first_values["A"] = [(to_value(1.0), 192, [ok_status()])]
        worker.backend.failures["remove_item"].append(MxError(E_FAIL, "no"))
        await worker.mx(read(h, "A"))
        await worker.register()
        worker.backend.emit(h, 1, 2.0)

        assert worker.events() == []
        assert len(worker.items) == 1
        # The backend lets go in the end and gives the handle out again: now it is an item like any other.
        worker.backend.items.clear()
        assert await worker.add(h, "B") == 1
        worker.backend.emit(h, 1, 3.0)
        assert len(worker.events()) == 1
        assert len(worker.items) == 1


async def test_a_read_under_an_unregistered_handle_ends(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        reply = worker.submit(read(h, "A", timeout_ms=50))
        await worker.backend.reached["advise"].wait()
        await worker.mx(c.MxCommand(unregister={"server_handle": h}))

        assert (await reply).mx.bulk.items[0].reason == "READ_TIMED_OUT"
        assert not worker.items.hidden


async def test_cancelling_a_read_removes_its_items(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.submit(read(h, "A"))
        await worker.backend.reached["advise"].wait()
        await worker.dispatcher.cancel()

        assert not worker.backend.items


async def test_a_handle_that_is_in_use_is_not_taken_from_its_owner(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.items.clear()  # a backend that forgot: it will give the handle out again
        (result,) = (await worker.mx(read(h, "B"))).bulk.items

        assert (result.hresult, result.reason) == (E_FAIL, "INTERNAL")
        assert worker.items.get(h, i) is not None
        assert "remove_item" not in worker.backend.names()
