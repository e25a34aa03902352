"""What the worker knows of its session: registrations, items, and the last value of each item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, AdviseKind
from mxgw_worker.reading import Reading
from mxgw_worker.turns import Turns

Key: TypeAlias = tuple[int, int]
_Reference: TypeAlias = tuple[int, str, str]


class Item:
    """One item handle of the session."""

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
        "pairing_uncertain",
        "readings",
        "server_handle",
        "suspended",
        "turns",
        "write_id",
    )

    def __init__(self, key: Key, definition: str, context: str, buffered: bool) -> None:
        self.server_handle, self.item_handle = key
        self.definition = definition
        self.context = context
        self.buffered = buffered
        self.advise: AdviseKind.ValueType = ADVISE_KIND_NONE
        self.suspended = False
        # The last data change worth keeping: a failure never replaces a good value (FIELD 1.4).
        self.last_record: bytes | None = None
        self.last_sequence = 0
        self.last_has_failure = False
        self.last_is_initialising = False
        # Reads that wait for the next real value of this item.
        self.readings: dict[Reading, None] = {}
        self.turns = Turns()
        # The write in flight; 0 when there is none.
        self.write_id = 0
        # A completion went missing once: later ones cannot be told apart any more.
        self.pairing_uncertain = False

    @property
    def key(self) -> Key:
        """The pair of handles."""
        return self.server_handle, self.item_handle


class ItemTable:
    """The session's registrations and items, and the hidden items of reads that are under way."""

    def __init__(self) -> None:
        self.registrations: dict[int, str] = {}
        self.items: dict[Key, Item] = {}
        # Items of a ReadBulk: their events go to the read and nowhere else.
        self.hidden: dict[Key, Reading] = {}
        self._by_reference: dict[_Reference, dict[Key, Item]] = {}

    def __len__(self) -> int:
        return len(self.items) + len(self.hidden)

    def get(self, server_handle: int, item_handle: int) -> Item | None:
        """Return the item, or None when the session has none such."""
        return self.items.get((server_handle, item_handle))

    def add(self, key: Key, definition: str, context: str = "", *, buffered: bool = False) -> Item:
        """Note a new item; one with the same handles is forgotten, values and all, because handles are reused."""
        if key in self.items:
            self.remove(key)
        self.hidden.pop(key, None)
        item = Item(key, definition, context, buffered)
        self.items[key] = item
        self._by_reference.setdefault((key[0], definition, context), {})[key] = item
        return item

    def remove(self, key: Key) -> None:
        """Forget an item."""
        item = self.items.pop(key, None)
        if item is None:
            return
        item.turns.close()
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

    def of_registration(self, server_handle: int) -> Iterator[Item]:
        """Yield the items of a registration."""
        return (item for item in self.items.values() if item.server_handle == server_handle)

    def advised(self, server_handle: int, definition: str, context: str) -> Item | None:
        """Return an item of this reference that has data changes, preferring one with a real value."""
        same: Iterable[Item] = self._by_reference.get((server_handle, definition, context), {}).values()
        candidates = [
            item for item in same if item.advise != ADVISE_KIND_NONE and not item.buffered and not item.suspended
        ]
        with_value = [item for item in candidates if item.last_record is not None and not item.last_is_initialising]
        return next(iter(with_value or candidates), None)
