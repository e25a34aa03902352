"""Turns: only one call at a time runs in the backend, and only one write at a time on each item, in order of arrival.

Every method needs the backend's turn. Writes, UnAdvise, RemoveItem and Unregister also need the turns of their items.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

from mxgw_worker.calls import Call, CallExpired, Refused

# During a long run of backend calls the event loop runs at least this often, for events and heartbeats.
_YIELD_S = 0.005
# How many operations can wait for their turn on one item. Further operations are refused.
TURN_QUEUE_LIMIT = 100


class BackendTurn:
    """The turn of the backend. MXAccess is single-threaded, so only one call at a time runs in the backend, in the
    order in which the commands came.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._yielded_at = 0.0

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """Wait for the backend's turn, and hold it while the `with` block runs. The block must not wait for an item's
        turn.

        Raises:
            CallExpired: the deadline passed before the turn was free.
        """
        async with self._lock:
            call.check()
            self._yielded_at = asyncio.get_running_loop().time()
            yield

    async def breathe(self, call: Call) -> None:
        """Let the event loop run if this is due. This must be called between the backend calls of a long run.

        Raises:
            CallExpired: the deadline passed.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._yielded_at > _YIELD_S:
            await asyncio.sleep(0)
            self._yielded_at = loop.time()
        call.check()


class Turns:
    """The queue of operations on one item.

    A write holds the item's turn until its completion has arrived or timed out. So an item has only one write in
    flight, and is not removed meanwhile (docs/reference/mxaccess.md#writes-need-an-advised-item).
    """

    __slots__ = ("_queue", "is_held")

    def __init__(self) -> None:
        self.is_held = False
        # Each future is completed by `release` with True (the operation has the turn now), or by `close` with False
        # (the item was removed).
        self._queue: deque[asyncio.Future[bool]] = deque()

    def line_up(self) -> Ticket:
        """Take the turn if it is free, or else a place in the queue.

        Raises:
            Refused: too many operations are waiting already.
        """
        if not self.is_held:
            self.is_held = True
            return Ticket(self, None)
        if len(self._queue) >= TURN_QUEUE_LIMIT:
            raise Refused(
                "WRITE_QUEUE_FULL", "too many operations wait for the writes of this item; wait for their completions"
            )
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        return Ticket(self, place)

    def release(self) -> None:
        """Give the turn to the first operation in the queue that still waits. If there is none, the turn is free."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(True)
                return
        self.is_held = False

    def close(self) -> None:
        """End the waiting of all operations in the queue, because the item was removed."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(False)


class Ticket:
    """A place in the queue of an item. At the end of a `with` block, the ticket leaves the queue or releases the
    turn.
    """

    __slots__ = ("_is_open", "_place", "_turns")

    def __init__(self, turns: Turns, place: asyncio.Future[bool] | None) -> None:
        self._turns = turns
        self._place = place
        self._is_open = True

    @property
    def has_turn(self) -> bool:
        """True when this ticket has the turn."""
        place = self._place
        return self._is_open and (place is None or (place.done() and not place.cancelled() and place.result()))

    async def wait(self, call: Call) -> None:
        """Wait for the turn.

        Raises:
            CallExpired: the deadline of the call passed first.
            Refused: the item was removed meanwhile.
        """
        if self._place is None:
            return
        try:
            async with asyncio.timeout_at(call.deadline):
                mine = await self._place
        except TimeoutError:
            raise CallExpired from None
        if not mine:
            raise Refused("ITEM_REMOVED", "the item was removed while this waited for its turn")

    def keep(self) -> None:
        """Keep the turn when the ticket ends. The caller must make sure that something else, for example the end of a
        write, releases the turn.
        """
        self._is_open = False

    def leave(self) -> None:
        """Leave the queue, or release the turn. Nothing happens after `keep`, or at a second call."""
        if not self._is_open:
            return
        # Perhaps this ticket got the turn at the moment when its wait was cancelled. Then the turn must be released.
        if self.has_turn:
            self._turns.release()
        elif self._place is not None:
            self._place.cancel()
        self._is_open = False

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
