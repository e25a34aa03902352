"""Pages that are of one position fit each other, whatever happens between them."""

from __future__ import annotations

from typing import Any

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, ADVISE_KIND_PLAIN
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetState

pytestmark = pytest.mark.asyncio


async def page(worker: Any, **query: object) -> Any:
    reply = await worker.submit(CommandRequest(get_state=GetState(include_values=True, of_one_position=True, **query)))
    return reply.state if reply.HasField("state") else reply.failure


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
        first = await page(worker, page_size=2)
        for handle in handles:
            worker.backend.emit(server, handle, 100.0)
        second = await page(worker, page_size=2, page_token=first.next_page_token)
        third = await page(worker, page_size=2, page_token=second.next_page_token)
        pages = (first, second, third)

        assert [p.position.sequence for p in pages] == [5, 5, 5]
        assert [(i.last_sequence, i.last_value.value.double) for p in pages for i in p.items] == [
            (1, 0.0),
            (2, 1.0),
            (3, 2.0),
            (4, 3.0),
            (5, 4.0),
        ]
        assert third.next_page_token == ""

        anew = await page(worker)

        assert anew.position.sequence == 10
        assert {i.last_value.value.double for i in anew.items} == {100.0}


async def test_items_that_go_or_are_unadvised_meanwhile_are_shown_as_they_were(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        first = await page(worker, page_size=3)
        await worker.mx(c.MxCommand(un_advise=c.UnAdviseCommand(server_handle=server, item_handle=handles[3])))
        await worker.mx(c.MxCommand(remove_item=c.RemoveItemCommand(server_handle=server, item_handle=handles[4])))
        rest = await page(worker, page_token=first.next_page_token)

        assert [(i.item_handle, i.advise) for i in rest.items] == [
            (handles[3], ADVISE_KIND_PLAIN),
            (handles[4], ADVISE_KIND_PLAIN),
        ]

        anew = await page(worker)

        assert [i.item_handle for i in anew.items] == handles[:4]
        assert anew.items[3].advise == ADVISE_KIND_NONE


async def test_answers_to_several_do_not_mix(inside) -> None:
    async with inside() as worker:
        server, handles = await filled(worker)
        one = await page(worker, page_size=2)
        worker.backend.emit(server, handles[4], 100.0)
        other = await page(worker, page_size=2)
        rest_of_other = await page(worker, page_token=other.next_page_token)
        rest_of_one = await page(worker, page_token=one.next_page_token)

        assert [p.position.sequence for p in (rest_of_one, rest_of_other)] == [5, 6]
        assert rest_of_one.items[-1].last_value.value.double == 4.0
        assert rest_of_other.items[-1].last_value.value.double == 100.0


async def test_of_too_many_answers_under_way_the_oldest_begins_anew(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        firsts = [await page(worker, page_size=2) for _ in range(9)]
        refused = await page(worker, page_token=firsts[0].next_page_token)

        assert refused.reason == "BAD_PAGE_TOKEN"

        for first in firsts[1:]:
            assert len((await page(worker, page_token=first.next_page_token)).items) == 3


async def test_an_answer_that_is_complete_is_kept_no_longer(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        first = await page(worker, page_size=2)
        last = await page(worker, page_token=first.next_page_token)

        assert last.next_page_token == ""
        assert (await page(worker, page_token=first.next_page_token)).reason == "BAD_PAGE_TOKEN"


async def test_pages_of_one_position_and_others_are_no_pages_of_each_other(inside) -> None:
    async with inside() as worker:
        await filled(worker)
        one = await page(worker, page_size=2)
        other = (await worker.submit(CommandRequest(get_state=GetState(page_size=2)))).state
        crossed = await worker.submit(CommandRequest(get_state=GetState(page_token=one.next_page_token)))

        assert crossed.failure.reason == "BAD_PAGE_TOKEN"
        assert (await page(worker, page_token=other.next_page_token)).reason == "BAD_PAGE_TOKEN"
