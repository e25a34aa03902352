"""The options of the MXAccess backend that are about alarms. Each is named `alarm_` and the name of the field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mxgw_worker.backends.base import BackendUnavailable

PREFIX = "alarm_"
# How DATE and TIME of a record become UTC; docs/backends/mxaccess.md#alarms explains each.
BIAS, EAST = "bias", "east"
ZONES = (BIAS, EAST, "utc", "local")
SUMMARY, HISTORY = "Summary", "History"
# What an acknowledgement can be given.
ACKNOWLEDGE_WORDS = ("name", "provider", "group", "comment", "operator", "node", "domain", "full_name")
# What is read of a record.
FIELDS = (
    "id",
    "name",
    "state",
    "date",
    "time",
    "offset",
    "daylight",
    "priority",
    "group",
    "provider",
    "type",
    "value",
    "limit",
    "comment",
    "description",
    "operator",
)
_MOST_AREAS = 200


@dataclass(frozen=True, slots=True)
class AlarmOptions:
    """The options with defaults. Without `areas` the alarm manager is not asked at all."""

    areas: tuple[str, ...] = ()
    consumer: str = ""
    node: str = "localhost"
    provider: str = "Galaxy"
    display: str = SUMMARY
    most: int = 10_000
    answer_s: float = 4.0
    times: str = BIAS
    subscribe: tuple[int, ...] = (2, 0, 0, 0)
    acknowledge: tuple[str, ...] = ("name", "provider", "group", "comment", "operator", "node")
    elements: tuple[str, ...] = ()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(PREFIX + field.name for field in dataclasses.fields(cls))

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> AlarmOptions:
        """Return the checked options. All names are known ones.

        Raises:
            BackendUnavailable: a value is not valid; the text names its option.
        """
        given = {name.removeprefix(PREFIX): _frozen(value) for name, value in options.items()}
        for name, value in given.items():
            check, wanted = _CHECKS[name]
            if not check(value):
                raise BackendUnavailable(f"option '{PREFIX}{name}' of backend mxaccess must be {wanted}, not {value!r}")
        return cls(**given)  # type: ignore[arg-type]  # each was checked

    def element_of(self, field: str) -> str:
        """Return the name of the element that holds a field by these options; "" for the usual one."""
        for assignment in self.elements:
            name, _, element = assignment.partition("=")
            if name == field:
                return element
        return ""


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _are_areas(value: object) -> bool:
    # A subscription separates its references with spaces, and its parts with "!" and backslashes.
    return (
        isinstance(value, tuple)
        and len(value) <= _MOST_AREAS
        and all(_is_name(area) and not set(area) & set(" !\\") for area in value)
    )


def _is_number(value: object, lowest: float, highest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(number, int) and not isinstance(number, bool) and -(2**31) <= number < 2**31 for number in value
    )


def _are_elements(value: object) -> bool:
    def is_one(text: object) -> bool:
        field, _, element = text.partition("=") if isinstance(text, str) else ("", "", "")
        return field in FIELDS and bool(element)

    return isinstance(value, tuple) and all(is_one(text) for text in value)


_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "areas": (_are_areas, f"a list of at most {_MOST_AREAS} names of areas"),
    "consumer": (_is_text, "a ProgID or a CLSID"),
    "node": (_is_name, "the name of a machine"),
    "provider": (_is_name, "the name of an alarm provider"),
    "display": (lambda value: value in (SUMMARY, HISTORY), f"{SUMMARY!r} or {HISTORY!r}"),
    "most": (lambda value: isinstance(value, int) and _is_number(value, 1, 1_000_000), "a number from 1 to 1000000"),
    "answer_s": (lambda value: _is_number(value, 0.1, 86_400), "a number of seconds from 0.1 to 86400"),
    "times": (lambda value: value in ZONES, f"one of {', '.join(ZONES)}"),
    "subscribe": (_are_numbers, "a list of whole numbers"),
    "acknowledge": (
        lambda value: isinstance(value, tuple) and all(word in ACKNOWLEDGE_WORDS for word in value),
        f"a list of {', '.join(ACKNOWLEDGE_WORDS)}",
    ),
    "elements": (_are_elements, f"a list of texts 'field=ELEMENT', with fields from {', '.join(FIELDS)}"),
}
