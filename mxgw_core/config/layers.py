"""What a layer of settings is made of: nested tables, and in them values that know where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mxgw_core.config.sources import Path, Source

Tree: TypeAlias = dict[str, Any]  # nested tables with a Leaf wherever a value stands


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A value, where it comes from, and under which key it was written there."""

    value: Any
    source: Source
    path: Path


def tree_of(data: Mapping[str, Any], source: Source, path: Path = ()) -> Tree:
    """Return `data` with its values wrapped; tables stay tables, so that they merge."""
    return {
        key: tree_of(value, source, (*path, key)) if isinstance(value, Mapping) else Leaf(value, source, (*path, key))
        for key, value in data.items()
    }


def branch(path: Path, value: Any, source: Source) -> Tree:
    """Return a tree that sets one key."""
    for part in reversed(path):
        value = {part: value}
    return tree_of(value, source)


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield every value with the path under which it counts."""
    for key, value in tree.items():
        if isinstance(value, Leaf):
            yield (*path, key), value
        else:
            yield from leaves(value, (*path, key))


def values(tree: Tree) -> dict[str, Any]:
    """Return the tree as plain data."""
    return {key: value.value if isinstance(value, Leaf) else values(value) for key, value in tree.items()}
