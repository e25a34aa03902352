"""Long work in the event loop, cut into slices, so that other work is done between two of them.

However many callers bring long work, one slice runs in each turn of the event loop: the callers take turns, and short
work waits for one slice, not for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

# Names in a slice that is compared with patterns: about 1 ms for the longest names and 50 patterns that nearly match
# them, usually a hundredth of that. Another call needs about ten turns of the event loop, so it is 20 ms late at most.
NAMES_AT_ONCE = 4
# Entries in a slice that is read or copied only: about 1 ms.
ENTRIES_AT_ONCE = 500
# Turns without a slice after work that cannot be cut: as many as a short call needs, so it waits for one such work.
_TURNS_AFTER_WHOLE = 20

# The callers that wait in each event loop; the first one, which waits for the loop only, has no future.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None] | None]] = WeakKeyDictionary()


async def turn() -> None:
    """Return after the event loop has done other work; of all callers of `turn`, only one continues in each turn of the
    loop.
    """
    queue = await _first()
    _next_one(queue)


async def turn_for_whole() -> None:
    """As `turn`, before work of some 10 ms that cannot be cut: no other slice runs for some turns afterwards."""
    queue = await _first()
    _after(asyncio.get_running_loop(), queue, _TURNS_AFTER_WHOLE)


async def in_slices(things: Sequence[T], size: int = NAMES_AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of `size` things, in order; let the event loop do other work before each slice but the first."""
    for start in range(0, len(things), size):
        if start:
            await turn()
        yield things[start : start + size]


async def _first() -> deque[asyncio.Future[None] | None]:
    """Wait in this event loop's queue until the caller is its first, and return the queue."""
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
    # Completed by the caller before this one in the queue.
    future = loop.create_future()
    queue.append(future)
    try:
        await future
    except BaseException:
        if future.cancelled():
            with suppress(ValueError):  # the caller before it has removed it already
                queue.remove(future)
        else:
            _next_one(queue)
        raise
    return queue


def _next_one(queue: deque[asyncio.Future[None] | None]) -> None:
    """Remove the first of the queue, and let the next one continue in the next turn."""
    queue.popleft()
    while queue:
        first = queue[0]
        assert first is not None  # only a caller that found the queue empty has no future
        if not first.cancelled():
            first.set_result(None)
            return
        queue.popleft()


def _after(loop: asyncio.AbstractEventLoop, queue: deque[asyncio.Future[None] | None], turns: int) -> None:
    if turns:
        loop.call_soon(_after, loop, queue, turns - 1)
    else:
        _next_one(queue)
