"""Long work in the event loop, cut into slices: between two of them everybody else has a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# Names that are compared with patterns at a stretch: about 1 ms for the longest names and 50 patterns that nearly fit
# them, hundredths of that as a rule. Another call needs about ten turns of the event loop, so it is 20 ms late at most.
NAMES_AT_ONCE = 4
# Entries that are looked at or copied, and compared with nothing, at a stretch: about 1 ms.
ENTRIES_AT_ONCE = 500


async def in_slices(things: Sequence[T], size: int = NAMES_AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of `size` things, in order; before each but the first, the event loop does what else is due."""
    for start in range(0, len(things), size):
        if start:
            await asyncio.sleep(0)
        yield things[start : start + size]
