"""Finds the reference of an item by its serial.

The references are not found by handle, because MXAccess gives a handle out again after RemoveItem
(docs/reference/mxaccess.md#handles). Events of the removed item can still come then, and would get the reference of
another item. A serial is never used again.
"""

from __future__ import annotations

from collections import deque

# How many references of removed items are kept, because events of these items can still come. A session has at most
# about this many items.
ENDED_NAMES_KEPT = 20_000

_Handle = tuple[int, int]


class ReferenceMap:
    """The references of the items of one session, and the item that each handle names at present."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        # Key: server handle and item handle. Value: the serial of the item that was added and not removed.
        self._held: dict[_Handle, int] = {}
        self._ended: deque[int] = deque()

    def add(self, serial: int, server_handle: int, item_handle: int, reference: str) -> None:
        """Add an item."""
        handle = (server_handle, item_handle)
        held = self._held.get(handle)
        self._names[serial] = reference
        # When two items got the same handle one after the other, the answers to AddItem can come in the wrong order.
        # The greater serial belongs to the newer item.
        if held is None or held < serial:
            self._held[handle] = serial
            self._end(held)
        else:
            self._end(serial)

    def serial_of(self, server_handle: int, item_handle: int) -> int:
        """Return the serial of the item that has this handle at present; 0 when no such item is known."""
        return self._held.get((server_handle, item_handle), 0)

    def remove(self, serial: int, server_handle: int, item_handle: int) -> None:
        """Mark the item with this serial as removed. Its reference is kept for events that still come."""
        if self._held.get((server_handle, item_handle)) == serial:
            del self._held[server_handle, item_handle]
            self._end(serial)

    def remove_server(self, server_handle: int) -> None:
        """Mark every item of a server handle as removed."""
        for handle in [handle for handle in self._held if handle[0] == server_handle]:
            self._end(self._held.pop(handle))

    def _end(self, serial: int | None) -> None:
        if serial is None:
            return
        self._ended.append(serial)
        while len(self._ended) > ENDED_NAMES_KEPT:
            self._names.pop(self._ended.popleft(), None)

    def lookup(self, serial: int) -> str:
        """Return the reference of the item with this serial; an empty text when it is not known."""
        return self._names.get(serial, "")

    def handle_of(self, reference: str) -> tuple[int, int] | None:
        """Return the server handle and item handle of an item with this reference; None when there is no such item."""
        return next((handle for handle, serial in self._held.items() if self._names[serial] == reference), None)

    def __len__(self) -> int:
        return len(self._names)
