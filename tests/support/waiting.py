"""Waiting for what nothing announces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Return once `condition` holds; it is looked at every few milliseconds.

    Raises:
        TimeoutError: it did not hold in time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  the state of another process, or of a part that announces nothing
            await asyncio.sleep(0.005)
