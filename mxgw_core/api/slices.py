"""Long work in the event loop, cut into slices: between two of them everybody else has a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# Names that are compared with patterns at a stretch: about 4 ms for the longest names and 50 patterns that fit them
# nearly, 0.1 ms as a rule. Another call needs a handful of turns, so it comes at most 20 ms late.
NAMES_AT_ONCE = 16


async def in_slices(things: Sequence[T], size: int = NAMES_AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of `size` things, in order; before each but the first, the event loop does what else is due."""
    for start in range(0, len(things), size):
        if start:
            await asyncio.sleep(0)
        yield things[start : start + size]
