"""What one key may do with items: in commands, in browsing, by reference, and in the events that it gets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from mxgw.v1.commands_pb2 import BrowseNode, ItemReference, MxCommand
from mxgw.v1.events_pb2 import EventKind
from mxgw_acl.keys import Constraints
from mxgw_acl.patterns import reference_of
from mxgw_core.api import ItemRecord

_DENIED_READ = "this key may not read the item"
_DENIED_WRITE = "this key may not write the item"
_DENIED_USE = "this key may not use the item"
_DENIED_HANDLE = "this key may use no item of this handle"
_UNTOLD = "this key is limited to certain items: give the full reference instead of one relative to a context"

_VALUES = frozenset({EventKind.EVENT_KIND_DATA_CHANGE, EventKind.EVENT_KIND_BUFFERED_DATA_CHANGE})
_WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})
# The memory for the results of one function. It is bounded in bytes because clients choose the length of references.
REMEMBERED_BYTES = 1024 * 1024
# What one result takes, besides the characters of its reference.
_ANSWER_BYTES = 160


class _Remembered:
    """A function of a reference whose results never change, with its results remembered in bounded memory."""

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
    """The item constraints of a key, with remembered results; a key without a scope to write may write no item."""

    def __init__(self, constraints: Constraints, *, writes: bool) -> None:
        self.may_read = _Remembered(constraints.may_read)
        self.may_write = _Remembered(constraints.may_write if writes else _nothing)

    def may_use(self, reference: str) -> bool:
        """Return whether the item may be added: the key may read it or write it."""
        return self.may_read(reference) or self.may_write(reference)


def _nothing(reference: str) -> bool:
    del reference
    return False


class KeyItems:
    """What a key with item constraints may do with items by reference. Implements `ItemAccess`."""

    def __init__(self, rights: ItemRights, decided: Callable[[str, Sequence[str], Sequence[str]], None]) -> None:
        self._rights = rights
        self._decided = decided

    def may_read(self, reference: str) -> bool:
        """See `ItemAccess`."""
        return self._rights.may_read(reference)

    def may_write(self, reference: str) -> bool:
        """See `ItemAccess`."""
        return self._rights.may_write(reference)

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """See `ItemAccess`."""
        self._decided(action, allowed, denied)


class ItemGuard:
    """Checks the commands of a key with item constraints. Implements `CommandGuard` and `BrowseGuard`."""

    def __init__(self, rights: ItemRights) -> None:
        self._rights = rights

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        """Return the inputs that the key may not use."""
        kind = command.WhichOneof("command")
        if named := named_items(command):
            return self._denied_references(map(reference_of, named), reads=kind == "read_bulk")
        denied: dict[int, str] = {}
        for index, item in enumerate(items):
            reference = reference_of(item) if item is not None else None
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
        """Return whether the node is an item that the key may use, or a folder, which may contain some."""
        return not node.reference or self._rights.may_use(node.reference)


class ItemFilter:
    """Lets pass what a key with item constraints may see: values of items it may read, completions for items it may
    use.

    Implements `StandingFilter`; all filters of one key are equal.
    """

    def __init__(self, rights: ItemRights) -> None:
        self._rights = rights

    def __eq__(self, other: object) -> bool:
        return self._rights is other._rights if isinstance(other, ItemFilter) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._rights))

    @property
    def revision(self) -> int:
        """See `StandingFilter`: the rights of a key and the records of items never change."""
        return 0

    def keep(self, item: ItemRecord, kind: int) -> bool:
        """See `EventFilter`."""
        reference = reference_of(item)
        if reference is None:
            return False
        return self._rights.may_read(reference) if kind in _VALUES else self._rights.may_use(reference)


def named_items(command: MxCommand) -> Sequence[ItemReference]:
    """Return the items that a command names by reference, in the order of its inputs; none when it uses handles."""
    match command.WhichOneof("command"):
        case "add_item":
            return [ItemReference(item_definition=command.add_item.item_definition)]
        case "add_item2":
            item2 = command.add_item2
            return [ItemReference(item_definition=item2.item_definition, item_context=item2.item_context)]
        case "add_buffered_item":
            buffered = command.add_buffered_item
            return [ItemReference(item_definition=buffered.item_definition, item_context=buffered.item_context)]
        case "subscribe_bulk":
            return command.subscribe_bulk.items
        case "read_bulk":
            return command.read_bulk.items
        case _:
            return ()
