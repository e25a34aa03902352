"""Merges layers of settings with dynaconf.

No other module imports dynaconf, and this module is imported only when settings are loaded, because dynaconf takes long
to import. Only its function that merges tables is used. dynaconf gets no file names and reads no environment, so it
does not look for files, hooks or includes. Each value is inside a `Leaf`. So dynaconf does not apply its casts and
templates (`@int`, `@jinja`, `@read_file` ...), and it replaces a list instead of adding to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynaconf.base import Settings as Layers  # type: ignore[import-untyped]  # it ships no types

from mxgw_core.config.layers import Tree

# The layers are put below one key, because dynaconf treats names at the top level in a special way: it ignores their
# case, and some of them are commands.
_ROOT = "MXGW"


def laid_over(layers: Iterable[Tree]) -> Tree:
    """Merge the layers into one tree. Tables are merged; any other value replaces the value of an earlier layer.

    The layers themselves are changed, so do not use them afterwards. Keys that differ only in case are treated as one
    key, with the spelling of the first layer that has the key.
    """
    # Without loaders dynaconf reads no files and no environment. Without "dynabox" its tables are plain dictionaries.
    merged = Layers(dynaconf_skip_loaders=True, dynaconf_skip_validators=True, dynaboxify=False)
    for layer in layers:
        merged.set(_ROOT, layer, merge=True)
    tree: Tree = merged.get(_ROOT, {})
    return tree
