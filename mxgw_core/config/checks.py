"""What one layer says wrongly by itself; once layers are merged, a later one would hide it."""

from __future__ import annotations

from mxgw_core.config import schema
from mxgw_core.config.layers import Leaf, Tree
from mxgw_core.config.problems import unknown
from mxgw_core.config.sources import Path, Source


def checked(tree: Tree, source: Source, path: Path = ()) -> tuple[Tree, list[str]]:
    """Return the layer without what cannot be merged, and one line for each such thing.

    That is: a value in place of a section, a declared key in other capitals (dynaconf would take it for the key),
    words that dynaconf would obey silently (`dynaconf_merge` ...), and unknown tables that are empty.
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
