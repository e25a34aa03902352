"""Says what took the place of a name or module that `mxgw_core.api` had in earlier releases.

The tables are kept as long as the version is 0.1.x.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType

import mxgw_core.api

CHANGES = "CHANGELOG.md names what changed for plugins that were written before"

_API = "mxgw_core.api"

# Key: the name that a module of `mxgw_core.api` had in an earlier release. Value: its name now.
MODULES: Mapping[str, str] = {
    "attempts": "rate_limits",
    "backup": "maintenance",
    "correlation": "calls",
    "distribution": "metrics",
    "internal": "internal_sessions",
    "rates": "rate_limits",
}

# Key: a name that `mxgw_core.api` or a module of it had in an earlier release. Value: what to do instead.
_NAMES: Mapping[str, str] = {
    "CommandObserver": "implement the hook mxgw_decided, which gets the items of a command and what was denied",
    "SettingsT": "write SettingsSection[Model] with the model of your plugin",
    "StandingAnswer": "a filter that implements StandingFilter is asked again when its revision changes",
    "Verdict": "it is called Action now",
}

# Source: the text that Python 3.11 gives an ImportError; `ImportError.name_from` exists from Python 3.12 on.
_CANNOT_IMPORT = re.compile(r"cannot import name '(\w+)'")


def instead_of(error: BaseException) -> str:
    """Return what a plugin imports instead, when the error says that `mxgw_core.api` or one of its modules has no such
    name, or that it has no such module. Return "" for all other errors, and when nothing took the place of the name.
    """
    match error:
        case ModuleNotFoundError(name=str(path)):
            module, _, name = path.rpartition(".")
            return _renamed(module, name)
        case ImportError(name=str(module)) if found := _CANNOT_IMPORT.match(str(error)):
            name = found[1]
        case AttributeError(obj=ModuleType(__name__=module), name=str(name)):
            pass
        case _:
            return ""
    return _renamed(module, name) or _moved(module, name)


def _renamed(module: str, name: str) -> str:
    if module != _API or (now := MODULES.get(name)) is None:
        return ""
    return f"the module is called {_API}.{now} now; import the names that {_API} has from {_API}"


def _moved(module: str, name: str) -> str:
    if module != _API and not module.startswith(f"{_API}."):
        return ""
    if name in mxgw_core.api.__all__:
        return f"import {name} from {_API}"
    return _NAMES.get(name, "")
