"""A plugin's own settings. For each plugin that has any: `mxgw_settings` returns a `SettingsSection`."""

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

    `apply` is called once at start with the validated, frozen settings, before any other hook of the plugin; what it
    raises is a start-up error of that plugin. Every relative path in them counts from `gateway.data_dir` and is made
    absolute before. `former` has the settings of earlier releases that are gone, by name, and for each a sentence on
    what to do instead; whoever still sets one is told it.
    """

    name: str
    model: type[SettingsT]
    apply: Callable[[SettingsT], None]
    former: Mapping[str, str] = field(default_factory=dict)


def left_behind(former: Path, now: Path, data_dir: Path) -> str:
    """Return what to tell someone whose files lie where a setting pointed in an earlier release; "" when all is well.

    That is the case when `former` exists and `now`, where the setting points today, does not.
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
        return False  # who may not look there never had files there
