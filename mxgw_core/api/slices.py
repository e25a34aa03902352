"""Long work in the event loop, divided into slices, so that other work can be done between two slices.

When several callers have long work, only one slice runs in each iteration of the event loop, and the callers come one
after the other. So short work, for example a small call, waits for one slice and not for a slice of each caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

# How many names a slice has when names are compared with patterns. Such a slice takes at most about 1 ms (with the
# longest names and 50 patterns that nearly match them), and usually a hundredth of this. A small call needs about ten
# iterations of the event loop, so slices delay it by 20 ms at most.
NAMES_AT_ONCE = 4
# How many entries a slice has when entries are only read or copied. Such a slice takes about 1 ms.
ENTRIES_AT_ONCE = 500
# After a piece of work that cannot be divided, the event loop runs this many iterations without a slice. A small call
# needs fewer iterations, so at most one such piece of work can delay it.
_TURNS_AFTER_WHOLE = 20

# Key: an event loop. Value: the queue of the callers that wait in this loop. Each caller is represented by the future
# that it waits for. A caller that came when the queue was empty is represented by None, because it waits only for the
# next iteration of the event loop.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None] | None]] = WeakKeyDictionary()


async def turn() -> None:
    """Wait until the event loop has done other work. Only one waiting caller continues in each iteration."""
    queue = await _first()
    _next_one(queue)


async def turn_for_whole() -> None:
    """Wait like `turn`. Call this before work that takes some 10 ms and cannot be divided.

    After this work no other caller continues for `_TURNS_AFTER_WHOLE` iterations of the event loop.
    """
    queue = await _first()
    _after(asyncio.get_running_loop(), queue, _TURNS_AFTER_WHOLE)


async def in_slices(things: Sequence[T], size: int = NAMES_AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of `size` things, in order. Before each slice but the first, the event loop can do other work."""
    for start in range(0, len(things), size):
        if start:
            await turn()
        yield things[start : start + size]


async def _first() -> deque[asyncio.Future[None] | None]:
    """Wait until this caller is the first in the queue of its event loop. Return the queue."""
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
    # When the caller before this one leaves the queue, it completes this future.
    future = loop.create_future()
    queue.append(future)
    try:
        await future
    except BaseException:
        if future.cancelled():
            with suppress(ValueError):  # perhaps `_next_one` has removed this future already
                queue.remove(future)
        else:
            _next_one(queue)
        raise
    return queue


def _next_one(queue: deque[asyncio.Future[None] | None]) -> None:
    """Remove the first caller from the queue. The next caller continues in the next iteration of the event loop."""
    queue.popleft()
    while queue:
        first = queue[0]
        assert first is not None  # only a caller that came when the queue was empty is stored as None
        if not first.cancelled():
            first.set_result(None)
            return
        queue.popleft()


def _after(loop: asyncio.AbstractEventLoop, queue: deque[asyncio.Future[None] | None], turns: int) -> None:
    if turns:
        loop.call_soon(_after, loop, queue, turns - 1)
    else:
        _next_one(queue)
