"""The settings models in the shape of a settings file: which keys a table can have, and the type of each key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from mxgw_core.config.files import ENVIRONMENT_PREFIX, Path
from mxgw_core.config.models import BackendSettings, PluginsSettings, Settings

# Key: a field of `Settings` whose place in a file differs from its place in the class. Value: its place in a file.
_MOVED: dict[str, Path] = {"default_backend": ("backends", "default"), "plugin_sections": ("plugins",)}
SECTIONS: tuple[str, ...] = tuple(name for name in Settings.model_fields if name not in _MOVED)
TABLES = frozenset((name,) for name in SECTIONS)
# Sections that contain both keys and tables whose names people choose, for example `[backends.<name>]`.
HOLDERS = frozenset({("backends",), ("plugins",)})


def file_path(location: Iterable[int | str]) -> Path:
    """Return the key in a file that belongs to a location which pydantic reports. Indexes of lists are left out."""
    names = [part for part in location if isinstance(part, str) and part != "[key]"]
    return (*_MOVED.get(names[0], names[:1]), *names[1:]) if names else ()


def model_input(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file in the shape of the class `Settings`.

    The class has separate fields for `backends.default` and for the tables `[plugins.<name>]`.
    """
    data = dict(tree)
    backends = data.get("backends")
    if isinstance(backends, dict):
        named = {key: value for key, value in backends.items() if key != "default"}
        data.pop("backends")
        if named:
            data["backends"] = named
        if "default" in backends:
            data["default_backend"] = backends["default"]
    plugins = data.get("plugins")
    if isinstance(plugins, dict):
        own = PluginsSettings.model_fields
        sections = {key: value for key, value in plugins.items() if isinstance(value, dict) and key not in own}
        data["plugins"] = {key: value for key, value in plugins.items() if key not in sections}
        data["plugin_sections"] = sections
    return data


def defaults() -> dict[str, Any]:
    """Return every declared key with its default, in the shape of a file."""
    defaults = Settings()
    data: dict[str, Any] = {name: dict(getattr(defaults, name)) for name in SECTIONS if name != "backends"}
    return {**data, "backends": {"default": defaults.default_backend}}


def fields_of(table: Path) -> dict[str, FieldInfo] | None:
    """Return the declared keys of a table. Key: the name. Value: the declaration.

    Return None when the table accepts any keys, or does not exist.
    """
    match table:
        case ():
            return {name: Settings.model_fields[name] for name in SECTIONS}
        case ("backends",):
            return {"default": Settings.model_fields["default_backend"]}
        case ("backends", _):
            return dict(BackendSettings.model_fields)
        case _:
            return model_fields_at(Settings, table)


def field_of(path: Path) -> FieldInfo | None:
    """Return the declaration of a key; None when no model declares the key."""
    return (fields_of(path[:-1]) or {}).get(path[-1])


def model_fields_at(model: type[BaseModel], table: Path) -> dict[str, FieldInfo] | None:
    """Return the declared keys of a table inside `model`; None when the model has no such table."""
    for name in table:
        field = model.model_fields.get(name)
        inner = None if field is None else model_in(field.annotation)
        if inner is None:
            return None
        model = inner
    return dict(model.model_fields)


def environment_name(path: Path) -> str:
    """Return the name of the environment variable that sets this key."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper().replace("-", "_")


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows: the members of a union, or only the type itself.

    `Annotated` is removed.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in alternatives(part))
    return (annotation,)


def takes_text(field: FieldInfo) -> bool:
    """Return whether a text is used unchanged as the value of the key, and is not parsed as TOML."""
    return any(
        kind in (str, FilePath, SecretStr) or typing.get_origin(kind) is typing.Literal
        for kind in alternatives(field.annotation)
    )


def takes_list(field: FieldInfo) -> bool:
    """Return whether the key's value is a list of texts."""
    return any(typing.get_origin(kind) in (tuple, list) for kind in alternatives(field.annotation))


def is_optional(field: FieldInfo) -> bool:
    """Return whether the value of the key can be None, which means not set."""
    return type(None) in alternatives(field.annotation)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings model that a key has as its value; None when the value is not a table."""
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
