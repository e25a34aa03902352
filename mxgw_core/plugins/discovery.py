"""Finds the installed plugins by the entry points of their distributions. No code of a plugin is imported here."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

from mxgw_core.printable import printable

GROUP = "mxgw.plugins"
# A plugin that decides about access has an entry in this group too, with the same name and value. It is needed because
# nobody knows the hooks of a plugin that cannot be imported.
ACCESS_GROUP = "mxgw.access"
# The groups that mean something to the gateway and its workers.
_GROUPS = (GROUP, ACCESS_GROUP, "mxgw.backends")


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
        if group := _misspelt_group(entry):
            return (
                f"its distribution has the entry point group {printable(group, 80)!r}, which means nothing. Correct it "
                f"to {ACCESS_GROUP!r} if it says that a plugin decides about access; otherwise give it another name"
            )
        if not self.has(entry) and (others := self.without_plugin(entry.name)):
            return (
                f"its distribution does not say that it decides about access, and {others} says so: the line in "
                f"{ACCESS_GROUP!r} must be in the distribution of the plugin"
            )
        return ""

    def without_plugin(self, name: str) -> str:
        """Return the distributions that declare this name, for a name that no plugin has; "" when there are none."""
        return " and ".join(sorted({distribution for distribution, declared, _ in self._wrong if declared == name}))


@dataclass(frozen=True, slots=True)
class Installed:
    """What the installed distributions have.

    Attributes:
        entries: Key: the name of a plugin. Value: its entry points; more than one means that several distributions use
            the same name.
        access: what the distributions say about access.
        broken: the distributions that cannot be read, so that their plugins are not known. Key: the directory of the
            distribution's metadata. Value: why it cannot be read.
    """

    entries: Mapping[str, Sequence[EntryPoint]]
    access: AccessDeclarations
    broken: Mapping[str, str]


def installed() -> Installed:
    """Return what the installed distributions have. No distribution is imported, and a broken one raises nothing."""
    found: dict[str, list[EntryPoint]] = {GROUP: [], ACCESS_GROUP: []}
    broken: dict[str, str] = {}
    for distribution in _distributions(broken):
        try:
            for entry in distribution.entry_points:
                if entry.group in found:
                    if not isinstance(distribution.metadata["Name"], str):
                        raise ValueError("it has no METADATA with a name")  # noqa: TRY301  # reported as all others are
                    found[entry.group].append(entry)
        except Exception as error:
            broken[_place_of(distribution)] = printable(f"{type(error).__name__}: {error}", 200)
    entries: dict[str, list[EntryPoint]] = {}
    for entry in sorted(found[GROUP], key=lambda entry: (entry.name, distribution_of(entry))):
        entries.setdefault(entry.name, []).append(entry)
    return Installed(entries, AccessDeclarations(found[ACCESS_GROUP], entries), broken)


def _distributions(broken: dict[str, str]) -> Iterator[Distribution]:
    """Yield the distributions on the path, the first of each name, as `importlib.metadata.entry_points` does."""
    seen: set[str] = set()
    for distribution in distributions():
        try:
            # The name in the name of the directory, because to read the metadata of all distributions takes long.
            name = str(distribution._normalized_name)  # type: ignore[attr-defined]
        except Exception as error:
            broken[_place_of(distribution)] = printable(f"it has no name: {type(error).__name__}: {error}", 200)
            continue
        if name not in seen:
            seen.add(name)
            yield distribution


def _place_of(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", distribution))


def _misspelt_group(entry: EntryPoint) -> str:
    """Return a group of the distribution of an entry point whose name is nearly that of the group for access."""
    if entry.dist is None:
        return ""
    groups = {each.group.casefold(): each.group for each in entry.dist.entry_points if each.group not in _GROUPS}
    # Groups of others, for example "acme.access", are less similar than this.
    similar = difflib.get_close_matches(ACCESS_GROUP, groups, n=1, cutoff=0.8)
    return groups[similar[0]] if similar else ""


def access_line(entry: EntryPoint) -> str:
    """Return the lines of pyproject.toml that declare that a plugin decides about access, written in one line."""
    return f'[project.entry-points."{ACCESS_GROUP}"] {entry.name} = "{entry.value}"'


def installed_plugins() -> list[PluginRecord]:
    """Return a `PluginRecord` for each installed plugin, sorted by name. The state of all of them is AVAILABLE."""
    found = installed()
    return [available(name, entries, found.access) for name, entries in found.entries.items()]


def available(name: str, entries: Sequence[EntryPoint], access: AccessDeclarations) -> PluginRecord:
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


def clash(name: str, entries: Sequence[EntryPoint]) -> str:
    """Return the sentence that reports that several distributions use the same plugin name."""
    owners = " and ".join(" ".join(origin_of(entry)) for entry in entries)
    return f"the name {name!r} is offered by {owners}; uninstall all but one"


def origin_of(entry: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of an entry point's distribution; "" for what is not known."""
    return distribution_of(entry), entry.dist.version if entry.dist is not None else ""


def distribution_of(entry: EntryPoint) -> str:
    """Return the name of an entry point's distribution; "" when it is not known."""
    return entry.dist.name if entry.dist is not None else ""
