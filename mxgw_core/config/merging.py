"""Merges layers of settings, by dynaconf. No other module imports dynaconf, and this one is imported late.

Only its merging of tables is used. It gets no file names, so it looks for no files, hooks or includes, and it reads no
environment. Each value is inside a `Leaf`, so its casts and templates (`@int`, `@jinja`, `@read_file` ...) do not
apply, and a list replaces an older one as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynaconf.base import Settings as Layers  # type: ignore[import-untyped]  # it ships no types

from mxgw_core.config.layers import Tree

# Everything is below one key, because dynaconf ignores the case of top-level names, and treats some of them as
# commands.
_ROOT = "MXGW"


def laid_over(layers: Iterable[Tree]) -> Tree:
    """Return one tree in which later layers win: tables are merged, other values replaced. The layers are changed.

    Keys that differ only in case are one key, spelled as in the first layer that has it.
    """
    # Without its loaders dynaconf has no files and no environment; without boxes its tables are plain dictionaries.
    merged = Layers(dynaconf_skip_loaders=True, dynaconf_skip_validators=True, dynaboxify=False)
    for layer in layers:
        merged.set(_ROOT, layer, merge=True)
    tree: Tree = merged.get(_ROOT, {})
    return tree
