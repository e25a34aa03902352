"""References of items, for plugins that decide by the names of items: guards, filters, policies. Inputs of commands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mxgw.v1.commands_pb2 import ItemReference, MxCommand
from mxgw_core.api.types import ItemRecord

# A plain name: it has no separator, and can only have an array index at its end.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ #$-]+(\[\d*\])?")

# Key: the name of a bulk command. Value: the name of the repeated field that has the command's inputs.
INPUT_FIELDS = {
    "subscribe_bulk": "items",
    "unsubscribe_bulk": "item_handles",
    "write_bulk": "writes",
    "read_bulk": "items",
    "get_item_metadata": "items",
}


def input_count(command: MxCommand) -> int:
    """Return how many inputs a command has: 1 if it is no bulk command."""
    kind = command.WhichOneof("command") or ""
    return len(getattr(getattr(command, kind), INPUT_FIELDS[kind])) if kind in INPUT_FIELDS else 1


def named_items(command: MxCommand) -> Sequence[ItemReference]:
    """Return the items that a command names by references, in the order of its inputs.

    The sequence is empty for a command that names no items; such a command perhaps uses item handles (`used_handles`).
    """
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
        case "get_item_metadata":
            return command.get_item_metadata.items
        case _:
            return ()


def full_reference(item: ItemReference | ItemRecord) -> str | None:
    """Return the full reference of an item, made of its context and its definition; None when it cannot be determined.

    Each backend has its own rules for a definition with a context; some try the definition alone when the name made of
    context and definition does not exist. Only a definition that is a plain name certainly belongs to its context, so
    the result is None for any other definition that has a context. A plugin that decides what callers are allowed to
    use must refuse such an item.
    """
    context = item.item_context.strip()
    definition = item.item_definition.strip()
    if not context:
        return definition
    return f"{context}.{definition}" if _PLAIN_NAME.fullmatch(definition) else None
