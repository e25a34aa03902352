"""Finds the installed plugins by the entry points of their distributions. No code of a plugin is imported here."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

GROUP = "mxgw.plugins"
# A plugin that decides about access has an entry in this group too, with the same name and value. It is needed because
# nobody knows the hooks of a plugin that cannot be imported.
ACCESS_GROUP = "mxgw.access"


class PluginState(enum.Enum):
    """The state of a plugin. AVAILABLE means that the plugin is installed but not enabled."""

    LOADED = "loaded"
    FAILED = "failed"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin and its state.

    `distribution` and `version` are "" when no single distribution has this plugin. `required` is always true for an
    enabled plugin that decides about access, which is what `controls_access` says. `detail` is text for people.
    """

    name: str
    state: PluginState
    distribution: str
    version: str
    required: bool
    detail: str = ""
    controls_access: bool = False


class AccessDeclarations:
    """What the installed distributions have in the group `mxgw.access`."""

    def __init__(self, entries: Iterable[EntryPoint], plugins: Mapping[str, Sequence[EntryPoint]]) -> None:
        self._declared = {(distribution_of(entry), entry.name, entry.value) for entry in entries}
        installed = {(distribution_of(entry), entry.name, entry.value) for named in plugins.values() for entry in named}
        self._wrong = sorted(self._declared - installed)

    def has(self, entry: EntryPoint) -> bool:
        """Return whether the distribution of a plugin says that the plugin decides about access."""
        return (distribution_of(entry), entry.name, entry.value) in self._declared

    def mistake(self, entry: EntryPoint) -> str:
        """Return what is wrong with the declarations of the plugin's distribution; "" when nothing is wrong.

        With a wrong declaration nobody knows which plugin of the distribution decides about access.
        """
        for distribution, name, value in self._wrong:
            if distribution == distribution_of(entry):
                return (
                    f"its distribution has {name} = {value!r} in the entry points {ACCESS_GROUP!r}, and not in "
                    f"{GROUP!r}: both need the same line"
                )
        return ""

    def without_plugin(self, name: str) -> str:
        """Return the distributions that declare this name, for a name that no plugin has; "" when there are none."""
        return " and ".join(sorted({distribution for distribution, declared, _ in self._wrong if declared == name}))


def access_declarations(plugins: Mapping[str, Sequence[EntryPoint]]) -> AccessDeclarations:
    """Return the declarations of the installed distributions. `plugins` is the result of `installed_entries`."""
    return AccessDeclarations(entry_points(group=ACCESS_GROUP), plugins)


def access_line(entry: EntryPoint) -> str:
    """Return the lines of pyproject.toml that declare that a plugin decides about access, written in one line."""
    return f'[project.entry-points."{ACCESS_GROUP}"] {entry.name} = "{entry.value}"'


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
    installed = installed_entries()
    access = access_declarations(installed)
    return [available(name, entries, access) for name, entries in installed.items()]


def available(name: str, entries: list[EntryPoint], access: AccessDeclarations) -> PluginRecord:
    """Return the `PluginRecord` of an installed plugin that is not enabled."""
    detail = clash(name, entries) if len(entries) > 1 else ""
    controls_access = any(access.has(entry) for entry in entries)
    return PluginRecord(
        name,
        PluginState.AVAILABLE,
        *origin_of(entries[0]),
        required=False,
        detail=detail,
        controls_access=controls_access,
    )


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
