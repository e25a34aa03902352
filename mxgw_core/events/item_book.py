"""The items of a session, as its worker reports them. Items are found by serial, and by handle until they end.

Rights are decided only by these records. The handles in commands are not enough, because MXAccess uses handles again.
The worker reports each item before the item's first event, and before the answer that names the item's handle.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import islice

from mxgw.v1.commands_pb2 import MxCommand
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.access import OfInputs, used_handles
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.encoding import SERIALS_END
from mxgw_worker.ipc.references import MOST_REFERENCE_BYTES, reference_bytes

# The records of ended items are kept up to this many bytes, because some readers still have to read events of these
# items. The oldest records are forgotten first. Readers with a filter no longer get the events of an item whose record
# was forgotten.
ENDED_BYTES = 2 * 1024 * 1024
# How many bytes of memory a record uses without its reference. Its entries in the dictionaries are included. The number
# was measured on CPython 3.11.
_RECORD_BYTES = 500
# The list of serials may have this many serials of forgotten items, beside as many as there are items.
_SERIALS_TOO_MANY = 1_000


class BadRecords(Exception):
    """The worker reported items that cannot exist."""


class ItemBook:
    """The items of one session. Lives in the event loop.

    Args:
        limit_items: the most items that the worker can have at once. A report of more items is an error of the worker.
        limit_bytes: the most bytes of memory that the references of these items can use. A report that needs more
            memory is an error of the worker as well.
    """

    def __init__(self, limit_items: int, limit_bytes: int = MOST_REFERENCE_BYTES) -> None:
        self._limit_items = limit_items
        self._limit_bytes = limit_bytes
        self._items: dict[int, ItemRecord] = {}
        # The serials of `_items`, in ascending order, and some of items that were forgotten.
        self._serials: list[int] = []
        self._by_handle: dict[tuple[int, int], ItemRecord] = {}
        self._ended: deque[ItemRecord] = deque()
        self._ended_bytes = 0
        self._newest = 0
        # How many bytes of memory the references of all items use, without the items that have ended.
        self._reference_bytes = 0
        # About how many bytes of memory all item records use, including the records of ended items that are still kept.
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, serial: int) -> ItemRecord | None:
        """Return the item with this serial; None when the serial is unknown, or its record was forgotten."""
        return self._items.get(serial)

    def begun_after(self, serial: int, limit: int) -> Sequence[ItemRecord]:
        """Return the first `limit` known items with a larger serial, in the order of their serials."""
        if serial >= self._newest:
            return ()
        serials = self._serials
        later = (self._items.get(serials[index]) for index in range(bisect_right(serials, serial), len(serials)))
        return list(islice((record for record in later if record is not None), limit))

    def current(self, server_handle: int, item_handle: int) -> ItemRecord | None:
        """Return the item that has this handle now, according to the worker's reports; None if no item has it."""
        return self._by_handle.get((server_handle, item_handle))

    def used_by(self, command: MxCommand) -> Sequence[ItemRecord | None]:
        """Return the items whose handles a command uses, in the order of its inputs; None for each unknown handle.

        The result is empty for a command without item handles. An item is looked up only when it is read from the
        result.
        """
        return OfInputs(used_handles(command), self._by_handle.get)

    def take(self, records: w.ItemRecords) -> None:
        """Record which items have begun and which have ended, according to a report of the worker.

        Raises:
            BadRecords: the report cannot be true.
        """
        for reported in records.records:
            if reported.item_serial <= self._newest:
                self._ends(reported)
            elif reported.item_serial >= SERIALS_END:
                raise BadRecords(f"an item has the serial {reported.item_serial}")
            else:
                self._begins(reported)

    def _begins(self, reported: w.ItemRecord) -> None:
        self._newest = reported.item_serial
        record = ItemRecord(
            reported.item_serial,
            reported.server_handle,
            reported.item_handle,
            reported.item_definition,
            # Equal texts share one object in memory: a client gives the same context thousands of times.
            sys.intern(reported.item_context),
            reported.buffered,
        )
        self._items[record.serial] = record
        self._serials.append(record.serial)
        self.size_bytes += _cost(record)
        if reported.ended:
            self._end(record)
            return
        handle = record.server_handle, record.item_handle
        if handle in self._by_handle:
            raise BadRecords(
                f"handle {handle[1]} stands for the items {self._by_handle[handle].serial} and {record.serial}"
            )
        self._by_handle[handle] = record
        if len(self._by_handle) > self._limit_items:
            raise BadRecords(f"the worker has more than {self._limit_items} items")
        self._reference_bytes += _reference_bytes(record)
        if self._reference_bytes > self._limit_bytes:
            raise BadRecords(f"the references of {len(self._by_handle)} items take {self._reference_bytes} bytes")

    def _ends(self, reported: w.ItemRecord) -> None:
        record = self._items.get(reported.item_serial)
        handle = reported.server_handle, reported.item_handle
        if not reported.ended or record is None or self._by_handle.get(handle) is not record:
            raise BadRecords(f"item {reported.item_serial} was reported before")
        del self._by_handle[handle]
        self._reference_bytes -= _reference_bytes(record)
        self._end(record)

    def _end(self, record: ItemRecord) -> None:
        self._ended.append(record)
        self._ended_bytes += _cost(record)
        while self._ended_bytes > ENDED_BYTES:
            oldest = self._ended.popleft()
            self._ended_bytes -= _cost(oldest)
            self.size_bytes -= _cost(oldest)
            del self._items[oldest.serial]
        if len(self._serials) > 2 * len(self._items) + _SERIALS_TOO_MANY:
            self._serials = list(self._items)


def _cost(record: ItemRecord) -> int:
    return _RECORD_BYTES + _reference_bytes(record)


def _reference_bytes(record: ItemRecord) -> int:
    return reference_bytes(record.item_definition, record.item_context)
