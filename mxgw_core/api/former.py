"""Names that plugins written before may still import: the refusal says what took their place. Kept for 0.1.x."""

from __future__ import annotations

from collections.abc import Mapping

_INSTEAD: Mapping[str, str] = {
    "CommandObserver": "implement the hook mxgw_decided, which gets the items of a command and what was denied",
    "StandingAnswer": "a filter that implements StandingFilter is asked again when its revision changes",
    "Verdict": "it is called Action now",
}


def missing(name: str) -> Exception:
    """Return the error of an attribute that `mxgw_core.api` does not have.

    For a name that it had once, this is an ImportError: `from mxgw_core.api import …` passes it on with its text.
    """
    if (instead := _INSTEAD.get(name)) is not None:
        return ImportError(f"mxgw_core.api has no {name} any more: {instead} (CHANGELOG.md, section 0.1.0)")
    return AttributeError(f"module 'mxgw_core.api' has no attribute {name!r}")
