"""The values for which a running ReadBulk waits."""

from __future__ import annotations

import asyncio

from mxgw.v1.events_pb2 import DataChange
from mxgw_worker.encoded_events import data_change_of


class ReadBatch:
    """Counts the references of one ReadBulk that still wait for a value."""

    __slots__ = ("_complete", "awaited")

    def __init__(self) -> None:
        self.awaited = 0
        # The future that `wait` makes. It is completed when the last reading has its value.
        self._complete: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait until every reading has its value. This must be called after all readings have been made."""
        if self.awaited:
            self._complete = asyncio.get_running_loop().create_future()
            await self._complete

    def one_arrived(self) -> None:
        """Count one reading less, because it has its value."""
        self.awaited -= 1
        if self.awaited == 0 and self._complete is not None and not self._complete.done():
            self._complete.set_result(None)


class Reading:
    """Waits for the first real value of one reference. A value that a source sends before it has a real one is
    "initialising", and does not count.

    Source: docs/reference/mxaccess.md#first-values.
    """

    __slots__ = ("_batch", "_record", "arrived", "serial")

    def __init__(self, batch: ReadBatch) -> None:
        self._batch = batch
        self._record: bytes | None = None
        self.arrived = False
        # The serial of the hidden item of this reading; 0 when the reading waits for a value of an item of the session.
        self.serial = 0
        batch.awaited += 1

    def offer(self, record: bytes, is_initialising: bool) -> None:
        """Keep the value of a data change, unless the real value has come already. `record` is the encoded event."""
        if self.arrived:
            return
        self._record = record
        if not is_initialising:
            self.arrived = True
            self._batch.one_arrived()

    def abandon(self) -> None:
        """Stop waiting, because the item could not be advised."""
        if not self.arrived:
            self.arrived = True
            self._batch.one_arrived()

    @property
    def value(self) -> DataChange | None:
        """The real value, or else the last initialising value; None when no value has come."""
        return None if self._record is None else data_change_of(self._record)
