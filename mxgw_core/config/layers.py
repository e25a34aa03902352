"""One layer of settings: nested tables in which each value remembers its source, and checks of a single layer.

A layer is checked before it is merged with the other layers, because a value of a later layer would hide a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mxgw_core.config import schema
from mxgw_core.config.files import Path, Source
from mxgw_core.config.problems import unknown

Tree: TypeAlias = dict[str, Any]  # nested tables; each value in them is a Leaf


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A value, the source that sets it, and the key that the source uses for it."""

    value: Any
    source: Source
    path: Path


def tree_of(data: Mapping[str, Any], source: Source, path: Path = ()) -> Tree:
    """Return `data` with each value inside a Leaf. Tables are not put into a Leaf, so that they can be merged."""
    return {
        key: tree_of(value, source, (*path, key)) if isinstance(value, Mapping) else Leaf(value, source, (*path, key))
        for key, value in data.items()
    }


def branch(path: Path, value: Any, source: Source) -> Tree:
    """Return nested tables that contain only `value`, at the key `path`."""
    for part in reversed(path):
        value = {part: value}
    return tree_of(value, source)


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield the path and the Leaf of every value in the tree."""
    for key, value in tree.items():
        if isinstance(value, Leaf):
            yield (*path, key), value
        else:
            yield from leaves(value, (*path, key))


def values(tree: Tree) -> dict[str, Any]:
    """Return the tree as plain data, without the Leaf objects."""
    return {key: value.value if isinstance(value, Leaf) else values(value) for key, value in tree.items()}


def checked(tree: Tree, source: Source, path: Path = ()) -> tuple[Tree, list[str]]:
    """Return the layer without its wrong entries, and one problem for each wrong entry.

    Only mistakes that could not be found after the merge are looked for: a value in place of a section, a declared key
    in wrong capitals (dynaconf ignores case), a key that dynaconf would treat as a command (`dynaconf_merge` ...), and
    an unknown empty table.
    """
    kept: Tree = {}
    problems: list[str] = []
    declared = schema.fields_of(path) or {}
    by_fold = {name.casefold(): name for name in declared}
    for key, value in tree.items():
        here = (*path, key)
        meant = by_fold.get(key.casefold(), key)
        reason = ""
        if key.lower().startswith("dynaconf_"):
            reason = "unknown key"
        elif meant != key:
            reason = f"unknown key; did you mean {meant!r}?"
        elif isinstance(value, Leaf):
            if here in schema.TABLES:
                reason = f"must be a table, with keys such as {_example(here)}"
            else:
                kept[key] = value
        elif not value and declared and key not in declared and path not in schema.HOLDERS:
            reason = unknown(key, declared)
        else:
            kept[key], inner = checked(value, source, here)
            problems += inner
        if reason:
            problems.append(f"{source.place(here)}: {'.'.join(here)}: {reason}")
    return kept, problems


def _example(table: Path) -> str:
    return ", ".join(sorted(schema.fields_of(table) or {})[:3])
