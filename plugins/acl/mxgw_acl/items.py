"""Which reference an item handle of a session stands, and stood, for; learnt from the commands as they pass.

Handles come back soon after they were removed, while events of the item before may still be unread. So each entry
knows between which sequences its events lie, as exactly as commands and answers tell; where two may be meant, both are
named, and a key must be allowed both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from mxgw.v1.commands_pb2 import ItemReference, MxCommand, MxReply
from mxgw.v1.session_service_pb2 import ItemState
from mxgw_acl.patterns import reference_of

Handle: TypeAlias = tuple[int, int]

# Items that one handle stood for, one after the other; of older ones no event is shown to constrained keys.
_REMEMBERED = 16
_ADDS = frozenset({"add_item", "add_item2", "add_buffered_item", "subscribe_bulk"})
_REMOVES = frozenset({"remove_item", "unsubscribe_bulk", "unregister"})


@dataclass(slots=True)
class Item:
    """What a handle stands for. Its events have sequences in `after < sequence <= until`."""

    # None: the reference cannot be told, so only keys without constraints may have it.
    reference: str | None
    after: float = 0
    until: float = inf
    # When, in the order of things here, its removal was known.
    removed_at: int = 0


class ItemMap:
    """The items of one session. Lives in the event loop."""

    def __init__(self) -> None:
        self._items: dict[Handle, deque[Item]] = {}
        # Adding commands under way, by identity, and the moment each began.
        self._adding: dict[int, int] = {}
        # The handles that removing commands under way are about.
        self._removing: dict[int, Collection[Handle]] = {}
        self._moment = 0
        # Another one whenever what a handle stands, or may stand, for has changed.
        self.revision = 0

    @property
    def is_adding(self) -> bool:
        """Whether some handle may be in use of which the answer has not come yet."""
        return bool(self._adding)

    def is_doubtful(self, handle: Handle) -> bool:
        """Whether the handle may just be passing from one item to another."""
        return bool(self._adding) and any(handle in handles for handles in self._removing.values())

    def current(self, handle: Handle) -> Item | None:
        """Return what a handle stands for now."""
        items = self._items.get(handle)
        return items[-1] if items and items[-1].until == inf else None

    def meant(self, handle: Handle, sequence: int) -> Sequence[Item]:
        """Return what the handle may have stood for when the event `sequence` came; mostly one, none when unknown."""
        items = self._items.get(handle)
        if not items:
            return ()
        newest = items[-1]
        if len(items) == 1 or sequence > items[-2].until:
            return (newest,) if newest.after < sequence <= newest.until else ()
        return [item for item in items if item.after < sequence <= item.until]

    def settled(self, handle: Handle) -> tuple[Item | None, float]:
        """Return what the handle stands for from some sequence on, and that sequence; None with it: nothing known.

        The sequence is infinite where it depends on each event.
        """
        items = self._items.get(handle)
        if self._adding and (not items or self.is_doubtful(handle)):
            return None, inf
        if not items:
            return None, 0
        newest = items[-1]
        before = items[-2].until if len(items) > 1 else 0
        return newest, max(before, newest.after) if newest.until == inf else inf

    # from the worker, for a session that began before this gateway

    def learning(self) -> None:
        """What the worker has is being asked for; until `learnt`, no event of an unknown handle is judged."""
        self.revision += 1
        self._adding[id(self)] = 0

    def learnt(self, states: Iterable[ItemState]) -> None:
        """Take over what the worker has; what commands told meanwhile counts more."""
        self.revision += 1
        self._adding.pop(id(self), None)
        for state in states:
            reference = reference_of(
                ItemReference(item_definition=state.item_definition, item_context=state.item_context)
            )
            self._items.setdefault(
                (state.server_handle, state.item_handle), deque([Item(reference)], maxlen=_REMEMBERED)
            )

    # from the commands

    def started(self, command: MxCommand) -> None:
        """A command goes to the worker."""
        if command.WhichOneof("command") in _ADDS:
            self.revision += 1
            self._moment += 1
            self._adding[id(command)] = self._moment
        elif removed := frozenset(self._removed(command, None)):
            self.revision += 1
            self._removing[id(command)] = removed

    def finished(self, command: MxCommand, reply: MxReply | None, head_sequence: int) -> None:
        """The command's answer came; None: nobody knows what became of it."""
        kind = command.WhichOneof("command")
        if kind in _ADDS or kind in _REMOVES:
            self.revision += 1
        began = self._adding.pop(id(command), 0)
        self._removing.pop(id(command), None)
        if kind in _ADDS and reply is not None:
            for handle, item in _added(command, reply):
                self._add(handle, item, began)
        elif kind in _REMOVES:
            self._moment += 1
            for handle in self._removed(command, reply):
                self._remove(handle, head_sequence if reply is not None else None)

    def _add(self, handle: Handle, reference: str | None, began: int) -> None:
        items = self._items.setdefault(handle, deque(maxlen=_REMEMBERED))
        item = Item(reference)
        if items and 0 < items[-1].removed_at < began:
            # The one before was gone before this add began, so its events end where these can begin.
            item.after = items[-1].until
        items.append(item)

    def _remove(self, handle: Handle, head_sequence: int | None) -> None:
        if head_sequence is None:
            # It may be gone and another in its place already: of this handle nothing can be said any more.
            self._items.pop(handle, None)
            return
        items = self._items.get(handle)
        for item in items or ():
            if item.until == inf:
                item.until = head_sequence
                item.removed_at = self._moment

    def _removed(self, command: MxCommand, reply: MxReply | None) -> Iterator[Handle]:
        """Yield the handles that are, or may be, gone."""
        match command.WhichOneof("command"):
            case "remove_item" if reply is None or reply.hresult == 0:
                yield command.remove_item.server_handle, command.remove_item.item_handle
            case "unsubscribe_bulk":
                bulk = command.unsubscribe_bulk
                for index, item_handle in enumerate(bulk.item_handles):
                    if reply is None or index >= len(reply.bulk.items) or reply.bulk.items[index].hresult == 0:
                        yield bulk.server_handle, item_handle
            case "unregister" if reply is None or reply.hresult == 0:
                yield from [h for h in self._items if h[0] == command.unregister.server_handle]
            case _:
                return


def added_references(command: MxCommand) -> Iterable[str | None]:
    """Return the references that a command names, in the order of its inputs; None for what cannot be told.

    What names none is false.
    """
    match command.WhichOneof("command"):
        case "add_item":
            return [command.add_item.item_definition.strip()]
        case "add_item2":
            item2 = command.add_item2
            return [reference_of(ItemReference(item_definition=item2.item_definition, item_context=item2.item_context))]
        case "add_buffered_item":
            buffered = command.add_buffered_item
            return [
                reference_of(
                    ItemReference(item_definition=buffered.item_definition, item_context=buffered.item_context)
                )
            ]
        case "subscribe_bulk":
            return map(reference_of, command.subscribe_bulk.items)
        case "read_bulk":
            return map(reference_of, command.read_bulk.items)
        case _:
            return ()


def used_handles(command: MxCommand) -> Iterable[Handle]:
    """Return the handles that a command uses, in the order of its inputs."""
    match command.WhichOneof("command"):
        case "write_bulk":
            return ((command.write_bulk.server_handle, write.item_handle) for write in command.write_bulk.writes)
        case "unsubscribe_bulk":
            bulk = command.unsubscribe_bulk
            return ((bulk.server_handle, item_handle) for item_handle in bulk.item_handles)
        case (
            "write"
            | "write2"
            | "write_secured"
            | "write_secured2"
            | "remove_item"
            | "advise"
            | "advise_supervisory"
            | "un_advise"
            | "suspend"
            | "activate"
        ) as kind:
            used = getattr(command, kind)
            return [(used.server_handle, used.item_handle)]
        case _:
            return ()


def _added(command: MxCommand, reply: MxReply) -> Iterator[tuple[Handle, str | None]]:
    references = added_references(command)
    if command.WhichOneof("command") == "subscribe_bulk":
        server_handle = command.subscribe_bulk.server_handle
        for reference, result in zip(references, reply.bulk.items, strict=False):
            if result.item_handle:
                yield (server_handle, result.item_handle), reference
        return
    if reply.WhichOneof("result") == "item_handle":
        added = getattr(command, command.WhichOneof("command") or "")
        yield (added.server_handle, reply.item_handle), next(iter(references))
