"""Long work of several callers: one slice in a turn of the event loop, whoever's it is."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.turns import counted_turns

from mxgw_core.api.slices import in_slices, turn, turn_for_whole

pytestmark = pytest.mark.asyncio


async def test_however_many_have_long_work_one_slice_runs_in_a_turn_and_all_take_part() -> None:
    ran: Counter[int] = Counter()
    order: list[int] = []

    async with counted_turns() as turns:

        async def work(number: int) -> None:
            await turn()
            async for _ in in_slices(range(40), 2):
                ran[turns.taken] += 1
                order.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(work(number))

    assert ran.total() == 5 * 20
    assert max(ran.values()) == 1
    assert all(set(order[at : at + 5]) == set(range(5)) for at in range(0, 100, 5))


async def test_one_alone_goes_on_in_every_turn() -> None:
    async with counted_turns() as turns:
        async for _ in in_slices(range(100), 1):
            pass

    assert turns.taken <= 101


async def test_after_work_that_cannot_be_cut_others_have_many_turns_before_the_next_slice() -> None:
    at: list[int] = []
    async with counted_turns() as turns:

        async def work() -> None:
            await turn_for_whole()
            at.append(turns.taken)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(work())

    assert at[1] - at[0] >= 20
    assert at[2] - at[1] >= 20


@pytest.mark.parametrize("ends", [(0,), (1,), (2,), (0, 1), (1, 2), (2, 3), (0, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("after", range(4))
async def test_whoever_gives_up_leaves_the_turns_to_the_others(ends: tuple[int, ...], after: int) -> None:
    async def work() -> None:
        async for _ in in_slices(range(10), 1):
            pass

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(work()) for _ in range(4)]
        for _ in range(after):
            await asyncio.sleep(0)
        for number in ends:
            working[number].cancel()
    await turn()

    assert [one.cancelled() for one in working] == [number in ends for number in range(4)]
