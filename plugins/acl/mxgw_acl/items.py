"""Which references commands and items name."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.v1.commands_pb2 import ItemReference, MxCommand
from mxgw_acl.patterns import reference_of
from mxgw_core.api import ItemRecord


def item_reference(item: ItemRecord) -> str | None:
    """Return the reference of an item; None when it cannot be told: only keys without constraints may have it then."""
    return reference_of(item)


def named_items(command: MxCommand) -> Sequence[ItemReference]:
    """Return what a command names by reference, in the order of its inputs; nothing for a command with handles."""
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
