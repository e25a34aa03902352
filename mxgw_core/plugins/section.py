"""Validates the settings section of a plugin, `[plugins.<name>]`, and passes the settings to the plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError

from mxgw_core.api.errors import SettingsError
from mxgw_core.api.settings import SettingsSection, left_behind
from mxgw_core.config.files import Path
from mxgw_core.config.problems import unknown, validated, validation_problems
from mxgw_core.config.schema import model_fields_at
from mxgw_core.plugins.answers import WrongAnswer, check_of
from mxgw_core.plugins.loading import LoadFailure, describe

_SECTION = check_of(SettingsSection, "a SettingsSection")


def apply_section(
    name: str,
    declared: SettingsSection[Any] | None,
    table: Mapping[str, Any],
    origins: Mapping[str, str],
    data_dir: FilePath,
) -> None:
    """Validate the table of a plugin, and call the plugin's `apply` with the settings.

    Relative paths in the settings become absolute paths below `data_dir`. `declared` is what the plugin's hook
    `mxgw_settings` returned.

    Raises:
        SettingsError: the table is wrong. The text has one line per problem.
        LoadFailure: `declared` is wrong, or the plugin's `apply` raised an exception.
    """

    def place(path: Path) -> str:
        for length in range(len(path), 1, -1):
            if (origin := origins.get(".".join(path[:length]))) is not None:
                return origin
        prefix = ".".join(path) + "."
        inside = [origin for key, origin in origins.items() if key.startswith(prefix)]
        return inside[-1] if inside else "settings"

    if declared is None:
        if table:
            raise SettingsError(
                "\n".join(
                    f"{place(('plugins', name, key))}: plugins.{name}.{key}: unknown key; this plugin has no settings"
                    for key in table
                )
            )
        return
    try:
        # The fields are read here, once. They can be properties of a class that the plugin has derived.
        declared = _SECTION(declared)
    except KeyboardInterrupt:
        raise
    except WrongAnswer as error:
        raise LoadFailure(f"mxgw_settings {error}") from error
    except BaseException as error:
        raise LoadFailure(f"the answer of mxgw_settings raised {describe(error)}") from error
    assert declared is not None
    if declared.name != name:
        raise LoadFailure(f"mxgw_settings names the section {declared.name!r}; it must be the plugin's name, {name!r}")
    if not issubclass(declared.model, BaseModel):
        raise LoadFailure("the model of mxgw_settings is no pydantic model")
    settings = _validated(name, declared, table, place)
    if left := [
        f"{place(path)}: {'.'.join(path)}: {text}" for path, text in _left_behind(("plugins", name), settings, data_dir)
    ]:
        raise SettingsError("\n".join(left))
    settings = _below(data_dir, settings)
    try:
        declared.apply(settings)
    except (SettingsError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise LoadFailure(f"applying its settings raised {describe(error)}") from error


def _validated(name: str, declared: SettingsSection[Any], table: Mapping[str, Any], place: Any) -> BaseModel:
    model: type[BaseModel] = declared.model

    def describe_unknown(path: Path) -> str:
        if (instead := declared.former.get(".".join(path[2:]))) is not None:
            return f"this is no setting any more: {instead}"
        fields = model_fields_at(model, path[2:-1]) or {}
        return unknown(path[-1], [field.alias or key for key, field in fields.items()])

    try:
        return validated(model, table)
    except ValidationError as error:
        problems = validation_problems(
            error,
            declaration=lambda path: (model_fields_at(model, path[2:-1]) or {}).get(path[-1]),
            describe_unknown=describe_unknown,
            file_path=lambda location: ("plugins", name, *(part for part in location if isinstance(part, str))),
            place=place,
        )
        raise SettingsError("\n".join(problems)) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadFailure(f"validating its settings raised {describe(error)}") from error


def _below(data_dir: FilePath, value: Any) -> Any:
    """Return settings, or a value inside settings, in which relative paths are replaced by paths below `data_dir`."""
    match value:
        case BaseModel():
            fields = {key: getattr(value, key) for key in type(value).model_fields}
            changed = {key: new for key, old in fields.items() if (new := _below(data_dir, old)) is not old}
            if not changed:
                return value
            copied = value.model_copy(update=changed)
            # model_copy marks the changed fields as set. Fields that the settings do not set must stay unset.
            copied.model_fields_set.intersection_update(value.model_fields_set)
            return copied
        case FilePath():
            return value if value.is_absolute() else data_dir / value
        case tuple() | list():
            return type(value)(_below(data_dir, each) for each in value)
        case dict():
            return {key: _below(data_dir, each) for key, each in value.items()}
    return value


def _left_behind(path: Path, value: Any, data_dir: FilePath) -> Iterator[tuple[Path, str]]:
    """Yield the key and a sentence for each relative path in the settings that exists below the working directory, and
    does not exist below `data_dir`.

    In earlier releases, relative paths of plugins were relative to the working directory. The plugin would not find the
    files there any more, and would silently create new, empty files below `data_dir`.
    """
    match value:
        case BaseModel():
            for key in value.model_fields_set:
                yield from _left_behind((*path, key), getattr(value, key), data_dir)
        case FilePath():
            if not value.is_absolute() and (text := left_behind(value.absolute(), data_dir / value, data_dir)):
                yield path, text
        case tuple() | list():
            for each in value:
                yield from _left_behind(path, each, data_dir)
        case dict():
            for key, each in value.items():
                yield from _left_behind((*path, str(key)), each, data_dir)
