"""The items that a key may use: globs and subtrees over references, without regard to case.

Patterns only permit, they never forbid. So an unusual spelling of a reference can be denied by mistake, but can never
gain access.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mxgw.v1.commands_pb2 import ItemReference
from mxgw_core.api import Globs, ItemRecord

# What separates the root of a subtree from the rest: an attribute, a path segment, an array index.
_BELOW = (".", "/", "[")
# A name that cannot be a full reference.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ #$-]+(\[\d*\])?")


@dataclass(frozen=True, slots=True)
class ItemPatterns:
    """Globs (`*` any characters, `?` one; nothing else is special) and subtrees (a name and everything below it)."""

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
        """Return whether some pattern matches the reference."""
        if self._globs.match(reference):
            return True
        name = reference.strip().casefold()
        return any(_is_below(name, subtree) for subtree in self._subtrees)


def reference_of(item: ItemReference | ItemRecord) -> str | None:
    """Return the full reference of an item with a context; None when it cannot be known.

    Backends resolve relative references by rules of their own; some try the definition alone when the joined name does
    not exist. Only a plain name is certain to be a member of its context.
    """
    context = item.item_context.strip()
    definition = item.item_definition.strip()
    if not context:
        return definition
    return f"{context}.{definition}" if _PLAIN_NAME.fullmatch(definition) else None


def _is_below(name: str, subtree: str) -> bool:
    return name.startswith(subtree) and (len(name) == len(subtree) or name[len(subtree)] in _BELOW)
