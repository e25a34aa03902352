"""Checks which items a key may use: in commands, in Browse, in the calls of other services, and in event streams."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand
from mxgw.v1.events_pb2 import EventKind
from mxgw_acl.keys import Constraints
from mxgw_core.api import ItemRecord, full_reference, named_items

_DENIED_READ = "this key may not read the item"
_DENIED_WRITE = "this key may not write the item"
_DENIED_USE = "this key may not use the item"
_DENIED_HANDLE = "this key may use no item of this handle"
_UNTOLD = "this key is limited to certain items: give the full reference instead of one relative to a context"

_VALUES = frozenset({EventKind.EVENT_KIND_DATA_CHANGE, EventKind.EVENT_KIND_BUFFERED_DATA_CHANGE})
_WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})
# The largest memory for the remembered results of one function. The limit is in bytes, because clients choose how long
# references are.
REMEMBERED_BYTES = 1024 * 1024
# The memory for one result, in addition to the text of its reference.
_ANSWER_BYTES = 160


class _Remembered:
    """Wraps a function that says yes or no for a reference, and remembers its results in a bounded memory.

    The function must always return the same result for the same reference.
    """

    def __init__(self, ask: Callable[[str], bool]) -> None:
        self._ask = ask
        self._answers: dict[str, bool] = {}
        self.size_bytes = 0

    def __call__(self, reference: str) -> bool:
        answer = self._answers.get(reference)
        if answer is None:
            answer = self._ask(reference)
            size_bytes = sys.getsizeof(reference) + _ANSWER_BYTES
            if self.size_bytes + size_bytes > REMEMBERED_BYTES:
                self._answers.clear()
                self.size_bytes = 0
            self._answers[reference] = answer
            self.size_bytes += size_bytes
        return answer


class ItemRights:
    """Checks references against the item constraints of a key, and remembers the results.

    When `writes` is False, the key has no scope for writing, and `may_write` is False for every item.
    """

    def __init__(self, constraints: Constraints, *, writes: bool) -> None:
        self.may_read = _Remembered(constraints.may_read)
        self.may_write = _Remembered(constraints.may_write if writes else _nothing)

    def may_use(self, reference: str) -> bool:
        """Return whether the key may add the item: it must be allowed to read the item or to write it."""
        return self.may_read(reference) or self.may_write(reference)


def _nothing(reference: str) -> bool:
    del reference
    return False


class KeyItems:
    """Implements `ItemAccess` for a key with item constraints: which references the key may read and write."""

    def __init__(self, rights: ItemRights, decided: Callable[[str, Sequence[str], Sequence[str]], None]) -> None:
        self._rights = rights
        self._decided = decided

    def may_read(self, reference: str) -> bool:
        """Return whether the key may read the item with this reference."""
        return self._rights.may_read(reference)

    def may_write(self, reference: str) -> bool:
        """Return whether the key may write the item with this reference."""
        return self._rights.may_write(reference)

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Record which references a service has allowed and denied for `action`."""
        self._decided(action, allowed, denied)


class ItemGuard:
    """Checks the commands of a key that is limited to certain items. Implements `CommandGuard` and `BrowseGuard`."""

    def __init__(self, rights: ItemRights) -> None:
        self._rights = rights

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        """Return the inputs that the key may not use. Key: index of the input. Value: the reason."""
        kind = command.WhichOneof("command")
        if named := named_items(command):
            return self._denied_references(map(full_reference, named), reads=kind == "read_bulk")
        denied: dict[int, str] = {}
        for index, item in enumerate(items):
            reference = full_reference(item) if item is not None else None
            if reference is None or not self._rights.may_use(reference):
                denied[index] = _DENIED_HANDLE
            elif kind in _WRITES and not self._rights.may_write(reference):
                denied[index] = _DENIED_WRITE
        return denied

    def _denied_references(self, references: Iterable[str | None], *, reads: bool) -> Mapping[int, str]:
        denied: dict[int, str] = {}
        for index, reference in enumerate(references):
            if reference is None:
                denied[index] = _UNTOLD
            elif reads and not self._rights.may_read(reference):
                denied[index] = _DENIED_READ
            elif not self._rights.may_use(reference):
                denied[index] = _DENIED_USE
        return denied

    def shows(self, node: BrowseNode) -> bool:
        """Return whether Browse shows the node: an item is shown when the key may use it, and a folder always."""
        return not node.reference or self._rights.may_use(node.reference)


class ItemFilter:
    """The filter for the streams of a key that is limited to certain items; implements `StandingFilter`.

    All filters of one key are equal.

    Data changes pass when the key may read the item, and completions pass when the key may use the item.
    """

    def __init__(self, rights: ItemRights) -> None:
        self._rights = rights

    def __eq__(self, other: object) -> bool:
        return self._rights is other._rights if isinstance(other, ItemFilter) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._rights))

    @property
    def revision(self) -> int:
        """Always 0, because the rights of a key and item records never change, so the filter decides as before."""
        return 0

    def keep(self, item: ItemRecord, kind: int) -> bool:
        """Return whether an event of this item and kind passes the filter."""
        reference = full_reference(item)
        if reference is None:
            return False
        return self._rights.may_read(reference) if kind in _VALUES else self._rights.may_use(reference)
