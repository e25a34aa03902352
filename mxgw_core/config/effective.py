"""Lists the settings that are in effect, for display: one row per key, with masked secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mxgw_core.config import schema
from mxgw_core.config.files import DEFAULT, Path
from mxgw_core.config.models import Settings
from mxgw_core.config.secrets import MASK, masked_tree


class EffectiveSetting(NamedTuple):
    """One setting: its dotted key, its value as plain data for JSON with `***` for secrets, and where it was set."""

    key: str
    value: Any
    origin: str


def effective_settings(settings: Settings, origins: Mapping[str, str]) -> list[EffectiveSetting]:
    """Return all settings, in the order of the sections.

    For the section of a plugin, only the keys that were set are listed, because only the plugin knows its defaults.

    Args:
        origins: where each key was set (`LoadedSettings.origins`). A key that is missing there counts as a default.
    """
    return [
        EffectiveSetting(key, _shown(path, value), origins.get(key, DEFAULT))
        for path, value in _values(settings)
        for key in (".".join(path),)
    ]


def paths_of(settings: Settings) -> Iterator[Path]:
    """Yield the key of every setting."""
    for path, _ in _values(settings):
        yield path


def _values(settings: Settings) -> Iterator[tuple[Path, Any]]:
    for section in schema.SECTIONS:
        match section:
            case "backends":
                yield ("backends", "default"), settings.default_backend
                for name, backend in settings.backends.items():
                    yield ("backends", name, "kind"), backend.kind
                    yield from _flat(backend.options(), ("backends", name))
            case "plugins":
                yield from _flat(dict(settings.plugins), ("plugins",))
                yield from _flat(settings.plugin_sections, ("plugins",))
            case _:
                yield from _flat(dict(getattr(settings, section)), (section,))


def _flat(table: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _shown(path: Path, value: Any) -> Any:
    # A declared key is not masked because of its name: declared secrets have the type SecretStr, and `tls.private_key`
    # is only the name of a file. Keys that no model declares are masked when their names look like secrets.
    shown = masked_tree(value, "" if schema.field_of(path) else path[-1])
    if shown is None or isinstance(shown, str | bool | int | float | list):
        return shown
    return MASK if shown == MASK else str(shown)
