"""Which plugins are installed, from the entry points of their distributions, and the record of each one.

Nothing of a plugin is imported here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

GROUP = "mxgw.plugins"

# If access control is enabled and cannot be loaded, the gateway must not start without it.
ALWAYS_REQUIRED = frozenset({"acl"})


class PluginState(enum.Enum):
    """Whether a plugin runs: AVAILABLE is installed and not enabled."""

    LOADED = "loaded"
    FAILED = "failed"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin and its state. `distribution` and `version` are "" when none is installed; `detail` is for people."""

    name: str
    state: PluginState
    distribution: str
    version: str
    required: bool
    detail: str = ""


def installed_entries() -> dict[str, list[EntryPoint]]:
    """Return the entry points by plugin name, sorted; several of one name are a clash."""
    entries: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, distribution_of(entry))):
        entries.setdefault(entry.name, []).append(entry)
    return entries


def installed_plugins() -> list[PluginRecord]:
    """Return every installed plugin, by name, as AVAILABLE."""
    return [available(name, entries) for name, entries in installed_entries().items()]


def available(name: str, entries: list[EntryPoint]) -> PluginRecord:
    """Return the record of a plugin that is not enabled."""
    detail = clash(name, entries) if len(entries) > 1 else ""
    return PluginRecord(name, PluginState.AVAILABLE, *origin_of(entries[0]), required=False, detail=detail)


def clash(name: str, entries: list[EntryPoint]) -> str:
    """Return the sentence for a name that several distributions use."""
    owners = " and ".join(" ".join(origin_of(entry)) for entry in entries)
    return f"the name {name!r} is offered by {owners}; uninstall all but one"


def origin_of(entry: EntryPoint) -> tuple[str, str]:
    """Return distribution and version."""
    return distribution_of(entry), entry.dist.version if entry.dist is not None else ""


def distribution_of(entry: EntryPoint) -> str:
    """Return the name of the distribution of an entry point."""
    return entry.dist.name if entry.dist is not None else ""
