"""Bulk calls: results in input order, one item's failure is its own, busy items come last."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import advance

from mxgw.convert import ok_status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.session_service_pb2 import ADVISE_KIND_PLAIN, ADVISE_KIND_SUPERVISORY
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio


def references(*names: str) -> list[c.ItemReference]:
    return [c.ItemReference(item_definition=name) for name in names]


def writes(*entries: tuple[int, float]) -> list[c.BulkWrite]:
    return [c.BulkWrite(item_handle=handle, value=to_value(value)) for handle, value in entries]


@pytest.mark.parametrize("supervisory", [False, True])
async def test_subscribing_adds_and_advises_in_order(inside, supervisory: bool) -> None:
    async with inside() as worker:
        h = await worker.register()
        items = [*references("A", "B"), c.ItemReference(item_definition="C", item_context="X")]
        reply = await worker.mx(
            c.MxCommand(subscribe_bulk={"server_handle": h, "items": items, "supervisory": supervisory})
        )
        advise = "advise_supervisory" if supervisory else "advise"

        assert [result.item_handle for result in reply.bulk.items] == [1, 2, 3]
        assert worker.backend.names()[1:] == ["add_item", advise, "add_item", advise, "add_item2", advise]
        kinds = {item.advise for item in worker.items.items.values()}
        assert kinds == {ADVISE_KIND_SUPERVISORY if supervisory else ADVISE_KIND_PLAIN}


async def test_one_failure_when_subscribing_fails_one_item_and_leaves_nothing_behind(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        worker.backend.failures["advise"] += [MxError(E_FAIL, "cannot advise"), RuntimeError("bug")]
        reply = await worker.mx(
            c.MxCommand(subscribe_bulk={"server_handle": h, "items": references("A", "B", "", "D")})
        )
        results = reply.bulk.items

        assert [(r.hresult, r.reason) for r in results] == [
            (E_FAIL, ""),
            (E_FAIL, "INTERNAL"),
            (E_INVALIDARG, ""),
            (0, ""),
        ]
        assert results[0].message == "cannot advise"
        assert list(worker.items.items) == list(worker.backend.items) == [(h, results[3].item_handle)]


async def test_unsubscribing_unadvises_and_removes_in_order(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B", advise=False)
        reply = await worker.mx(c.MxCommand(unsubscribe_bulk={"server_handle": h, "item_handles": [b, 77, a]}))

        assert [(r.item_handle, r.hresult) for r in reply.bulk.items] == [(b, 0), (77, E_INVALIDARG), (a, 0)]
        assert worker.backend.names()[-4:] == ["remove_item", "remove_item", "un_advise", "remove_item"]
        assert not worker.items.items


async def test_unsubscribing_does_not_let_a_busy_item_hold_up_the_others(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        await worker.mx(c.MxCommand(write_bulk={"server_handle": h, "writes": writes((a, 1.0))}))
        reply = worker.submit(c.MxCommand(unsubscribe_bulk={"server_handle": h, "item_handles": [a, b]}))
        await worker.backend.reached["remove_item"].wait()
        assert set(worker.backend.items) == {(h, a)}
        worker.backend.sink.write_complete(h, a, [ok_status()])

        assert [r.item_handle for r in (await reply).mx.bulk.items] == [a, b]
        assert not worker.backend.items


async def test_all_writes_are_issued_before_any_completion_is_awaited(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        handles = [await worker.add(h, name) for name in "ABC"]
        command = c.WriteBulkCommand(
            server_handle=h, writes=writes(*((i, float(i)) for i in handles)), wait_for_completion=True
        )
        reply = worker.submit(c.MxCommand(write_bulk=command))
        await worker.register()
        assert worker.backend.names().count("write") == 3
        for handle in reversed(handles):
            worker.backend.sink.write_complete(h, handle, [ok_status()])
        results = (await reply).mx.bulk.items

        assert [(r.item_handle, r.write.write_id, r.write.completed) for r in results] == [
            (1, 1, True),
            (2, 2, True),
            (3, 3, True),
        ]
        assert all(list(r.statuses) == [ok_status()] for r in results)


async def test_a_second_write_to_the_same_item_waits_for_the_first(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        command = c.WriteBulkCommand(server_handle=h, writes=writes((a, 1.0), (a, 2.0), (b, 3.0), (a, 4.0)))
        reply = worker.submit(c.MxCommand(write_bulk=command))
        await worker.register()
        assert [call[3].double for call in worker.backend.calls if call[0] == "write"] == [1.0, 3.0]
        worker.backend.completes_writes = True
        worker.backend.sink.write_complete(h, a, [ok_status()])
        results = (await reply).mx.bulk.items

        assert [call[3].double for call in worker.backend.calls if call[0] == "write"] == [1.0, 3.0, 2.0, 4.0]
        assert [(r.item_handle, r.write.write_id) for r in results] == [(a, 1), (a, 3), (b, 2), (a, 4)]


async def test_one_failure_when_writing_fails_one_entry(inside) -> None:
    async with inside() as worker:
        worker.backend.completes_writes = True
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        worker.backend.failures["write"] += [MxError(E_FAIL, "refused"), ValueError("bug")]
        entries = [*writes((a, 1.0), (a, 2.0), (99, 3.0)), c.BulkWrite(item_handle=b), *writes((b, 5.0))]
        reply = await worker.mx(
            c.MxCommand(write_bulk={"server_handle": h, "writes": entries, "wait_for_completion": True})
        )
        results = reply.bulk.items

        assert [(r.item_handle, r.hresult, r.reason) for r in results] == [
            (a, E_FAIL, ""),
            (a, E_FAIL, "INTERNAL"),
            (99, E_INVALIDARG, ""),
            (b, E_INVALIDARG, ""),
            (b, 0, ""),
        ]
        assert results[4].write.completed


async def test_a_missing_completion_fails_its_entry_alone(inside) -> None:
    async with inside(completion_timeout_s=20) as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        command = c.WriteBulkCommand(server_handle=h, writes=writes((a, 1.0), (b, 2.0)), wait_for_completion=True)
        reply = worker.submit(c.MxCommand(write_bulk=command))
        await worker.register()
        worker.backend.sink.write_complete(h, b, [ok_status()])
        await worker.register()
        advance(21)  # the completion is missed before the deadline of the command passes
        results = (await reply).mx.bulk.items

        assert [(r.hresult, r.reason, r.write.completed) for r in results] == [
            (E_FAIL, "WRITE_COMPLETION_MISSING", False),
            (0, "", True),
        ]


async def test_writes_with_a_time_have_write2_semantics(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a = await worker.add(h, "A")
        entry = c.BulkWrite(item_handle=a, value=to_value(1.0), time={"seconds": 5}, user_id=3)
        await worker.mx(c.MxCommand(write_bulk={"server_handle": h, "writes": [entry]}))

        assert worker.backend.calls[-1] == ("write2", h, a, to_value(1.0), 5_000_000_000, 3)


async def test_a_bulk_write_past_its_deadline_gives_back_every_turn(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        command = c.WriteBulkCommand(server_handle=h, writes=writes((a, 1.0), (b, 2.0), (a, 3.0), (b, 4.0)))
        late = worker.submit(c.MxCommand(write_bulk=command))
        await worker.register()  # it has begun to wait for its busy items
        advance(61)
        reply = await late
        for handle in (a, b):
            worker.backend.sink.write_complete(h, handle, [ok_status()])
        worker.backend.completes_writes = True
        after = await worker.mx(c.MxCommand(write_bulk={"server_handle": h, "writes": writes((a, 5.0), (b, 6.0))}))

        assert reply.failure.reason == "COMMAND_TIMED_OUT"
        assert [r.hresult for r in after.bulk.items] == [0, 0]
        assert [call[3].double for call in worker.backend.calls if call[0] == "write"] == [1.0, 2.0, 5.0, 6.0]


async def test_bulk_writes_that_cross_each_other_do_not_lock_up(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        await worker.mx(c.MxCommand(write_bulk={"server_handle": h, "writes": writes((a, 0.0), (b, 0.0))}))
        replies = [
            worker.submit(c.MxCommand(write_bulk={"server_handle": h, "writes": writes(*order)}))
            for order in (((a, 1.0), (b, 1.0)), ((b, 2.0), (a, 2.0)))
        ]
        await worker.register()  # both stand in line for all their items
        leave = worker.submit(c.MxCommand(unregister={"server_handle": h}))
        await worker.register()
        worker.backend.completes_writes = True
        for handle in (a, b):
            worker.backend.sink.write_complete(h, handle, [ok_status()])
        async with asyncio.timeout(60):
            for reply in replies:
                assert [r.hresult for r in (await reply).mx.bulk.items] == [0, 0]

            assert (await leave).mx.hresult == 0


async def test_an_unsubscription_past_its_deadline_gives_back_every_turn(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        a, b = await worker.add(h, "A"), await worker.add(h, "B")
        await worker.mx(c.MxCommand(write_bulk={"server_handle": h, "writes": writes((a, 1.0))}))
        hold = worker.backend.holds["un_advise"] = asyncio.Event()
        unsubscribe = c.MxCommand(unsubscribe_bulk={"server_handle": h, "item_handles": [a, b]})
        late = worker.submit(unsubscribe)
        await worker.backend.reached["un_advise"].wait()
        advance(61)
        reply = await late
        hold.set()
        worker.backend.sink.write_complete(h, a, [ok_status()])
        removed = await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": a}))

        assert reply.failure.reason == "COMMAND_TIMED_OUT"
        assert removed.hresult == 0
