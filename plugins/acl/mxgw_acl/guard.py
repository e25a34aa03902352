"""One key on one session: which inputs of a command it may use, and which events it may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand, MxReply
from mxgw.v1.events_pb2 import EventKind
from mxgw_acl.items import ItemMap, added_references, used_handles
from mxgw_acl.keys import Constraints
from mxgw_core.api import StandingAnswer

_DENIED_READ = "this key may not read the item"
_DENIED_WRITE = "this key may not write the item"
_DENIED_USE = "this key may not use the item"
_DENIED_HANDLE = "this key may use no item of this handle"
_UNTOLD = "this key is limited to certain items: give the full reference instead of one relative to a context"

_VALUES = frozenset({EventKind.EVENT_KIND_DATA_CHANGE, EventKind.EVENT_KIND_BUFFERED_DATA_CHANGE})
_WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})
# What is said of so many references is remembered.
_REMEMBERED = 65_536


class ItemRights:
    """What the constraints of a key say of references, remembered; a key that cannot write may write nothing."""

    def __init__(self, constraints: Constraints, *, writes: bool) -> None:
        # Per object, so that they go when it goes.
        self.may_read = lru_cache(_REMEMBERED)(constraints.may_read)
        self.may_write = lru_cache(_REMEMBERED)(constraints.may_write if writes else _nothing)

    def may_use(self, reference: str) -> bool:
        """Return whether the item may be added: to be read or to be written."""
        return self.may_read(reference) or self.may_write(reference)


def _nothing(reference: str) -> bool:
    del reference
    return False


class KeyItems:
    """What a key with item constraints may do with items by reference; implements `ItemAccess`."""

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


class Tracking:
    """The guard of a key without item constraints: it denies nothing, and sees what handles stand for."""

    def __init__(self, items: ItemMap) -> None:
        self._items = items

    def denied(self, command: MxCommand) -> Mapping[int, str]:
        """Return nothing."""
        del command
        return {}

    def started(self, command: MxCommand) -> None:
        """See `CommandObserver`."""
        self._items.started(command)

    def finished(self, command: MxCommand, reply: MxReply | None, head_sequence: int) -> None:
        """See `CommandObserver`."""
        self._items.finished(command, reply, head_sequence)


class ItemGuard(Tracking):
    """The guard of a key with item constraints."""

    def __init__(self, items: ItemMap, rights: ItemRights) -> None:
        super().__init__(items)
        self._rights = rights

    def denied(self, command: MxCommand) -> Mapping[int, str]:
        """Return the inputs that the key may not use."""
        kind = command.WhichOneof("command")
        if references := added_references(command):
            return self._denied_references(references, reads=kind == "read_bulk")
        denied: dict[int, str] = {}
        for index, handle in enumerate(used_handles(command)):
            item = self._items.current(handle)
            if item is None or item.reference is None or not self._rights.may_use(item.reference):
                denied[index] = _DENIED_HANDLE
            elif kind in _WRITES and not self._rights.may_write(item.reference):
                denied[index] = _DENIED_WRITE
        return denied

    def _denied_references(self, references: Sequence[str | None], *, reads: bool) -> Mapping[int, str]:
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
        """Return whether the node is an item the key may use, or a place where such may be."""
        return not node.reference or self._rights.may_use(node.reference)


class ItemFilter:
    """Which events a key with item constraints may see: values of what it may read, completions of what it may use.

    Implements `StandingFilter`; those of one key and session are equal.
    """

    def __init__(self, items: ItemMap, rights: ItemRights) -> None:
        self._items = items
        self._rights = rights
        # What may be seen of a reference, by reference and whether it is a value; per event nothing else is asked.
        self._answers: dict[tuple[str | None, bool], bool] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ItemFilter):
            return NotImplemented
        return self._items is other._items and self._rights is other._rights

    def __hash__(self) -> int:
        return hash((id(self._items), id(self._rights)))

    @property
    def revision(self) -> int:
        """See `StandingFilter`: rights never change, what handles stand for does."""
        return self._items.revision

    def standing(self, server_handle: int, item_handle: int, kind: int) -> StandingAnswer | None:
        """See `StandingFilter`."""
        item, after = self._items.settled((server_handle, item_handle))
        if after == inf:
            return None
        return StandingAnswer(item is not None and self._answer(item.reference, kind in _VALUES), int(after))

    def keep(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        """See `EventFilter`: None while the handle may belong to an item whose adding is not answered yet."""
        handle = server_handle, item_handle
        items = self._items
        meant = items.meant(handle, sequence)
        if not meant or (items.is_adding and items.is_doubtful(handle)):
            return None if items.is_adding else False
        return all(self._answer(item.reference, kind in _VALUES) for item in meant)

    def _answer(self, reference: str | None, is_value: bool) -> bool:
        known = reference, is_value
        answer = self._answers.get(known)
        if answer is None:
            answer = self._may_see(*known)
            if len(self._answers) < _REMEMBERED:
                self._answers[known] = answer
        return answer

    def _may_see(self, reference: str | None, is_value: bool) -> bool:
        if reference is None:
            return False
        return self._rights.may_read(reference) if is_value else self._rights.may_use(reference)


def items_of(command: MxCommand, items: ItemMap) -> Iterator[str]:
    """Yield the references that a command is about, input by input, for the audit log."""
    references = added_references(command)
    if not references:
        references = [
            item.reference if (item := items.current(handle)) is not None else f"handle {handle[1]}"
            for handle in used_handles(command)
        ]
    for reference in references:
        yield reference or "?"
