"""Converts values that clients write to the type of an attribute, by the table that all backends share.

An enumeration holds the index of its name. A time is a datetime with a time zone. A float is rounded to 32 bits when it
is stored, so that a client that reads it back gets the stored number exactly.
Source: `mxgw_worker.conversions`; details docs/reference/mxaccess.md#status-details.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from mxgw.convert import PyValue, to_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.sim.status import DataType, Detail, Refused
from mxgw_worker.conversions import ConversionRefused, Refusal, Target, convert

Scalar = bool | int | float | str | datetime | timedelta
Value = Scalar | tuple[Scalar, ...] | None

DETAILS: dict[Refusal, Detail] = {
    Refusal.NO_VALUE: Detail.WRONG_DATA_TYPE,
    Refusal.UNSUPPORTED: Detail.WRONG_DATA_TYPE,
    Refusal.TEXT: Detail.UNABLE_TO_CONVERT_STRING,
    Refusal.RANGE: Detail.OVERFLOW,
}
# Key: data type of an attribute. Value: its type in the conversion table. All others hold 32-bit integers.
TARGETS: dict[int, Target] = {
    DataType.BOOLEAN: Target.BOOLEAN,
    DataType.FLOAT: Target.FLOAT,
    DataType.DOUBLE: Target.DOUBLE,
    DataType.STRING: Target.TEXT,
    DataType.BIG_STRING: Target.TEXT,
    DataType.INTERNATIONALIZED_STRING: Target.TEXT,
    DataType.REFERENCE: Target.TEXT,
    DataType.TIME: Target.TIME,
    DataType.ELAPSED_TIME: Target.SPAN,
}
# The longest span that a protobuf Duration can hold: about 10,000 years.
_LONGEST_SPAN = timedelta(seconds=315_576_000_000)


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
    if data_type == DataType.QUALIFIED_ENUM:
        return _enumeration(value, names)
    return _converted(value, TARGETS.get(data_type, Target.INT32))


def _converted(value: object, target: Target) -> Scalar:
    try:
        converted = convert(value, target)
    except ConversionRefused as refused:
        raise Refused(DETAILS[refused.refusal]) from None
    if isinstance(converted, timedelta) and abs(converted) > _LONGEST_SPAN:
        raise Refused(Detail.OVERFLOW)
    assert not isinstance(converted, bytes)  # No target of an attribute is bytes.
    return converted


def _enumeration(value: object, names: Sequence[str]) -> int:
    if isinstance(value, str):
        for index, name in enumerate(names):
            if name.lower() == value.strip().lower():
                return index
    if isinstance(value, datetime | timedelta | bool):
        raise Refused(Detail.INCORRECT_DATA_TYPE)
    number = _converted(value, Target.INT32)
    assert isinstance(number, int)
    if not 0 <= number < len(names):
        raise Refused(Detail.DATA_OUT_OF_RANGE)
    return number
