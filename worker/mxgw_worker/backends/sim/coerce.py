"""Converts values that clients write to the type of an attribute, as COM's VARIANT conversion does.

An enumeration holds the index of its name. A time is a datetime with a time zone. A float is rounded to 32 bits when it
is stored, so that a client that reads it back gets the stored number exactly.
Source: the rules of VariantChangeType as far as Windows documents them; details
docs/reference/mxaccess.md#status-details.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mxgw.convert import PyValue, to_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.sim.status import DataType, Detail, Refused

Scalar = bool | int | float | str | datetime | timedelta
Value = Scalar | tuple[Scalar, ...] | None

_TEXT = (DataType.STRING, DataType.BIG_STRING, DataType.INTERNATIONALIZED_STRING, DataType.REFERENCE)
# The longest span that a protobuf Duration can hold: about 10,000 years.
_LONGEST_SPAN = timedelta(seconds=315_576_000_000)
_SPAN = re.compile(r"(?:(\d+)[ .])?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,6})?)", re.ASCII)


def encode(value: Value, data_type: int) -> MxValue:
    """Return a value as a message. The message does not name the data type, because an OnDataChange does not name it
    either.

    Source: docs/reference/mxaccess.md#events.
    """
    message = to_value(value, data_type)
    message.ClearField("data_type")
    message.ClearField("raw_data_type")
    return message


def coerce_array(value: PyValue, data_type: DataType, names: Sequence[str] = ()) -> tuple[Scalar, ...]:
    """Return the elements of an array value, converted to `data_type`.

    Raises:
        Refused: the value is a scalar, or an element cannot be converted.
    """
    if not isinstance(value, list | tuple):
        raise Refused(Detail.WRONG_NUMBER_OF_DIMENSIONS)
    return tuple(coerce(element, data_type, names) for element in value)


def coerce(value: PyValue, data_type: DataType, names: Sequence[str] = ()) -> Scalar:
    """Return the value as a scalar of `data_type`. `names` are the names of an enumeration.

    Raises:
        Refused: the value is an array, or it cannot be converted.
    """
    if isinstance(value, list | tuple):
        raise Refused(Detail.WRONG_NUMBER_OF_DIMENSIONS)
    if value is None or isinstance(value, bytes):
        raise Refused(Detail.WRONG_DATA_TYPE)
    assert not isinstance(value, Sequence) or isinstance(value, str)  # This narrows the type for the type checker.
    if data_type == DataType.BOOLEAN:
        return _boolean(value)
    if data_type == DataType.QUALIFIED_ENUM:
        return _enumeration(value, names)
    if data_type == DataType.FLOAT:
        return _float32(_number(value))
    if data_type == DataType.DOUBLE:
        return float(_number(value))
    if data_type in _TEXT:
        return _text(value)
    if data_type == DataType.TIME:
        return _time(value)
    if data_type == DataType.ELAPSED_TIME:
        return _elapsed(value)
    return _integer(value)


def _number(value: Scalar) -> int | float:
    if isinstance(value, bool):
        return -int(value)  # VARIANT_TRUE is -1, and COM converts it to that number.
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return float(value.replace("_", "?"))  # Python accepts underscores, COM does not.
        except ValueError:
            raise Refused(Detail.UNABLE_TO_CONVERT_STRING) from None
    raise Refused(Detail.WRONG_DATA_TYPE)


def _integer(value: Scalar) -> int:
    number = _number(value)
    if not math.isfinite(number) or not -(2**31) <= round(number) < 2**31:
        raise Refused(Detail.OVERFLOW)
    return round(number)  # Rounded half to even, as COM does.


def _float32(number: int | float) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise Refused(Detail.OVERFLOW) from None
    return float(rounded)


def _boolean(value: Scalar) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return _number(value) != 0


def _enumeration(value: Scalar, names: Sequence[str]) -> int:
    if isinstance(value, str) and not value.strip().isdecimal():
        for index, name in enumerate(names):
            if name.lower() == value.strip().lower():
                return index
        raise Refused(Detail.UNABLE_TO_CONVERT_STRING)
    if isinstance(value, datetime | timedelta | bool):
        raise Refused(Detail.INCORRECT_DATA_TYPE)
    index = _integer(value)
    if not 0 <= index < len(names):
        raise Refused(Detail.DATA_OUT_OF_RANGE)
    return index


def _text(value: Scalar) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _time(value: Scalar) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise Refused(Detail.UNABLE_TO_CONVERT_STRING) from None
    if not isinstance(value, datetime):
        raise Refused(Detail.WRONG_DATA_TYPE)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _elapsed(value: Scalar) -> timedelta:
    if isinstance(value, datetime | bool):
        raise Refused(Detail.WRONG_DATA_TYPE)
    try:
        if isinstance(value, int | float):
            span = timedelta(seconds=value)
        elif isinstance(value, str):
            span = _span(value.strip())
        else:
            span = value
    except (OverflowError, ValueError):
        raise Refused(Detail.OVERFLOW) from None
    if abs(span) > _LONGEST_SPAN:
        raise Refused(Detail.OVERFLOW)
    return span


def _span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise Refused(Detail.UNABLE_TO_CONVERT_STRING)
    days, hours, minutes, seconds = match.groups(default="0")
    return timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
