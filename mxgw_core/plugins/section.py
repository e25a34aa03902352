"""A plugin's own settings section, `[plugins.<name>]`, validated with the plugin's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from mxgw_core.api.errors import SettingsError
from mxgw_core.api.gateway import SettingsSection
from mxgw_core.config.problems import unknown, validated, validation_problems
from mxgw_core.config.schema import model_fields_at
from mxgw_core.config.sources import Path
from mxgw_core.plugins.faults import told
from mxgw_core.plugins.records import LoadFailure


def apply_section(
    name: str, declared: SettingsSection[Any] | None, table: Mapping[str, Any], origins: Mapping[str, str]
) -> None:
    """Validate the table and hand the settings to the plugin.

    Raises:
        SettingsError: the table does not fit; one line per problem.
        LoadFailure: the declaration itself is wrong, or the plugin refused its settings.
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
    if not isinstance(declared, SettingsSection):
        raise LoadFailure(f"mxgw_settings returned a {type(declared).__name__}, not a SettingsSection")
    if declared.name != name:
        raise LoadFailure(f"mxgw_settings names the section {declared.name!r}; it must be the plugin's name, {name!r}")
    if not (isinstance(declared.model, type) and issubclass(declared.model, BaseModel)):
        raise LoadFailure("the model of mxgw_settings is no pydantic model")
    settings = _validated(name, declared.model, declared.moved, table, place)
    try:
        declared.apply(settings)
    except SettingsError:
        raise
    except Exception as error:
        raise LoadFailure(f"applying its settings raised {told(error)}") from error


def _validated(
    name: str, model: type[BaseModel], moved: Mapping[str, str], table: Mapping[str, Any], place: Any
) -> BaseModel:
    def describe_unknown(path: Path) -> str:
        if (now := moved.get(".".join(path[2:]))) is not None:
            return f"is now {now}"
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
    except Exception as error:
        raise LoadFailure(f"validating its settings raised {told(error)}") from error
