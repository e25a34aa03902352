"""Which reference an item handle stood for, at a place in the stream.

MXAccess gives a handle out again after RemoveItem (FIELD 1.9, 16). Events of the removed item may still be on their
way then, and a wrong name on a value is worse than none. So each name carries the range of sequences it is true for:
`end(...)` at a sequence that is known to lie between the last event of the old item and the first of the new one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Names of removed items that are kept for events still on their way; about the most items of one worker.
ENDED_NAMES_KEPT = 20_000

_Key = tuple[int, int]


@dataclass(slots=True)
class _Name:
    reference: str
    # Events after `begin` and up to `end` are this item's; None while it is not known or not yet over.
    begin: int = 0
    end: int | None = None
    removed: bool = False


class ReferenceMap:
    """Names of one session's items, by server handle and item handle."""

    def __init__(self) -> None:
        self._names: dict[_Key, list[_Name]] = {}
        self._unsettled: set[_Key] = set()
        self._ended: deque[_Key] = deque()

    @property
    def has_unsettled(self) -> bool:
        """Whether an item was removed since `settle`; ask for the session's position before adding another."""
        return bool(self._unsettled)

    def add(self, server_handle: int, item_handle: int, reference: str) -> None:
        """The handle stands for `reference` from here on."""
        key = (server_handle, item_handle)
        names = self._names.setdefault(key, [])
        begin = 0
        if names:
            begin = names[-1].end or 0
            if not names[-1].removed or key in self._unsettled:
                # Removed and added again at the same time by two callers: nobody can tell the two apart.
                names.clear()
                self._unsettled.discard(key)
        names.append(_Name(reference, begin))

    def remove(self, server_handle: int, item_handle: int) -> None:
        """The handle was given back."""
        key = (server_handle, item_handle)
        names = self._names.get(key)
        if names and not names[-1].removed:
            names[-1].removed = True
            self._unsettled.add(key)

    def remove_server(self, server_handle: int) -> None:
        """Every item under the server handle was given back."""
        for server, item in [key for key in self._names if key[0] == server_handle]:
            self.remove(server, item)

    def settle(self, sequence: int) -> None:
        """Every event of an item removed so far is at most `sequence`."""
        for key in self._unsettled:
            self._names[key][-1].end = sequence
            self._ended.append(key)
        self._unsettled.clear()
        while len(self._ended) > ENDED_NAMES_KEPT:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        key = self._ended.popleft()
        names = self._names.get(key)
        if names and names[0].end is not None:
            names.pop(0)
            if not names:
                del self._names[key]

    def lookup(self, server_handle: int, item_handle: int, sequence: int) -> str:
        """Return the reference the handle stood for at `sequence`; empty when it is not known."""
        names = self._names.get((server_handle, item_handle))
        if not names:
            return ""
        for name in reversed(names):
            if sequence > name.begin:
                return name.reference if name.end is None or sequence <= name.end else ""
        return ""

    def handle_of(self, reference: str) -> tuple[int, int] | None:
        """Return server and item handle of a reference that is held now; None when there is none."""
        for key, names in self._names.items():
            if names[-1].reference == reference and not names[-1].removed:
                return key
        return None

    def __len__(self) -> int:
        return len(self._names)
