"""Last values, events of every kind, and what the worker tells of itself."""

from __future__ import annotations

import logging

import pytest

from mxgw.convert import ok_status, status, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import events_pb2 as e
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.session_service_pb2 import ADVISE_KIND_PLAIN
from mxgw.v1.values_pb2 import QUALITY_GOOD
from mxgw.worker.v1.worker_pb2 import Browse, CommandRequest, GetInfo, GetState, WorkerGap
from mxgw_worker.testing import BrowsableScriptedBackend

pytestmark = pytest.mark.asyncio

FAILED = status(0, 3, 1, 2)


async def state_of(worker, **query: object):
    return (await worker.submit(CommandRequest(get_state=GetState(**query)))).state


async def test_the_four_kinds_of_events_are_numbered_in_order(inside) -> None:
    async with inside() as worker:
        sink = worker.backend.sink
        sink.data_change(1, 2, to_value(1.5), 192, 5, [ok_status()], "raw")
        sink.write_complete(1, 2, [FAILED])
        sink.operation_complete(1, 2, [ok_status()])
        sink.buffered_data_change(1, 2, 4, to_value([1.0, 2.0]), [192, 0], [1, 2], [ok_status()])
        change, write, operation, buffered = worker.events()

        assert [event.sequence for event in worker.events()] == [1, 2, 3, 4]
        assert [event.kind for event in worker.events()] == [1, 2, 3, 4]
        assert (change.data_change.raw_source_time, change.data_change.quality) == ("raw", QUALITY_GOOD)
        assert list(write.write_complete.statuses) == [FAILED]
        assert list(operation.operation_complete.statuses) == [ok_status()]
        assert list(buffered.buffered_data_change.raw_qualities) == [192, 0]
        assert buffered.buffered_data_change.raw_data_type == 4


async def test_a_failure_is_forwarded_but_does_not_replace_a_good_value(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, 1.0)
        worker.backend.sink.data_change(h, i, to_value(None), 0, None, [FAILED])
        (item,) = (await state_of(worker, include_values=True)).items

        assert len(worker.events()) == 2
        assert (item.last_sequence, item.last_value.value.double) == (1, 1.0)


async def test_without_a_good_value_the_last_failure_is_kept_until_one_comes(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        seen = []
        for value, statuses in ((None, [FAILED]), (None, [ok_status(), FAILED]), (2.0, [ok_status()])):
            worker.backend.sink.data_change(h, i, to_value(value), 0, None, statuses)
            seen.append((await state_of(worker)).items[0].last_sequence)

        assert seen == [1, 2, 3]


@pytest.mark.parametrize("how", ["remove_item", "unregister"])
async def test_a_reused_handle_does_not_inherit_a_value(inside, how: str) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, 1.0)
        if how == "remove_item":
            await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": i}))
        else:
            await worker.mx(c.MxCommand(unregister={"server_handle": h}))
            assert await worker.register() == h
        assert await worker.add(h, "B") == i
        (item,) = (await state_of(worker, include_values=True)).items

        assert (item.item_definition, item.last_sequence, item.HasField("last_value")) == ("B", 0, False)


async def test_an_event_that_cannot_be_encoded_becomes_a_gap_and_not_an_exception(inside, caplog) -> None:
    async with inside() as worker:
        with caplog.at_level(logging.ERROR):
            worker.backend.sink.data_change(1, 2**40, to_value(1.0), 192, None, [])
            worker.backend.sink.operation_complete(1, 2, [None])  # type: ignore[list-item]
        gaps = [worker.outbox.take(1000), worker.outbox.take(1000)]

        assert [gap.reason for gap in gaps if isinstance(gap, WorkerGap)] == [e.GAP_REASON_SOURCE_OVERFLOW] * 2
        assert "cannot be encoded" in caplog.text


async def test_a_value_too_large_for_a_frame_is_a_gap(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, "x" * 70_000)
        gap = worker.outbox.take(1000)

        assert isinstance(gap, WorkerGap)
        assert gap.reason == e.GAP_REASON_EVENT_TOO_LARGE
        # It would not fit an answer either.
        assert not (await state_of(worker, include_values=True)).items[0].HasField("last_value")


async def test_a_gap_of_the_source_takes_its_place(inside) -> None:
    async with inside() as worker:
        worker.backend.sink.source_gap(e.GAP_REASON_SOURCE_RECONNECTED, "was away", 3)
        gap = worker.outbox.take(1000)

        assert gap == WorkerGap(
            first_lost=1, last_lost=1, reason=e.GAP_REASON_SOURCE_RECONNECTED, detail="was away", count=3
        )


async def test_a_backend_beyond_repair_is_reported(inside) -> None:
    async with inside() as worker:
        worker.backend.sink.failed("the thread died")

        assert worker.failure == "the thread died"


async def test_the_state_tells_registrations_items_and_position(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        command = c.AddItem2Command(server_handle=h, item_definition="B", item_context="X")
        await worker.mx(c.MxCommand(add_item2=command))
        await worker.mx(c.MxCommand(add_buffered_item={"server_handle": h, "item_definition": "C"}))
        await worker.mx(c.MxCommand(write={"server_handle": h, "item_handle": i, "value": to_value(1.0)}))
        await worker.mx(c.MxCommand(suspend={"server_handle": h, "item_handle": i}))
        state = await state_of(worker)
        first, second, third = state.items

        assert state.position == e.Position(epoch=worker.outbox.epoch, sequence=1)
        assert [(r.server_handle, r.client_name) for r in state.registrations] == [(h, "test")]
        assert (first.advise, first.suspended, first.writes_in_flight) == (ADVISE_KIND_PLAIN, True, 1)
        assert (second.item_definition, second.item_context) == ("B", "X")
        assert third.buffered


async def test_pages_of_the_state_stay_right_while_items_go(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        for name in "ABCDE":
            await worker.add(h, name)
        first = await state_of(worker, page_size=2)
        await worker.mx(c.MxCommand(remove_item={"server_handle": h, "item_handle": 2}))
        second = await state_of(worker, page_size=2, page_token=first.next_page_token)
        third = await state_of(worker, page_size=2, page_token=second.next_page_token)
        handles = [[item.item_handle for item in page.items] for page in (first, second, third)]

        assert handles == [[1, 2], [3, 4], [5]]
        assert (first.total_items, third.next_page_token) == (5, "")


async def test_a_page_of_the_state_never_outgrows_a_frame(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        for name in "ABCD":
            worker.backend.emit(h, await worker.add(h, name), "x" * 20_000)
        sizes, token = [], ""
        while True:
            page = await state_of(worker, include_values=True, page_token=token)
            sizes.append(len(page.items))
            if not (token := page.next_page_token):
                break

        assert sizes == [2, 2]


@pytest.mark.parametrize("token", ["x", "1.2", "1.2.00000000", "-1.0.00000000", "1.2.3.4", "\u0661.\u0662.00000000"])
async def test_a_token_that_was_not_handed_out_is_refused(inside, token: str) -> None:
    async with inside(BrowsableScriptedBackend()) as worker:
        for request in (
            CommandRequest(get_state=GetState(page_token=token)),
            CommandRequest(browse=Browse(page_token=token)),
        ):
            assert (await worker.submit(request)).failure.reason == "BAD_PAGE_TOKEN"


def nodes(*names: str) -> list[BrowseNode]:
    return [BrowseNode(name=name, path=name) for name in names]


async def test_browsing_pages_and_filters(inside) -> None:
    backend = BrowsableScriptedBackend()
    async with inside(backend) as worker:
        backend.nodes[""] = nodes("Tank1", "Pump", "tank2", "BigTANK", "Tank3")

        async def page(**query: object):
            return (await worker.submit(CommandRequest(browse=Browse(**query)))).browse

        first = await page(name_contains="tAnK", page_size=3)
        second = await page(name_contains="tAnK", page_size=3, page_token=first.next_page_token)
        everything = await page()

        assert [node.name for node in first.nodes] == ["Tank1", "tank2", "BigTANK"]
        assert [node.name for node in second.nodes] == ["Tank3"]
        assert second.next_page_token == ""
        assert len(everything.nodes) == 5


async def test_a_browse_token_belongs_to_its_query(inside) -> None:
    backend = BrowsableScriptedBackend()
    async with inside(backend) as worker:
        backend.nodes[""] = backend.nodes["P"] = nodes("A", "B")
        token = (await worker.submit(CommandRequest(browse=Browse(page_size=1)))).browse.next_page_token
        reply = await worker.submit(CommandRequest(browse=Browse(parent="P", page_size=1, page_token=token)))

        assert reply.failure.reason == "BAD_PAGE_TOKEN"


async def test_a_page_of_nodes_never_outgrows_a_frame(inside) -> None:
    backend = BrowsableScriptedBackend()
    async with inside(backend) as worker:
        backend.nodes[""] = [BrowseNode(name=str(n), description="x" * 20_000) for n in range(5)]
        page = (await worker.submit(CommandRequest(browse=Browse()))).browse

        assert len(page.nodes) == 2
        assert page.next_page_token


async def test_a_node_that_is_not_there_and_a_backend_that_cannot_browse_say_so(inside) -> None:
    async with inside(BrowsableScriptedBackend()) as worker:
        reply = await worker.submit(CommandRequest(browse=Browse(parent="nowhere")))

        assert (reply.failure.reason, reply.failure.detail) == ("BROWSE_NODE_NOT_FOUND", "no node 'nowhere'")
    async with inside() as worker:
        reply = await worker.submit(CommandRequest(browse=Browse()))

        assert reply.failure.reason == "BROWSE_NOT_SUPPORTED"


async def test_the_worker_tells_its_figures(inside) -> None:
    async with inside() as worker:
        h = await worker.register()
        i = await worker.add(h, "A")
        worker.backend.emit(h, i, 1.0)
        worker.backend.sink.source_health(e.SOURCE_HEALTH_DEGRADED, "half of it")
        info = (await worker.submit(CommandRequest(get_info=GetInfo()))).info

        assert (info.backend, info.items, info.head_sequence, info.outbox_oldest) == ("scripted 1", 1, 1, 1)
        assert (info.outbox_events, info.outbox_bytes) == (1, worker.outbox.size_bytes)
        assert (info.source_health, info.source_detail) == (e.SOURCE_HEALTH_DEGRADED, "half of it")
        assert info.rss_bytes > 1_000_000
        assert info.started_at.seconds > 1_700_000_000
