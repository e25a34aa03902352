"""Loads the settings: find the files, merge the layers, validate, and remember where each value was set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from mxgw_core.api.errors import SettingsError
from mxgw_core.config import schema
from mxgw_core.config.effective import paths_of
from mxgw_core.config.environment import environment_layers, value_of
from mxgw_core.config.files import COMMAND_LINE, DEFAULT, Path, Source, UnreadableSource, read_toml
from mxgw_core.config.layers import Leaf, Tree, branch, checked, leaves, tree_of, values
from mxgw_core.config.models import Settings, unknown_default_backend
from mxgw_core.config.problems import nearest, unknown, validated, validation_problems

SETTINGS_FILE = "settings.toml"
SECRETS_FILE = ".secrets.toml"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Valid settings; where each dotted key was set (`origins`); and the files that were read.

    Origins are "default", "settings.toml", "/path/file.toml", ".secrets.toml", "environment MXGW_...", "command line".
    """

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[FilePath, ...]


def load_settings(
    file: FilePath | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: FilePath | None = None,
) -> LoadedSettings:
    """Return the settings; when several layers set a key, the last one wins.

    The layers: defaults; `settings.toml` in `directory` (the working directory), which need not exist; `file`, which
    must; `.secrets.toml` beside each; `MXGW_` variables of `environ` (the process's own); `overrides` by dotted key,
    whose texts are read like those of the environment, and where None means not given. Tables are merged, lists are
    replaced.

    Raises:
        SettingsError: something is wrong; one line per problem, all problems at once.
    """
    # dynaconf takes long to import, and most commands never load settings.
    from mxgw_core.config.merging import laid_over

    problems: list[str] = []
    trees = [tree_of(schema.defaults(), Source(DEFAULT))]
    files: list[FilePath] = []

    def add(source: Source, tree: Tree) -> None:
        tree, wrong = checked(tree, source)
        trees.append(tree)
        problems.extend(wrong)

    for path, label, needed, private in _files(file, directory):
        try:
            content = read_toml(path, label, private=private)
        except UnreadableSource as error:
            problems.append(str(error))
            continue
        if content is not None:
            files.append(path)
            add(content[0], tree_of(content[1], content[0]))
        elif needed:
            problems.append(f"{label}: no such file; name an existing settings file, or leave the option out")

    known = _named([leaf for tree in trees for _, leaf in leaves(tree)])
    for name, key, value in environment_layers(os.environ if environ is None else environ, known):
        source = Source(f"environment {name}")
        add(source, branch(key, value, source))
    for dotted, given in (overrides or {}).items():
        key = tuple(dotted.split("."))
        value = value_of(key, given) if isinstance(given, str) else given
        if value is not None:
            source = Source(COMMAND_LINE)
            add(source, branch(key, value, source))

    order = [leaf.source.label for tree in trees for _, leaf in leaves(tree)]
    merged = laid_over(trees)
    found = dict(leaves(merged))
    problems += _respelled(found)

    data = schema.model_input(values(merged))
    try:
        settings = validated(Settings, data)
    except ValidationError as error:
        places = _Places(found, order)
        problems += validation_problems(
            error,
            declaration=schema.field_of,
            describe_unknown=_describe_unknown,
            file_path=schema.file_path,
            place=places,
        )
        problems += _default_backend_problem(data, error, places)
    if problems:
        raise SettingsError("\n".join(problems))
    origins = {".".join(path): found[path].source.label if path in found else DEFAULT for path in paths_of(settings)}
    return LoadedSettings(settings, origins, tuple(files))


def _files(file: FilePath | None, directory: FilePath | None) -> list[tuple[FilePath, str, bool, bool]]:
    """Return path, label, whether it must exist, and whether it must be private, in the order of the layers."""
    base = FilePath.cwd() if directory is None else directory
    in_working_directory = base.absolute() == FilePath.cwd()

    def label(name: str) -> str:
        return name if in_working_directory else str(base / name)

    found = [(base / SETTINGS_FILE, label(SETTINGS_FILE), False, False)]
    secrets = {(base / SECRETS_FILE).absolute(): label(SECRETS_FILE)}
    if file is not None:
        named = (file, str(file), True, False)
        # Naming the directory's own file only makes it mandatory.
        found = [named] if file.absolute() == found[0][0].absolute() else [*found, named]
        secrets.setdefault((file.parent / SECRETS_FILE).absolute(), str(file.parent / SECRETS_FILE))
    return found + [(path, name, False, True) for path, name in secrets.items()]


def _named(written: Sequence[Leaf]) -> set[Path]:
    """Return the keys and named tables of lower layers, so that variables of the environment can set them."""
    known = {leaf.path for leaf in written if leaf.path[0] in ("backends", "plugins")}
    known |= {path[:2] for path in known}
    for leaf in written:
        if leaf.path == ("plugins", "enabled") and isinstance(leaf.value, list):
            known |= {("plugins", name) for name in leaf.value if isinstance(name, str)}
    return known


def _respelled(found: Mapping[Path, Leaf]) -> list[str]:
    """Return the problems of keys that were merged with another key only because case was ignored."""
    return [
        f"{leaf.source.place(leaf.path)}: {'.'.join(leaf.path)}: unknown key; did you mean {'.'.join(path)!r}?"
        for path, leaf in found.items()
        if leaf.path != path and leaf.source.text
    ]


class _Places:
    """Finds where a key was set, or else a key in its table."""

    def __init__(self, found: Mapping[Path, Leaf], order: Sequence[str]) -> None:
        self._found = found
        self._order = order

    def __call__(self, path: Path) -> str:
        for length in range(len(path), 0, -1):
            if (leaf := self._found.get(path[:length])) is not None:
                return leaf.source.place(path)
        inside = [leaf for found, leaf in self._found.items() if found[: len(path)] == path]
        configured = [leaf for leaf in inside if leaf.source.label != DEFAULT]
        if not configured:
            return DEFAULT
        # When several keys do not fit together, the last layer that set one of them is at fault.
        return max(configured, key=lambda leaf: self._order.index(leaf.source.label)).source.place(path)


def _describe_unknown(path: Path) -> str:
    if path[0] in ("backends", "plugins") and len(path) == 2:
        thing = "a backend" if path[0] == "backends" else "a plugin's settings"
        return f"{unknown(path[1], schema.fields_of(path[:1]) or {})} ({thing} would be a table, [{'.'.join(path)}])"
    keys = schema.fields_of(path[:-1]) or {}
    if nearest(path[-1], keys) is None:
        for section in schema.SECTIONS:
            if path[-1] in (schema.fields_of((section,)) or {}):
                return f"unknown key; it belongs to [{section}]"
    return unknown(path[-1], keys)


def _default_backend_problem(data: Mapping[str, Any], error: ValidationError, places: _Places) -> list[str]:
    """Return the problem of an unknown default backend, which pydantic checks last: not at all when there are other
    problems.
    """
    backends = data.get("backends", {})
    default = data.get("default_backend")
    if not isinstance(backends, dict) or not isinstance(default, str):
        return []
    named = [name for name, table in backends.items() if isinstance(table, dict)] or list(Settings().backends)
    if default in named or any(details["loc"] == () for details in error.errors(include_url=False)):
        return []
    return [f"{places(('backends', 'default'))}: backends.default: {unknown_default_backend(default, named)}"]
