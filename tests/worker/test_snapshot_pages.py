"""The pages of a snapshot are of one position and fit each other, whatever happens between them."""

from __future__ import annotations

from typing import Any

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetSnapshot, GetState

pytestmark = pytest.mark.asyncio

# Room for two items of the scripted backend's values, and for no third.
TWO = 118


async def page(worker: Any, **query: object) -> Any:
    reply = await worker.submit(CommandRequest(get_snapshot=GetSnapshot(**query)))
    return reply.snapshot if reply.HasField("snapshot") else reply.failure


def items_of(*pages: Any) -> list[e.SnapshotItem]:
    return [item for page in pages for item in e.Snapshot.FromString(page.items).items]


async def filled(worker: Any, items: int = 5) -> tuple[int, list[int]]:
    """Return a server handle and items that have a first value each."""
    server = await worker.register()
    handles = [await worker.add(server, f"Item{number}") for number in range(items)]
    for number, handle in enumerate(handles):
        worker.backend.emit(server, handle, float(number))
    return server, handles


async def test_all_pages_are_of_the_position_of_the_first_while_values_go_on(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        first = await page(worker, page_bytes=TWO)
        for handle in handles:
            worker.backend.emit(server, handle, 100.0)
        second = await page(worker, page_bytes=TWO, page_token=first.next_page_token)
        third = await page(worker, page_bytes=TWO, page_token=second.next_page_token)
        pages = (first, second, third)

        assert [p.sequence for p in pages] == [5, 5, 5]
        assert [len(items_of(p)) for p in pages] == [2, 2, 1]
        assert [(i.server_handle, i.item_handle, i.sequence, i.value.value.double) for i in items_of(*pages)] == [
            (server, handle, number + 1, float(number)) for number, handle in enumerate(handles)
        ]
        assert third.next_page_token == ""

        anew = await page(worker)

        assert anew.sequence == 10
        assert {i.value.value.double for i in items_of(anew)} == {100.0}


async def test_items_that_go_or_are_unadvised_meanwhile_are_shown_as_they_were(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        first = await page(worker, page_bytes=TWO)
        await worker.mx(c.MxCommand(un_advise=c.UnAdviseCommand(server_handle=server, item_handle=handles[3])))
        await worker.mx(c.MxCommand(remove_item=c.RemoveItemCommand(server_handle=server, item_handle=handles[4])))
        rest = await page(worker, page_token=first.next_page_token)

        assert [i.item_handle for i in items_of(first, rest)] == handles

        anew = await page(worker)

        assert [i.item_handle for i in items_of(anew)] == handles[:3]


async def test_an_item_without_a_value_yet_is_not_shown(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        await worker.add(server, "Silent")

        assert [i.item_handle for i in items_of(await page(worker))] == handles


async def test_answers_to_several_do_not_mix(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        one = await page(worker, page_bytes=TWO)
        worker.backend.emit(server, handles[4], 100.0)
        other = await page(worker, page_bytes=TWO)
        rest_of_other = await page(worker, page_token=other.next_page_token)
        rest_of_one = await page(worker, page_token=one.next_page_token)

        assert [p.sequence for p in (rest_of_one, rest_of_other)] == [5, 6]
        assert items_of(rest_of_one)[-1].value.value.double == 4.0
        assert items_of(rest_of_other)[-1].value.value.double == 100.0


async def test_of_too_many_answers_under_way_the_oldest_begins_anew(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        firsts = [await page(worker, page_bytes=TWO) for _ in range(9)]
        refused = await page(worker, page_token=firsts[0].next_page_token)

        assert refused.reason == "BAD_PAGE_TOKEN"

        for first in firsts[1:]:
            assert len(items_of(await page(worker, page_token=first.next_page_token))) == 3


async def test_an_answer_that_is_complete_is_kept_no_longer(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        first = await page(worker, page_bytes=TWO)
        last = await page(worker, page_token=first.next_page_token)

        assert last.next_page_token == ""
        assert (await page(worker, page_token=first.next_page_token)).reason == "BAD_PAGE_TOKEN"


async def test_a_page_holds_one_item_at_least_and_never_outgrows_a_frame(inside) -> None:
    async with inside() as worker:
        server = await worker.register()
        for name in "ABCD":
            worker.backend.emit(server, await worker.add(server, name), "x" * 20_000)
        for page_bytes, sizes in ((1, [1, 1, 1, 1]), (1 << 30, [2, 2])):
            pages = [await page(worker, page_bytes=page_bytes)]
            while pages[-1].next_page_token:
                pages.append(await page(worker, page_bytes=page_bytes, page_token=pages[-1].next_page_token))

            assert [len(items_of(p)) for p in pages] == sizes


async def test_pages_of_a_snapshot_and_of_the_state_are_no_pages_of_each_other(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        one = await page(worker, page_bytes=TWO)
        state = (await worker.submit(CommandRequest(get_state=GetState(page_size=2)))).state
        crossed = await worker.submit(CommandRequest(get_state=GetState(page_token=one.next_page_token)))

        assert crossed.failure.reason == "BAD_PAGE_TOKEN"
        assert (await page(worker, page_token=state.next_page_token)).reason == "BAD_PAGE_TOKEN"
