"""Loads the settings: finds the files, merges the layers, validates the result, remembers where each value was set."""

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
    """Valid settings, where they were set, and which files were read.

    `origins` has the place where each key was set. Key: a dotted key. Value: "default", the name of a file (for example
    "settings.toml" or "/path/file.toml"), "environment MXGW_...", or "command line".
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
    """Return the settings, merged from several layers. When several layers set a key, the last of these layers wins.

    The layers, in this order:

    1. the defaults;
    2. `settings.toml` in `directory`, by default the working directory; it does not need to exist;
    3. `file`, which must exist if it is not None;
    4. `.secrets.toml` in `directory` and in the directory of `file`, if they exist;
    5. the variables in `environ` that begin with `MXGW_`; by default the environment of this process;
    6. `overrides`, by dotted key. A text is read like the text of a variable; None means that the key is not set.

    Tables of several layers are merged; a list replaces the list of an earlier layer.

    Raises:
        SettingsError: something is wrong. The text has one line per problem, and reports all problems at once, with two
            exceptions: of the rules between the keys of one section only the first broken rule is reported; and rules
            between sections are checked only when each section is valid (but the default backend is always checked).
    """
    # Imported here, because dynaconf takes long to import, and most commands never load settings.
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
    """Return the files to read, in the order of the layers.

    For each file: its path, its name in messages, whether it must exist, and whether it must be private.
    """
    base = FilePath.cwd() if directory is None else directory
    in_working_directory = base.absolute() == FilePath.cwd()

    def label(name: str) -> str:
        return name if in_working_directory else str(base / name)

    found = [(base / SETTINGS_FILE, label(SETTINGS_FILE), False, False)]
    secrets = {(base / SECRETS_FILE).absolute(): label(SECRETS_FILE)}
    if file is not None:
        named = (file, str(file), True, False)
        # `file` can be the `settings.toml` of `directory`. Then it is one layer, and the only difference is that it
        # must exist.
        found = [named] if file.absolute() == found[0][0].absolute() else [*found, named]
        secrets.setdefault((file.parent / SECRETS_FILE).absolute(), str(file.parent / SECRETS_FILE))
    return found + [(path, name, False, True) for path, name in secrets.items()]


def _named(written: Sequence[Leaf]) -> set[Path]:
    """Return the keys and tables below `backends` and `plugins` that the files contain, and the enabled plugins.

    A variable of the environment has capital letters only. With the names that are returned here, it is still possible
    to find out which key the variable sets.
    """
    known = {leaf.path for leaf in written if leaf.path[0] in ("backends", "plugins")}
    known |= {path[:2] for path in known}
    for leaf in written:
        if leaf.path == ("plugins", "enabled") and isinstance(leaf.value, list):
            known |= {("plugins", name) for name in leaf.value if isinstance(name, str)}
    return known


def _respelled(found: Mapping[Path, Leaf]) -> list[str]:
    """Return one problem for each key of a file that has other capitals than the same key of an earlier layer.

    dynaconf merged these keys, because it ignores case.
    """
    return [
        f"{leaf.source.place(leaf.path)}: {'.'.join(leaf.path)}: unknown key; did you mean {'.'.join(path)!r}?"
        for path, leaf in found.items()
        if leaf.path != path and leaf.source.text
    ]


class _Places:
    """Returns the place (file and line) where a key was set. For a key that was not set, it returns the place of a
    table around the key. For the name of a table, it returns the place of a key inside the table.
    """

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
        # When keys of a table contradict each other, the mistake is probably in the last layer that set one of them.
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
    """Return the problem of an unknown default backend, if there is one and `error` does not contain it.

    pydantic compares the sections with each other only when each section is valid. Then `error` has one entry without a
    location (`SettingsConflict`) with all such problems. In any other case the default backend is checked here.
    """
    backends = data.get("backends", {})
    default = data.get("default_backend")
    if not isinstance(backends, dict) or not isinstance(default, str):
        return []
    named = [name for name, table in backends.items() if isinstance(table, dict)] or list(Settings().backends)
    if default in named or any(details["loc"] == () for details in error.errors(include_url=False)):
        return []
    return [f"{places(('backends', 'default'))}: backends.default: {unknown_default_backend(default, named)}"]
