"""What the worker knows of its session: registrations, items, and the last value of each item.

Every item has a serial, which is never reused. Handles are reused, so they do not identify an item.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from mxgw.v1.commands_pb2 import ItemOptions
from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, AdviseKind
from mxgw.worker.v1.worker_pb2 import ItemRecord
from mxgw_worker.ipc.references import reference_bytes
from mxgw_worker.reads import Reading
from mxgw_worker.turns import Turns

Key: TypeAlias = tuple[int, int]
_Reference: TypeAlias = tuple[int, str, str]

# Item records of removed items are kept for a gateway that connects again: the latest records, up to this number of
# bytes. For an item whose record is not kept any more, the gateway hides the events from callers whose rights depend on
# the item.
ENDED_RECORDS_BYTES = 2 * 1024 * 1024
# The bytes of memory that a kept item record uses beyond the size of its encoded form.
_RECORD_BYTES = 160


class Item:
    """One item of the session, with its state."""

    __slots__ = (
        "advise",
        "buffered",
        "context",
        "definition",
        "item_handle",
        "last_has_failure",
        "last_is_initialising",
        "last_record",
        "last_sequence",
        "options",
        "pairing_uncertain",
        "readings",
        "serial",
        "server_handle",
        "suspended",
        "turns",
        "write_id",
    )

    def __init__(
        self, serial: int, key: Key, definition: str, context: str, buffered: bool, options: ItemOptions | None
    ) -> None:
        self.serial = serial
        self.server_handle, self.item_handle = key
        self.definition = definition
        self.context = context
        self.buffered = buffered
        self.options = options
        self.advise: AdviseKind.ValueType = ADVISE_KIND_NONE
        self.suspended = False
        # The last data change that is worth keeping, as a record (see encoded_events.py). A failure never replaces a
        # good value (docs/reference/mxaccess.md#statuses).
        self.last_record: bytes | None = None
        self.last_sequence = 0
        self.last_has_failure = False
        self.last_is_initialising = False
        # Reads that wait for the next real value of this item.
        self.readings: dict[Reading, None] = {}
        self.turns = Turns()
        # The id of the write in flight; 0 when there is none.
        self.write_id = 0
        # True once a completion did not come. From then on, a completion can belong to an earlier write.
        self.pairing_uncertain = False

    @property
    def key(self) -> Key:
        """The server handle and the item handle."""
        return self.server_handle, self.item_handle

    def record(self) -> ItemRecord:
        """Return the item record for the gateway."""
        return ItemRecord(
            item_serial=self.serial,
            server_handle=self.server_handle,
            item_handle=self.item_handle,
            item_definition=self.definition,
            item_context=self.context,
            buffered=self.buffered,
        )


class ItemTable:
    """The session's registrations and items, and the hidden items of running reads.

    `head_sequence` returns the sequence of the newest event.
    """

    def __init__(self, head_sequence: Callable[[], int]) -> None:
        self.registrations: dict[int, str] = {}
        self.items: dict[Key, Item] = {}
        # Hidden items, which a ReadBulk has added. Only this read gets their events.
        self.hidden: dict[Key, Reading] = {}
        self._by_reference: dict[_Reference, dict[Key, Item]] = {}
        # The bytes of memory that the references of `items` use.
        self.reference_bytes = 0
        self._head_sequence = head_sequence
        self._last_serial = 0
        # Item records that were not sent to the connected gateway yet, in order.
        self._unsent: list[ItemRecord] = []
        # The item records of removed items, in the order of their removal, and about how many bytes these records use.
        self._ended: deque[ItemRecord] = deque()
        self._ended_bytes = 0

    def __len__(self) -> int:
        return len(self.items) + len(self.hidden)

    def get(self, server_handle: int, item_handle: int) -> Item | None:
        """Return the item; None when the session has no such item."""
        return self.items.get((server_handle, item_handle))

    def next_serial(self) -> int:
        """Return an unused serial, for a new item or for an event of a handle that has no item."""
        self._last_serial += 1
        return self._last_serial

    def serial_of(self, server_handle: int, item_handle: int) -> int:
        """Return the serial of the item that has this handle now; 0 when no item has the handle. A hidden item, which a
        ReadBulk has added, counts as well.
        """
        key = (server_handle, item_handle)
        meant = self.items.get(key) or self.hidden.get(key)
        return meant.serial if meant is not None else 0

    def serial_for(self, server_handle: int, item_handle: int) -> int:
        """Return the serial for an event of a handle: the serial of the handle's item, or an unused serial if no item
        has this handle.
        """
        return self.serial_of(server_handle, item_handle) or self.next_serial()

    def add(
        self,
        key: Key,
        definition: str,
        context: str = "",
        *,
        buffered: bool = False,
        options: ItemOptions | None = None,
    ) -> Item:
        """Add a new item to the table. If the table still has an item with the same handles, that item is removed
        first, because the backend has given its handles to the new item.
        """
        if key in self.items:
            self.remove(key)
        self.hidden.pop(key, None)
        # The context is interned, because clients often give thousands of items the same context.
        item = Item(self.next_serial(), key, definition, sys.intern(context), buffered, options)
        self.items[key] = item
        self.reference_bytes += reference_bytes(definition, context)
        self._by_reference.setdefault((key[0], definition, context), {})[key] = item
        self._unsent.append(item.record())
        return item

    def hide(self, key: Key, reading: Reading) -> None:
        """Add a hidden item to the table. Its events go to a read, and the gateway gets no item record of it."""
        reading.serial = self.next_serial()
        self.hidden[key] = reading

    def remove(self, key: Key) -> None:
        """Remove an item from the table, and make an item record of its end for the gateway."""
        item = self.items.pop(key, None)
        if item is None:
            return
        item.turns.close()
        self.reference_bytes -= reference_bytes(item.definition, item.context)
        self._note_end(item)
        reference = (item.server_handle, item.definition, item.context)
        same = self._by_reference[reference]
        del same[key]
        if not same:
            del self._by_reference[reference]

    def unregister(self, server_handle: int) -> None:
        """Forget a registration and every item under it."""
        self.registrations.pop(server_handle, None)
        for item in list(self.of_registration(server_handle)):
            self.remove(item.key)
        for key in [key for key in self.hidden if key[0] == server_handle]:
            del self.hidden[key]

    def _note_end(self, item: Item) -> None:
        record = item.record()
        record.ended = True
        record.last_sequence = self._head_sequence()
        self._unsent.append(record)
        self._ended.append(record)
        self._ended_bytes += _cost(record)
        while self._ended_bytes > ENDED_RECORDS_BYTES:
            self._ended_bytes -= _cost(self._ended.popleft())

    def records(self) -> Sequence[ItemRecord]:
        """Return the records of all items for a newly connected gateway, in the order of their serials. All records
        then count as sent.
        """
        self._unsent.clear()
        return sorted([*self._ended, *(item.record() for item in self.items.values())], key=lambda r: r.item_serial)

    def unsent(self) -> Sequence[ItemRecord]:
        """Return the records that were added since the last call of this method or of `records`. They then count as
        sent.
        """
        if not self._unsent:
            return ()
        unsent, self._unsent = self._unsent, []
        return unsent

    def of_registration(self, server_handle: int) -> Iterator[Item]:
        """Yield the items of a registration."""
        return (item for item in self.items.values() if item.server_handle == server_handle)

    def advised(self, server_handle: int, definition: str, context: str) -> Item | None:
        """Return an advised item of this reference; None when there is none. An item that has a real value is
        preferred. An item with options does not count, because its last value need not be the present one.
        """
        same: Iterable[Item] = self._by_reference.get((server_handle, definition, context), {}).values()
        candidates = [
            item
            for item in same
            if item.advise != ADVISE_KIND_NONE and not item.buffered and not item.suspended and item.options is None
        ]
        with_value = [item for item in candidates if item.last_record is not None and not item.last_is_initialising]
        return next(iter(with_value or candidates), None)


def _cost(record: ItemRecord) -> int:
    return record.ByteSize() + _RECORD_BYTES
