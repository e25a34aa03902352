"""Layers of settings laid over each other, by dynaconf. No other module imports it, and this one is imported late.

dynaconf merges tables; its other services stay off. It is given no file names, so it looks for no further files, hooks
or includes; it reads no environment; and each value travels inside a `Leaf`, which its casts and templates (`@int`,
`@jinja`, `@read_file` ...) do not recognise, and which replaces an older list as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynaconf.base import Settings as Layers  # type: ignore[import-untyped]  # it ships no types

from mxgw_core.config.layers import Tree

# Everything lives below one key: dynaconf folds the case of top-level names and gives some of them a meaning.
_ROOT = "MXGW"


def laid_over(layers: Iterable[Tree]) -> Tree:
    """Return one tree in which later layers win: tables merge, anything else is replaced. The layers are used up.

    Keys that differ only in case are one key, spelled as in the first layer that has it.
    """
    # Without its loaders dynaconf has no files and no environment; without boxes its tables are plain dictionaries.
    merged = Layers(dynaconf_skip_loaders=True, dynaconf_skip_validators=True, dynaboxify=False)
    for layer in layers:
        merged.set(_ROOT, layer, merge=True)
    tree: Tree = merged.get(_ROOT, {})
    return tree
