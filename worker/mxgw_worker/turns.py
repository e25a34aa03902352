"""Who may work on one item: one holder, the others in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from mxgw_worker.calls import Call, CallExpired, Refused

# Operations that may wait for their turn on one item; more are refused.
TURN_QUEUE_LIMIT = 100


class Turns:
    """The line of one item.

    A write holds its turn until its completion arrived or is given up, so that there is one write in flight per item
    and nobody removes the item meanwhile (docs/reference/mxaccess.md#writes-need-an-advised-item).
    """

    __slots__ = ("_queue", "is_held")

    def __init__(self) -> None:
        self.is_held = False
        # Each future is completed by `release` (True: the turn is yours) or `close` (False: the item is gone).
        self._queue: deque[asyncio.Future[bool]] = deque()

    def line_up(self) -> Ticket:
        """Take the turn if it is free, else a place in the line.

        Raises:
            Refused: too many wait already.
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
        """Hand the turn to the next in line that still wants it."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(True)
                return
        self.is_held = False

    def close(self) -> None:
        """The item is gone: send everyone away who waits."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(False)


class Ticket:
    """A place in the line of an item. As a context manager it leaves the line, or gives the turn back, at the end."""

    __slots__ = ("_is_open", "_place", "_turns")

    def __init__(self, turns: Turns, place: asyncio.Future[bool] | None) -> None:
        self._turns = turns
        self._place = place
        self._is_open = True

    @property
    def has_turn(self) -> bool:
        """Whether the turn is ours."""
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
        """The turn now belongs to something else, which releases it."""
        self._is_open = False

    def leave(self) -> None:
        """Leave the line, or give the turn back; nothing after `keep` or a second time."""
        if not self._is_open:
            return
        # A turn that was handed over in the very moment a wait ended must not be lost.
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
