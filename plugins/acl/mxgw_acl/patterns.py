"""Which items a key may use: globs and subtrees over references, without regard to case.

There is only permission, no prohibition: a reference that no pattern names is denied, so another spelling of the same
item can lose access and never gain it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mxgw.v1.commands_pb2 import ItemReference

# What may follow the name of a subtree's root: an attribute, a path segment, an array suffix.
_BELOW = (".", "/", "[")
# A name that cannot be a reference of its own.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ #$-]+(\[\d*\])?")


@dataclass(frozen=True, slots=True)
class ItemPatterns:
    """Globs (`*` any characters, `?` one; nothing else is special) and subtrees (a name and everything below it)."""

    globs: Sequence[str] = ()
    subtrees: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.globs or self.subtrees)

    def permit(self, reference: str) -> bool:
        """Return whether some pattern names the reference."""
        name = reference.strip().casefold()
        return any(_compiled(glob).fullmatch(name) for glob in self.globs) or any(
            _is_below(name, subtree.strip().casefold()) for subtree in self.subtrees
        )


def reference_of(item: ItemReference) -> str | None:
    """Return the one thing that an item with a context can mean; None when that cannot be said.

    Backends resolve relative references by rules of their own, some try the definition alone when the joined name does
    not exist. Only a plain name can be nothing but a member of its context.
    """
    context = item.item_context.strip()
    definition = item.item_definition.strip()
    if not context:
        return definition
    return f"{context}.{definition}" if _PLAIN_NAME.fullmatch(definition) else None


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    parts = re.split(r"([*?])", glob.strip().casefold())
    return re.compile("".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _is_below(name: str, subtree: str) -> bool:
    return name == subtree or (name.startswith(subtree) and name[len(subtree) : len(subtree) + 1] in _BELOW)
