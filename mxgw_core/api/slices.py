"""Long work in the event loop, cut into slices: between two of them everybody else has a turn.

However many callers bring long work, one slice of it runs in a turn of the event loop: they wait for each other, and
whoever wants something short waits for one slice and not for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

# Names that are compared with patterns at a stretch: about 1 ms for the longest names and 50 patterns that nearly fit
# them, hundredths of that as a rule. Another call needs about ten turns of the event loop, so it is 20 ms late at most.
NAMES_AT_ONCE = 4
# Entries that are looked at or copied, and compared with nothing, at a stretch: about 1 ms.
ENTRIES_AT_ONCE = 500
# Turns without a slice after work that cannot be cut: as many as a short call needs, so that it meets one such at most.
_TURNS_AFTER_WHOLE = 20

# Those who wait for their turn in each event loop, None for the first one, which only waits for the loop.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None] | None]] = WeakKeyDictionary()


async def turn() -> None:
    """Return when the event loop has done what else is due; nobody else who awaits this goes on in the same turn."""
    queue = await _first()
    _next_one(queue)


async def turn_for_whole() -> None:
    """As `turn`, before work of some 10 ms that cannot be cut: for some turns nobody else's slice follows on it."""
    queue = await _first()
    _after(asyncio.get_running_loop(), queue, _TURNS_AFTER_WHOLE)


async def in_slices(things: Sequence[T], size: int = NAMES_AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of `size` things, in order; before each but the first, the event loop does what else is due."""
    for start in range(0, len(things), size):
        if start:
            await turn()
        yield things[start : start + size]


async def _first() -> deque[asyncio.Future[None] | None]:
    """Wait in the queue of this event loop; return it once the caller is its first and may go on."""
    loop = asyncio.get_running_loop()
    queue = _waiting.setdefault(loop, deque())
    if not queue:
        queue.append(None)
        try:
            await asyncio.sleep(0)
        except BaseException:
            _next_one(queue)
            raise
        return queue
    # Completed by whoever is before it in the queue.
    future = loop.create_future()
    queue.append(future)
    try:
        await future
    except BaseException:
        if future.cancelled():
            with suppress(ValueError):  # whoever was before it saw that already
                queue.remove(future)
        else:
            _next_one(queue)
        raise
    return queue


def _next_one(queue: deque[asyncio.Future[None] | None]) -> None:
    """Let the next one go on, in the next turn."""
    queue.popleft()
    while queue:
        first = queue[0]
        assert first is not None  # only who found nobody there has no future
        if not first.cancelled():
            first.set_result(None)
            return
        queue.popleft()


def _after(loop: asyncio.AbstractEventLoop, queue: deque[asyncio.Future[None] | None], turns: int) -> None:
    if turns:
        loop.call_soon(_after, loop, queue, turns - 1)
    else:
        _next_one(queue)
