"""Names that `mxgw_core.api` had in earlier releases. The error for such a name says what to use now.

The module is kept as long as the version is 0.1.x.
"""

from __future__ import annotations

from collections.abc import Mapping

_INSTEAD: Mapping[str, str] = {
    "CommandObserver": "implement the hook mxgw_decided, which gets the items of a command and what was denied",
    "StandingAnswer": "a filter that implements StandingFilter is asked again when its revision changes",
    "Verdict": "it is called Action now",
}


def missing(name: str) -> Exception:
    """Return the error for a name that `mxgw_core.api` does not have.

    For a name of an earlier release it is an ImportError. An AttributeError would not do, because Python replaces its
    text when the statement is `from mxgw_core.api import …`.
    """
    if (instead := _INSTEAD.get(name)) is not None:
        return ImportError(f"mxgw_core.api has no {name} any more: {instead} (CHANGELOG.md, section 0.1.0)")
    return AttributeError(f"module 'mxgw_core.api' has no attribute {name!r}")
