"""Finds the installed plugins by the entry points of their distributions. No code of a plugin is imported here."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

GROUP = "mxgw.plugins"

# Plugins that are required whenever they are enabled. Without its access control a gateway must not start.
ALWAYS_REQUIRED = frozenset({"acl"})


class PluginState(enum.Enum):
    """The state of a plugin. AVAILABLE means that the plugin is installed but not enabled."""

    LOADED = "loaded"
    FAILED = "failed"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin and its state.

    `distribution` and `version` are "" when no single distribution has this plugin. `detail` is text for people.
    """

    name: str
    state: PluginState
    distribution: str
    version: str
    required: bool
    detail: str = ""


def installed_entries() -> dict[str, list[EntryPoint]]:
    """Return the entry points of all installed plugins. Key: the name of a plugin. Value: its entry points; more than
    one means that several distributions use the same name.
    """
    entries: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, distribution_of(entry))):
        entries.setdefault(entry.name, []).append(entry)
    return entries


def installed_plugins() -> list[PluginRecord]:
    """Return a `PluginRecord` for each installed plugin, sorted by name. The state of all of them is AVAILABLE."""
    return [available(name, entries) for name, entries in installed_entries().items()]


def available(name: str, entries: list[EntryPoint]) -> PluginRecord:
    """Return the `PluginRecord` of an installed plugin that is not enabled."""
    detail = clash(name, entries) if len(entries) > 1 else ""
    return PluginRecord(name, PluginState.AVAILABLE, *origin_of(entries[0]), required=False, detail=detail)


def clash(name: str, entries: list[EntryPoint]) -> str:
    """Return the sentence that reports that several distributions use the same plugin name."""
    owners = " and ".join(" ".join(origin_of(entry)) for entry in entries)
    return f"the name {name!r} is offered by {owners}; uninstall all but one"


def origin_of(entry: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of an entry point's distribution; "" for what is not known."""
    return distribution_of(entry), entry.dist.version if entry.dist is not None else ""


def distribution_of(entry: EntryPoint) -> str:
    """Return the name of an entry point's distribution; "" when it is not known."""
    return entry.dist.name if entry.dist is not None else ""
