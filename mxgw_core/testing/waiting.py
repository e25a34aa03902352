"""Waits for a condition of which no event is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until `condition` returns a true value. It is called every few milliseconds.

    Example:
        await until(lambda: plugin.stored >= 100)

    Raises:
        TimeoutError: the condition did not become true in time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  the state of another process, or of a part that announces nothing
            await asyncio.sleep(0.005)
