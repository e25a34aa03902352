"""Patterns for the references of the items that a key may use: globs and subtrees. Upper and lower case are the same.

A pattern can permit an item but not forbid one. So an unusual spelling of a reference is perhaps denied by mistake, but
never gives access to an item that is not permitted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mxgw.v1.commands_pb2 import ItemReference
from mxgw_core.api import Globs, ItemRecord

# An item is below a subtree when the name of the subtree is followed by one of these characters, which begin an
# attribute, a path segment or an array index.
_BELOW = (".", "/", "[")
# A plain name: it has no separator, and can only have an array index at its end.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ #$-]+(\[\d*\])?")


@dataclass(frozen=True, slots=True)
class ItemPatterns:
    """Globs and subtrees.

    In a glob, `*` stands for any number of characters and `?` for one; no other character is special. A subtree is a
    name; it permits the item of this name and all items below it.
    """

    globs: Sequence[str] = ()
    subtrees: Sequence[str] = ()
    _globs: Globs = field(init=False, repr=False, compare=False)
    _subtrees: Sequence[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_globs", Globs(self.globs))
        object.__setattr__(self, "_subtrees", tuple(subtree.strip().casefold() for subtree in self.subtrees))

    def __bool__(self) -> bool:
        return bool(self.globs or self.subtrees)

    def permit(self, reference: str) -> bool:
        """Return whether at least one pattern matches the reference."""
        if self._globs.match(reference):
            return True
        name = reference.strip().casefold()
        return any(_is_below(name, subtree) for subtree in self._subtrees)


def reference_of(item: ItemReference | ItemRecord) -> str | None:
    """Return the full reference of an item from its context and definition; None when it cannot be determined.

    Each backend has its own rules for a definition with a context; some try the definition alone when the name made of
    context and definition does not exist. Only a definition that is a plain name certainly belongs to its context, so
    the result is None for any other definition that has a context.
    """
    context = item.item_context.strip()
    definition = item.item_definition.strip()
    if not context:
        return definition
    return f"{context}.{definition}" if _PLAIN_NAME.fullmatch(definition) else None


def _is_below(name: str, subtree: str) -> bool:
    return name.startswith(subtree) and (len(name) == len(subtree) or name[len(subtree)] in _BELOW)
