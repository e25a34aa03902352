"""The references of a session's items, by item serial.

MXAccess gives a handle out again after RemoveItem (docs/reference/mxaccess.md#handles). Events of the removed item
may still be on their way then, and a wrong name on a value is worse than none. An item's serial is never given to
another.
"""

from __future__ import annotations

from collections import deque

# How many references of removed items are kept, for their events that are still on the way. One worker has about this
# many items at most.
ENDED_NAMES_KEPT = 20_000

_Handle = tuple[int, int]


class ReferenceMap:
    """The references of one session's items, and which item each handle means at present."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        # The serials of the items that were added and not removed, by server handle and item handle.
        self._held: dict[_Handle, int] = {}
        self._ended: deque[int] = deque()

    def add(self, serial: int, server_handle: int, item_handle: int, reference: str) -> None:
        """Record that an item was added."""
        handle = (server_handle, item_handle)
        held = self._held.get(handle)
        self._names[serial] = reference
        if held is None or held < serial:  # replies may come in another order than the items were added
            self._held[handle] = serial
            self._end(held)
        else:
            self._end(serial)

    def serial_of(self, server_handle: int, item_handle: int) -> int:
        """Return the serial of the item that a handle means at present; 0 when it is not known."""
        return self._held.get((server_handle, item_handle), 0)

    def remove(self, serial: int, server_handle: int, item_handle: int) -> None:
        """Record that the item with this serial was removed."""
        if self._held.get((server_handle, item_handle)) == serial:
            del self._held[server_handle, item_handle]
            self._end(serial)

    def remove_server(self, server_handle: int) -> None:
        """Record that every item of a registration was removed."""
        for handle in [handle for handle in self._held if handle[0] == server_handle]:
            self._end(self._held.pop(handle))

    def _end(self, serial: int | None) -> None:
        if serial is None:
            return
        self._ended.append(serial)
        while len(self._ended) > ENDED_NAMES_KEPT:
            self._names.pop(self._ended.popleft(), None)

    def lookup(self, serial: int) -> str:
        """Return the reference of the item with this serial; empty when it is not known."""
        return self._names.get(serial, "")

    def handle_of(self, reference: str) -> tuple[int, int] | None:
        """Return server and item handle of an item with this reference; None when there is none at present."""
        return next((handle for handle, serial in self._held.items() if self._names[serial] == reference), None)

    def __len__(self) -> int:
        return len(self._names)
