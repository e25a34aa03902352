"""The settings of a plugin. For each plugin with settings: its hook `mxgw_settings` returns a `SettingsSection`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

SettingsT = TypeVar("SettingsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SettingsSection(Generic[SettingsT]):
    """The declaration of a plugin's settings, the section `[plugins.<name>]`.

    Attributes:
        name: the name of the plugin.
        model: the pydantic model that validates the section.
        apply: called once at start with the validated settings, before any other hook of the plugin. A relative path in
            the settings is relative to `gateway.data_dir`; `apply` gets the absolute path. An exception is a start-up
            failure of the plugin.
        former: settings of earlier releases that do not exist any more. Key: the name of the setting. Value: a sentence
            that says what to do instead; it is shown when the settings still contain the key.
    """

    name: str
    model: type[SettingsT]
    apply: Callable[[SettingsT], None]
    former: Mapping[str, str] = field(default_factory=dict)


def left_behind(former: Path, now: Path, data_dir: Path) -> str:
    """Return a sentence that tells the administrator to move files, or to change a setting; "" when this is not needed.

    In earlier releases the setting meant the path `former`, today it means `now`. When `former` exists and `now` does
    not exist, the files at `former` would not be found any more.
    """
    if former == now or not _exists(former) or _exists(now):
        return ""
    stay = f"'{former.relative_to(data_dir)}'" if former.is_relative_to(data_dir) else f"'{former}'"
    return (
        f"relative paths of plugins count from gateway.data_dir; {former} exists and {now} does not: write {stay} to "
        "leave it there, or move it to the new place"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # this process is not allowed to look into the directory, so the gateway never had files in it
