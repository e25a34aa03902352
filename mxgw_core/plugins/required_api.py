"""Compares the plugin API that a plugin needs, its `requires_api`, with the one that this release of mxgw has."""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from mxgw_core.api.versions import API_VERSION
from mxgw_core.printable import printable

_EXAMPLE = 'write for example requires_api = ">=1.0,<2"'


def why_not(requires: object, version: str = API_VERSION) -> str:
    """Return why a plugin with this `requires_api` cannot run with the API `version`; "" when it can.

    The text says what the plugin needs, what this release has, and what to do.
    """
    if not isinstance(requires, str):
        shown = f"{type(requires).__name__} {printable(repr(requires), 40)}"
        return f"its requires_api is {shown}; it must be a text with a range of API versions: {_EXAMPLE}"
    try:
        needed = SpecifierSet(requires)
    except InvalidSpecifier:
        needed = SpecifierSet()
    if not len(needed):
        return f"its requires_api {printable(repr(requires), 40)} is no range of API versions: {_EXAMPLE}"
    if needed.contains(version, prereleases=True):
        return ""
    if any(_is_newer(specifier, version) for specifier in needed):
        advice = "install a newer release of mxgw, or an older release of the plugin"
    else:
        advice = "install a newer release of the plugin, or an older release of mxgw"
    return f"it needs plugin API {printable(requires, 40)}, and this release of mxgw has {version}: {advice}"


def _is_newer(specifier: Specifier, version: str) -> bool:
    """Whether `version` is too old for the specifier."""
    if specifier.contains(version, prereleases=True):
        return False
    try:
        needed = Version(specifier.version.removesuffix(".*"))
    except InvalidVersion:  # only `===` takes a text that is no version
        return False
    return needed > Version(version) or (specifier.operator == ">" and needed == Version(version))
