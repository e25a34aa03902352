"""The options of the MXAccess backend, with defaults and ranges."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.mxaccess.alarms.options import PREFIX as ALARM_PREFIX
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions

_LONGEST_S = 86_400.0
ZONES = ("utc", "local")


@dataclass(frozen=True, slots=True)
class MxAccessOptions:
    """The options in `[backends.<name>]` for kind `mxaccess`; docs/backends/mxaccess.md explains each."""

    probe: str = ""
    probe_timeout_s: float = 30.0
    slow_call_s: float = 10.0
    call_limit_s: float = 60.0
    start_limit_s: float = 60.0
    times: str = "utc"
    objects: tuple[str, ...] = ()
    # Its options are named `alarm_...` in the settings.
    alarms: AlarmOptions = dataclasses.field(default_factory=AlarmOptions)

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> MxAccessOptions:
        """Return the checked options.

        Raises:
            BackendUnavailable: an option is unknown, or its value is not valid; the text names it.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls) if field.name != "alarms"}
        known = (*fields, *AlarmOptions.names())
        for name, value in options.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; it knows {', '.join(known)}"
                raise BackendUnavailable(f"backend mxaccess has no option {name!r}{hint}")
            if name in fields:
                fields[name] = _checked(name, value, fields[name])
        alarms = AlarmOptions.parse({name: options[name] for name in options if name.startswith(ALARM_PREFIX)})
        parsed = cls(**fields, alarms=alarms)  # type: ignore[arg-type]  # each was checked against its default
        if parsed.times not in ZONES:
            raise BackendUnavailable(
                f"option 'times' of backend mxaccess must be 'utc' or 'local', not {parsed.times!r}"
            )
        if parsed.slow_call_s > parsed.call_limit_s:
            raise BackendUnavailable(
                f"option 'slow_call_s' of backend mxaccess ({parsed.slow_call_s:g}) must not be more than"
                f" 'call_limit_s' ({parsed.call_limit_s:g})"
            )
        return parsed


def _checked(name: str, value: object, default: object) -> object:
    if isinstance(default, str):
        if not isinstance(value, str):
            raise BackendUnavailable(f"option {name!r} of backend mxaccess must be a text, not {value!r}")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
            raise BackendUnavailable(f"option {name!r} of backend mxaccess must be a list of tag names, not {value!r}")
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= _LONGEST_S:
        raise BackendUnavailable(
            f"option {name!r} of backend mxaccess must be a number of seconds from 0.1 to {_LONGEST_S:g}, not {value!r}"
        )
    return float(value)
