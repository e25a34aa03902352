"""The options of backend `sim`: names, defaults and ranges in one table, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mxgw_worker.backends.base import BackendUnavailable, MxError
from mxgw_worker.backends.sim.security import Permission, SecurityMode, User, normal_guid

PROFILES: Final = ("plant", "recording", "load")


@dataclass(frozen=True, slots=True)
class SimOptions:
    """The validated options, which docs/backends/sim.md explains. Delays and periods are in seconds."""

    profile: str
    seed: int
    security: SecurityMode
    users: tuple[User, ...] = field(repr=False)
    controls: bool
    resolve_delay_s: float
    completion_delay_s: float
    recovery_delay_s: float
    buffered_interval_ms: int
    update_period_s: float
    file: str
    object: str
    speed: float
    loop: bool
    timestamp_column: str
    timestamp_format: str
    source_time: str
    items: int
    rate: float
    burst: str
    text_bytes: int
    alarms: int
    alarm_rate: float
    alarm_share: float
    alarm_seed: int


def parse_options(options: Mapping[str, object]) -> SimOptions:
    """Return validated options. An option that is not given has its default.

    Raises:
        BackendUnavailable: an option is unknown, has a wrong type or range, or belongs to another profile.
    """
    for name in options:
        if name not in _TABLE:
            raise BackendUnavailable(f"backend sim has no option {name!r}{_nearest(name)}")
    profile = _choice(*PROFILES)("profile", options.get("profile", "plant"))
    values: dict[str, Any] = {}
    for name, (default, parse, of_profiles) in _TABLE.items():
        if name in options and profile not in of_profiles:
            raise BackendUnavailable(
                f"option {name!r} of backend sim belongs to profile {' or '.join(of_profiles)}, not to {profile!r}"
            )
        values[name] = parse(name, options.get(name, default))
    if profile == "load":
        values["resolve_delay_s"] = 0.0
    return SimOptions(**values)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _TABLE, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(sorted(_TABLE))}"


def _bad(name: str, wants: str, value: object) -> BackendUnavailable:
    return BackendUnavailable(f"option {name!r} of backend sim must be {wants}, not {value!r:.80}")


def _number(low: float, high: float) -> Callable[[str, object], float]:
    def parse(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _bad(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    return parse


def _whole(low: int, high: int) -> Callable[[str, object], int]:
    def parse(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _bad(name, f"a whole number from {low} to {high}", value)
        return value

    return parse


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad(name, "true or false", value)
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(name, "a text", value)
    return value


def _tag_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier() or not value.isascii():
        raise _bad(name, "a tag name of letters, digits and underscores", value)
    return value


def _choice(*choices: str) -> Callable[[str, object], str]:
    def parse(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _bad(name, f"one of {', '.join(choices)}", value)
        return value

    return parse


def _security(name: str, value: object) -> SecurityMode:
    return SecurityMode(_choice(*SecurityMode)(name, value))


def _users(name: str, value: object) -> tuple[User, ...]:
    """Parse `{user: password}` or `{user: {password, guid, permissions}}`. An error never contains a value, because it
    can be a secret.
    """
    if not isinstance(value, Mapping):
        raise BackendUnavailable(f"option {name!r} of backend sim must be a table of users")
    return tuple(_user(f"{name}.{user}", str(user), entry) for user, entry in value.items())


def _user(path: str, user: str, entry: object) -> User:
    if isinstance(entry, str):
        return User(user, entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("password"), str):
        raise BackendUnavailable(f"option {path!r} of backend sim must be a password, or a table with one")
    if unknown := sorted(str(key) for key in entry.keys() - {"password", "guid", "permissions"}):
        raise BackendUnavailable(
            f"option {path!r} of backend sim has no key {unknown[0]!r}; it knows password, guid, permissions"
        )
    guid = entry.get("guid", "")
    try:
        guid = normal_guid(guid) if guid else ""
    except (MxError, AttributeError) as error:
        raise BackendUnavailable(f"option '{path}.guid' of backend sim must be a GUID") from error
    permissions = entry.get("permissions", list(Permission))
    if not isinstance(permissions, list | tuple) or any(p not in list(Permission) for p in permissions):
        raise BackendUnavailable(
            f"option '{path}.permissions' of backend sim must be a list of {', '.join(Permission)}"
        )
    return User(user, entry["password"], guid, frozenset(Permission(p) for p in permissions))


# Key: option. Value: its default, its parser, and the profiles to which the option belongs.
_TABLE: dict[str, tuple[object, Callable[[str, object], object], tuple[str, ...]]] = {
    "profile": ("plant", _choice(*PROFILES), PROFILES),
    "seed": (1, _whole(0, 2**63 - 1), ("plant",)),
    "security": ("open", _security, PROFILES),
    "users": ({}, _users, PROFILES),
    "controls": (False, _flag, PROFILES),
    "resolve_delay_s": (0.02, _number(0, 60), ("plant", "recording")),
    "completion_delay_s": (0.01, _number(0, 60), PROFILES),
    "recovery_delay_s": (2.0, _number(0, 600), PROFILES),
    "buffered_interval_ms": (1_000, _whole(1, 3_600_000), PROFILES),
    "update_period_s": (0.5, _number(0.01, 60), ("plant",)),
    "file": ("", _text, ("recording",)),
    "object": ("SteelWorks", _tag_name, ("recording",)),
    "speed": (3_600.0, _number(0.001, 1e9), ("recording",)),
    "loop": (True, _flag, ("recording",)),
    "timestamp_column": ("", _text, ("recording",)),
    "timestamp_format": ("", _text, ("recording",)),
    "source_time": ("now", _choice("now", "recorded"), ("recording",)),
    "items": (1_000, _whole(1, 1_000_000), ("load",)),
    "rate": (1_000.0, _number(0, 10_000_000), ("load",)),
    "burst": ("paced", _choice("paced", "max"), ("load",)),
    "text_bytes": (0, _whole(0, 65_536), ("load",)),
    "alarms": (0, _whole(0, 100_000), PROFILES),
    "alarm_rate": (1.0, _number(0, 100_000), PROFILES),
    "alarm_share": (0.1, _number(0, 1), PROFILES),
    "alarm_seed": (1, _whole(0, 2**63 - 1), PROFILES),
}


def defaults() -> dict[str, object]:
    """Return the default of every option by name. Profile `load` always has a `resolve_delay_s` of 0, whatever the
    default is.
    """
    return {name: default for name, (default, _, _) in _TABLE.items()}
