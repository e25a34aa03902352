"""Counts how often some work lets the event loop run other tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`taken` counts the turns of the event loop that another task got."""

    def __init__(self) -> None:
        self.taken = 0


@asynccontextmanager
async def counted_turns(turns: Turns | None = None) -> AsyncIterator[Turns]:
    """Count the turns that another task gets during the block."""
    turns = turns or Turns()

    async def take() -> None:
        await asyncio.sleep(0)
        while True:
            turns.taken += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        other = tasks.create_task(take())
        await asyncio.sleep(0)  # the counting task has started, and counts from its next turn
        yield turns
        other.cancel()
