"""What one layer says wrongly by itself; once layers are merged, a later one would hide it."""

from __future__ import annotations

from mxgw_core.config import schema
from mxgw_core.config.layers import Leaf, Tree, leaves
from mxgw_core.config.sources import Path


def checked(tree: Tree, path: Path = ()) -> tuple[Tree, list[str]]:
    """Return the layer without what cannot be merged, and one line for each such thing.

    That is: a value in place of a section, a declared key in other capitals (dynaconf would take it for the key), and
    words that dynaconf would obey silently (`dynaconf_merge` ...).
    """
    kept: Tree = {}
    problems: list[str] = []
    declared = schema.fields_of(path) or {}
    by_fold = {name.casefold(): name for name in declared}
    for key, value in tree.items():
        here = (*path, key)
        meant = by_fold.get(key.casefold(), key)
        if key.lower().startswith("dynaconf_"):
            problems.append(f"{_place(value, here)}: {'.'.join(here)}: unknown key")
        elif meant != key:
            problems.append(f"{_place(value, here)}: {'.'.join(here)}: unknown key; did you mean {meant!r}?")
        elif isinstance(value, Leaf):
            if here in schema.TABLES:
                problems.append(f"{_place(value, here)}: {key}: must be a table, with keys such as {_example(here)}")
            else:
                kept[key] = value
        else:
            kept[key], inner = checked(value, here)
            problems += inner
    return kept, problems


def _place(value: Leaf | Tree, path: Path) -> str:
    if isinstance(value, Leaf):
        return value.source.place(path)
    for _, leaf in leaves(value):
        return leaf.source.place(path)
    return "an empty table"


def _example(table: Path) -> str:
    return ", ".join(sorted(schema.fields_of(table) or {})[:3])
