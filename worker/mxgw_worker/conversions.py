"""The conversion table for written values, from the type that a client sends to the type of an item. All backends share
it except `mxaccess`, whose source converts by itself.

The rules are those of COM's VariantChangeType in the invariant locale: that MXAccess converts what it is given in this
way is unconfirmed (docs/reference/mxaccess.md#conversions). Texts depend on no language and on no setting of the
computer.

- Text to a number: spaces, tabs and line ends around it do not count. One sign before or after it, or parentheses for
  a negative number; thousands separated by commas, in groups of three; a decimal point; an exponent (`1.5e3`); `&H` and
  `&O` for hexadecimal and octal numbers. Only 0 to 9 are digits.
- Text to a truth value: `true` and `false` in any case, `#TRUE#`, `#FALSE#`, or a number, which is true unless it is 0.
- Text to a time: ISO 8601 (`2018-01-15T10:00:00Z`), or COM's `2018-01-15 10:00:00` and `1/15/2018 10:00:00 PM`. A time
  without a zone is UTC.
- A number to an integer: rounded, a half to the even neighbour.
- A number to text: up to 15 significant digits, and a decimal point only where one is needed.
- A truth value to a number: true is -1 (VARIANT_TRUE). An unsigned type therefore has no true.
- A truth value to text: `True` or `False`.

Where this table is stricter than COM, COM guesses: it reads `1,5` as 15, `15/1/2018` as January 15, a currency sign as
nothing, and -1 as the largest unsigned number when it was a truth value. Where it is wider, COM has no form for what
clients send: times of ISO 8601 with a zone or a fraction, and times as text in that form.

Source: documentation of VarParseNumFromStr, VarBoolFromStr, VarDateFromStr, VarBstrFromR8 and VariantChangeTypeEx.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, auto


class Refusal(Enum):
    """Why a value cannot be converted. Each backend has its native detail for it."""

    NO_VALUE = auto()
    # There is no conversion between the two types.
    UNSUPPORTED = auto()
    # The text has none of the forms of the wanted type.
    TEXT = auto()
    # The value lies outside the range of the wanted type.
    RANGE = auto()


class ConversionRefused(Exception):
    """A value cannot be converted; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"the value cannot be converted: {refusal.name}")
        self.refusal = refusal


class Target(Enum):
    """The types to which values are converted."""

    BOOLEAN = auto()
    INT8 = auto()
    UINT8 = auto()
    INT16 = auto()
    UINT16 = auto()
    INT32 = auto()
    UINT32 = auto()
    INT64 = auto()
    UINT64 = auto()
    FLOAT = auto()
    DOUBLE = auto()
    TEXT = auto()
    TIME = auto()
    # A span of time. Numbers are seconds; a text is `[days ]hh:mm:ss[.ffffff]`. COM has no such type.
    SPAN = auto()
    BYTES = auto()


def convert(value: object, target: Target) -> bool | int | float | str | datetime | timedelta | bytes:
    """Return `value` as a value of the type `target`. The time that this takes grows linearly with a text's length.

    Raises:
        ConversionRefused: the table has no conversion, or the value does not have the form or the range.
    """
    if value is None:
        raise ConversionRefused(Refusal.NO_VALUE)
    return TABLE[target](value)


_SPACES = " \t\r\n\v\f"
_NUMBER = re.compile(r"(\d{1,3}(?:,\d{3})+|\d*)(?:\.(\d*))?(?:[eE]([+-]?)(\d+))?", re.ASCII)
_HEX_OR_OCTAL = re.compile(r"&(?:[Hh]0*([0-9A-Fa-f]{1,16})|[Oo]0*([0-7]{1,22}))", re.ASCII)
# No number of any type has as many digits in front of its decimal point, or as many zeros behind it.
_LARGEST_POWER = 400
_TRUTH = {"true": True, "false": False, "#TRUE#": True, "#FALSE#": False}
_TIME_OF_DAY = r"(?:(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)"
_ISO_TIME = re.compile(
    rf"(\d{{4}})([-/])(\d{{1,2}})\2(\d{{1,2}})(?:[T ]{_TIME_OF_DAY}(Z|[+-]\d{{2}}:\d{{2}})?)?", re.ASCII
)
_MONTH_FIRST_TIME = re.compile(rf"(\d{{1,2}})/(\d{{1,2}})/(\d{{4}})(?: {_TIME_OF_DAY}(?: ([AaPp])[Mm])?)?", re.ASCII)
_SPAN = re.compile(r"(?:(\d{1,9})[ .])?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,6})?)", re.ASCII)
_SIGNIFICANT_DIGITS, _SIGNIFICANT_DIGITS_OF_FLOAT = 15, 7


class _Decimal:
    """A number as it was written: digits without leading zeros, and the power of ten of the last one."""

    __slots__ = ("digits", "negative", "power")

    def __init__(self, negative: bool, digits: str, power: int) -> None:
        self.negative, self.digits, self.power = negative, digits, power

    def rounded(self) -> int:
        """Return the nearest integer, and of two equally near ones the even one.

        Raises:
            ConversionRefused: it has more digits than any integer type.
        """
        whole = len(self.digits) + self.power
        if not self.digits or whole < 0:
            return 0
        if whole > 20:
            raise ConversionRefused(Refusal.RANGE)
        number = int(self.digits[:whole].ljust(whole, "0") or "0")
        rest = self.digits[whole:]
        if rest and (rest[0] > "5" or (rest[0] == "5" and (number % 2 == 1 or rest[1:].strip("0") != ""))):
            number += 1
        return -number if self.negative else number

    def real(self) -> float:
        """Return the nearest double.

        Raises:
            ConversionRefused: it is larger than the largest one.
        """
        if not self.digits:
            return -0.0 if self.negative else 0.0
        whole = len(self.digits) + self.power
        # `0.digits` times a power of ten, so that neither many digits nor many zeros make the exponent a long one.
        number = float(f"0.{self.digits}e{max(-_LARGEST_POWER, min(_LARGEST_POWER, whole))}")
        if math.isinf(number):
            raise ConversionRefused(Refusal.RANGE)
        return -number if self.negative else number


def _decimal_of_text(text: str) -> _Decimal:
    text = text.strip(_SPACES)
    negative = False
    if text.startswith("(") and text.endswith(")"):
        negative, text = True, text[1:-1].strip(_SPACES)
    elif text.startswith(("+", "-")):
        negative, text = text[0] == "-", text[1:].lstrip(_SPACES)
    elif text.endswith(("+", "-")):
        negative, text = text[-1] == "-", text[:-1].rstrip(_SPACES)
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        raise ConversionRefused(Refusal.TEXT)
    whole, fraction, exponent_sign, exponent_digits = match.groups(default="")
    exponent_digits = exponent_digits.lstrip("0")
    # An exponent with more digits than any text has characters makes the number infinite, or 0, in any case.
    exponent = int(exponent_digits or "0") if len(exponent_digits) < 10 else 10**10
    power = (-exponent if exponent_sign == "-" else exponent) - len(fraction)
    return _Decimal(negative, (whole.replace(",", "") + fraction).lstrip("0"), power)


def _bits_of_text(text: str) -> int | None:
    """Return the number that a hexadecimal or octal text has; None for any other text.

    Raises:
        ConversionRefused: it has more than 64 bits.
    """
    text = text.strip(_SPACES)
    if not text.startswith("&"):
        return None
    match = _HEX_OR_OCTAL.fullmatch(text)
    if match is None:
        raise ConversionRefused(Refusal.TEXT)
    number = int(match[1], 16) if match[1] is not None else int(match[2], 8)
    if number >= 2**64:
        raise ConversionRefused(Refusal.RANGE)
    return number


def _integer(bits: int, signed: bool) -> Callable[[object], int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)

    def convert_to_integer(value: object) -> int:
        match value:
            case bool():
                number = -int(value)
            case int():
                number = value
            case float():
                if not math.isfinite(value):
                    raise ConversionRefused(Refusal.RANGE)
                number = round(value)
            case str():
                pattern = _bits_of_text(value)
                if pattern is None:
                    number = _decimal_of_text(value).rounded()
                else:
                    # A hexadecimal text shows the bits: &HFFFFFFFF is -1 as a signed number of 32 bits.
                    number = pattern - 2**bits if signed and high <= pattern < 2**bits else pattern
            case _:
                raise ConversionRefused(Refusal.UNSUPPORTED)
        if not low <= number < high:
            raise ConversionRefused(Refusal.RANGE)
        return number

    return convert_to_integer


def _double(value: object) -> float:
    match value:
        case bool():
            return -1.0 if value else 0.0  # and not -0.0
        case int() | float():
            return float(value)
        case str():
            pattern = _bits_of_text(value)
            return _decimal_of_text(value).real() if pattern is None else float(pattern)
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


def _float(value: object) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", _double(value)))
    except OverflowError:
        raise ConversionRefused(Refusal.RANGE) from None
    return float(rounded)


def _boolean(value: object) -> bool:
    match value:
        case bool():
            return value
        case int() | float():
            return value != 0
        case str():
            if value in _TRUTH:
                return _TRUTH[value]
            if len(value) <= len("false") and value.lower() in _TRUTH:
                return _TRUTH[value.lower()]
            return _double(value) != 0
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "True" if value else "False"
        case int():
            return str(value)
        case float():
            return _text_of_number(value)
        case datetime():
            return _in_utc(value).isoformat()
        case timedelta():
            return str(value)
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


def _text_of_number(number: float) -> str:
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "0"  # COM writes no negative zero.
    digits = _SIGNIFICANT_DIGITS
    text = f"{number:.{digits}G}"
    if float(text) != number and abs(number) < 2**128 and struct.unpack("<f", struct.pack("<f", number))[0] == number:
        # The number was sent as a 32-bit float: 0.1, and not 0.100000001490116.
        digits = _SIGNIFICANT_DIGITS_OF_FLOAT
        text = f"{number:.{digits}G}"
    mantissa, _, exponent = text.partition("E-")
    if not exponent:
        return text
    places = int(exponent) + sum(c.isdigit() for c in mantissa) - 1
    return f"{number:.{places}f}" if int(exponent) < digits and places <= digits else text


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _time(value: object) -> datetime:
    match value:
        case datetime():
            return _in_utc(value)
        case str():
            try:
                return _time_of_text(value.strip(_SPACES))
            except (ValueError, OverflowError):
                raise ConversionRefused(Refusal.TEXT) from None
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


def _time_of_text(text: str) -> datetime:
    zone: timezone = UTC
    if match := _ISO_TIME.fullmatch(text):
        year, _, month, day, hour, minute, second, fraction, offset = match.groups(default="")
        if offset not in ("", "Z"):
            span = timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6]))
            zone = timezone(-span if offset[0] == "-" else span)
    elif match := _MONTH_FIRST_TIME.fullmatch(text):
        month, day, year, hour, minute, second, fraction, half = match.groups(default="")
        if half:
            if not 1 <= int(hour) <= 12:
                raise ValueError
            hour = str(int(hour) % 12 + (12 if half in "Pp" else 0))
    else:
        raise ValueError
    microsecond = int(fraction[:6].ljust(6, "0")) if fraction else 0
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), microsecond, tzinfo=zone
    )
    moment.astimezone(UTC)  # Refuses a time that lies outside the years 1 to 9999 in UTC.
    return moment


def _span(value: object) -> timedelta:
    match value:
        case bool() | datetime():
            raise ConversionRefused(Refusal.UNSUPPORTED)
        case timedelta():
            return value
        case int() | float():
            try:
                return timedelta(seconds=value)
            except (OverflowError, ValueError):
                raise ConversionRefused(Refusal.RANGE) from None
        case str():
            match = _SPAN.fullmatch(value.strip(_SPACES))
            if match is None:
                raise ConversionRefused(Refusal.TEXT)
            days, hours, minutes, seconds = match.groups(default="0")
            return timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


def _bytes(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode("utf-8")
        case _:
            raise ConversionRefused(Refusal.UNSUPPORTED)


# Key: wanted type. Value: its conversion of any value that is not None.
TABLE: Mapping[Target, Callable[[object], bool | int | float | str | datetime | timedelta | bytes]] = {
    Target.BOOLEAN: _boolean,
    Target.INT8: _integer(8, signed=True),
    Target.UINT8: _integer(8, signed=False),
    Target.INT16: _integer(16, signed=True),
    Target.UINT16: _integer(16, signed=False),
    Target.INT32: _integer(32, signed=True),
    Target.UINT32: _integer(32, signed=False),
    Target.INT64: _integer(64, signed=True),
    Target.UINT64: _integer(64, signed=False),
    Target.FLOAT: _float,
    Target.DOUBLE: _double,
    Target.TEXT: _text,
    Target.TIME: _time,
    Target.SPAN: _span,
    Target.BYTES: _bytes,
}
