"""Patterns for the references of the items that a key may use: globs and subtrees. Upper and lower case are the same.

A pattern can permit an item but not forbid one. So an unusual spelling of a reference is perhaps denied by mistake, but
never gives access to an item that is not permitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mxgw_core.api import Globs

# An item is below a subtree when the name of the subtree is followed by one of these characters, which begin an
# attribute, a path segment or an array index.
_BELOW = (".", "/", "[")


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


def _is_below(name: str, subtree: str) -> bool:
    return name.startswith(subtree) and (len(name) == len(subtree) or name[len(subtree)] in _BELOW)
