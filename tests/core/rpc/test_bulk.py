"""Bulk commands of the largest size: judged in slices, taken apart and put together again in one pass each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.turns import counted_turns

from mxgw.v1 import commands_pb2 as c
from mxgw_core.api.slices import ENTRIES_AT_ONCE, NAMES_AT_ONCE, in_slices
from mxgw_core.api.types import ItemRecord
from mxgw_core.rpc.access import denied_inputs
from mxgw_core.rpc.bulk import E_ACCESSDENIED, ITEM_DENIED, is_bulk, with_denied, without


class Odd:
    """Denies every odd handle or name, and notes how many inputs it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        inputs = inputs_of(command)

        assert [item.item_handle for item in items if item is not None] == (inputs if items else [])

        self.asked.append(len(inputs))
        return {index: f"{one} is odd" for index, one in enumerate(inputs) if one % 2}


def inputs_of(command: c.MxCommand) -> list[int]:
    match command.WhichOneof("command"):
        case "subscribe_bulk":
            return [int(item.item_definition) for item in command.subscribe_bulk.items]
        case "read_bulk":
            assert command.read_bulk.HasField("timeout")  # what is no input is in every part
            return [int(item.item_definition) for item in command.read_bulk.items]
        case "write_bulk":
            assert command.write_bulk.server_handle == 7
            return [write.item_handle for write in command.write_bulk.writes]
        case _:
            assert command.unsubscribe_bulk.server_handle == 7
            return list(command.unsubscribe_bulk.item_handles)


def items_of(count: int) -> list[ItemRecord]:
    return [ItemRecord(1 + number, 7, number, str(number)) for number in range(count)]


def commands(count: int) -> list[c.MxCommand]:
    references = [c.ItemReference(item_definition=str(number)) for number in range(count)]
    read = c.ReadBulkCommand(items=references)
    read.timeout.FromSeconds(1)
    return [
        c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(server_handle=7, items=references)),
        c.MxCommand(read_bulk=read),
        c.MxCommand(
            write_bulk=c.WriteBulkCommand(
                server_handle=7, writes=[c.BulkWrite(item_handle=number) for number in range(count)]
            )
        ),
        c.MxCommand(unsubscribe_bulk=c.UnsubscribeBulkCommand(server_handle=7, item_handles=range(count))),
    ]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("count", [0, 1, NAMES_AT_ONCE, NAMES_AT_ONCE + 1, 20_000])
@pytest.mark.asyncio
async def test_a_guard_is_asked_for_a_few_inputs_at_a_time_and_others_have_their_turn_in_between(
    kind: int, count: int
) -> None:
    guard = Odd()
    async with counted_turns() as turns:
        denied = await denied_inputs([guard], commands(count)[kind], items_of(count) if kind > 1 else [])

    assert denied == {index: f"{index} is odd" for index in range(1, count, 2)}
    assert max(guard.asked) <= NAMES_AT_ONCE
    assert sum(guard.asked) == count
    assert turns.taken == len(guard.asked) - 1


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", range(4))
async def test_denied_inputs_are_left_out_and_the_rest_keeps_its_order(kind: int) -> None:
    command = commands(10)[kind]
    before = command.SerializeToString()

    assert is_bulk(command)
    assert inputs_of(await without(command, {0: "", 3: "", 9: ""})) == [1, 2, 4, 5, 6, 7, 8]
    assert inputs_of(await without(command, dict.fromkeys(range(10), ""))) == []
    assert command.SerializeToString() == before
    assert await without(command, {}) is command


@given(st.integers(0, 30), st.sets(st.integers(0, 29)))
def test_every_result_is_at_the_place_of_its_input(count: int, wanted: set[int]) -> None:
    denied = {index: f"no {index % 3}" for index in wanted if index < count}
    allowed = [index for index in range(count) if index not in denied]
    results = c.BulkResult(items=[c.BulkItemResult(item_handle=index + 1) for index in allowed])
    merged = asyncio.run(with_denied(results, denied)).items

    assert len(merged) == count
    for index, item in enumerate(merged):
        if index in denied:
            assert (item.item_handle, item.hresult, item.reason) == (0, E_ACCESSDENIED, ITEM_DENIED)
            assert item.message == denied[index]
        else:
            assert (item.item_handle, item.hresult, item.reason) == (index + 1, 0, "")


@pytest.mark.asyncio
async def test_results_that_a_worker_left_out_do_not_hide_what_was_denied() -> None:
    merged = (await with_denied(c.BulkResult(), {3: "no", 5: "no"})).items

    assert [item.reason for item in merged] == [ITEM_DENIED, ITEM_DENIED]


@pytest.mark.asyncio
async def test_the_largest_call_is_taken_apart_and_put_together_in_slices() -> None:
    denied = Looked(dict.fromkeys(range(0, 20_000, 2), "no"))
    async with counted_turns() as turns:
        allowed = await without(commands(20_000)[0], denied)
        results = c.BulkResult(items=[c.BulkItemResult(item_handle=1)] * len(allowed.subscribe_bulk.items))
        merged = await with_denied(results, denied)

    assert len(merged.items) == 20_000
    assert turns.taken == 2 * (20_000 // ENTRIES_AT_ONCE - 1)
    assert denied.looks <= 2 * 20_000  # once per input and step


class Looked(dict[int, str]):
    """Counts how often it is asked for an input."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)


@pytest.mark.asyncio
async def test_slices_are_whole_and_in_order() -> None:
    slices = [list(some) async for some in in_slices(range(35), 16)]

    assert slices == [list(range(16)), list(range(16, 32)), list(range(32, 35))]
    assert [some async for some in in_slices((), 16)] == []
