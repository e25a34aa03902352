"""Which references commands and items name."""

from __future__ import annotations

from collections.abc import Iterable

from mxgw.v1.commands_pb2 import ItemReference, MxCommand
from mxgw_acl.patterns import reference_of
from mxgw_core.api import ItemRecord


def item_reference(item: ItemRecord) -> str | None:
    """Return the reference of an item; None when it cannot be told: only keys without constraints may have it then."""
    return reference_of(ItemReference(item_definition=item.item_definition, item_context=item.item_context))


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
