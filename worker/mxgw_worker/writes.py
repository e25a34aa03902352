"""Pairs write completions with writes. An item has one write in flight at most, and a write whose completion does not
come in time counts as failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mxgw.v1.values_pb2 import MX_STATUS_CATEGORY_PENDING, MxStatus
from mxgw_worker.items import Item


@dataclass(frozen=True, slots=True)
class Completion:
    """How a write ended. `missing` is True when the backend sent no completion in time."""

    statuses: tuple[MxStatus, ...]
    missing: bool = False


class PendingWrite:
    """A write, from the moment before it is issued until its completion."""

    __slots__ = ("completion", "item", "timer", "write_id")

    def __init__(self, write_id: int, item: Item) -> None:
        self.write_id = write_id
        self.item = item
        # Set by `Writes.complete`. When the completion does not come in time, the timer sets a `Completion` with
        # `missing`.
        self.completion: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class Writes:
    """The writes in flight. The caller of `begin` must hold the item's turn (turns.py), so an item has at most one
    write in flight. The turn is released when the write ends.
    """

    def __init__(self, completion_timeout_s: float) -> None:
        self._completion_timeout_s = completion_timeout_s
        self._last_id = 0
        self._pending: dict[int, PendingWrite] = {}
        # Called with a write whose completion did not come, so that subscribers get an event. The sink sets this
        # function.
        self.on_missing: Callable[[PendingWrite], None] = lambda _write: None

    def __len__(self) -> int:
        return len(self._pending)

    def next_id(self) -> int:
        """Return the next number for a write; the first is 1."""
        self._last_id += 1
        return self._last_id

    def begin(self, item: Item) -> PendingWrite:
        """Begin a write just before it is issued, because its completion can come before the backend call returns."""
        write = PendingWrite(self.next_id(), item)
        item.write_id = write.write_id
        self._pending[write.write_id] = write
        return write

    def accepted(self, write: PendingWrite) -> None:
        """Start the timeout for the completion of a write that the backend has accepted."""
        if not write.completion.done():
            loop = asyncio.get_running_loop()
            write.timer = loop.call_later(self._completion_timeout_s, self._give_up, write)

    def refused(self, write: PendingWrite) -> None:
        """End a write that the backend has refused. No completion will come."""
        self._end(write)

    def complete(self, item: Item, statuses: Sequence[MxStatus]) -> int:
        """Pair a completion with the item's write, and return the id of the write; 0 when the item has no write in
        flight.

        A success of category Pending means "accepted, still pending", so the write continues.
        Source: docs/reference/mxaccess.md#statuses.
        """
        write = self._pending.get(item.write_id)
        if write is None:
            return 0
        if not any(s.success != 0 and s.category == MX_STATUS_CATEGORY_PENDING for s in statuses):
            copies = tuple(_copy(status) for status in statuses)
            self._end(write)
            write.completion.set_result(Completion(copies))
        return write.write_id

    def _give_up(self, write: PendingWrite) -> None:
        self.on_missing(write)
        write.item.pairing_uncertain = True
        self._end(write)
        write.completion.set_result(Completion((), missing=True))

    def _end(self, write: PendingWrite) -> None:
        if self._pending.pop(write.write_id, None) is None:
            return
        if write.timer is not None:
            write.timer.cancel()
        write.item.write_id = 0
        write.item.turns.release()


def _copy(status: MxStatus) -> MxStatus:
    copy = MxStatus()
    copy.CopyFrom(status)
    return copy
