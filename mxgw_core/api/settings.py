"""The settings of a plugin. For every plugin that has some: `mxgw_settings` returns a `SettingsSection`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

SettingsT = TypeVar("SettingsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SettingsSection(Generic[SettingsT]):
    """A plugin's own settings: `[plugins.<name>]`, validated into `model`.

    `apply` is called once at start with the validated, frozen settings, before any other hook of the plugin; an
    exception is a start-up error of that plugin. Relative paths in the settings are relative to `gateway.data_dir`;
    `apply` gets them as absolute paths. `former` has settings of earlier releases that no longer exist, by name, each
    with a sentence that says what to do instead; a site that still sets one is shown that sentence.
    """

    name: str
    model: type[SettingsT]
    apply: Callable[[SettingsT], None]
    former: Mapping[str, str] = field(default_factory=dict)


def left_behind(former: Path, now: Path, data_dir: Path) -> str:
    """Return what to do about files at a place where a setting pointed in an earlier release; "" when there are none.

    There is something to do when `former` exists and `now`, where the setting points today, does not exist.
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
        return False  # a gateway that may not look there never had files there
