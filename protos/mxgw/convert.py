"""Converts Python values and native MXAccess numbers to contract messages and back. Worker and client share this
module.

The module is written by hand. It is beside the generated code, because both ends of the wire must convert in the same
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.v1 import values_pb2 as v

PyScalar: TypeAlias = bool | int | float | str | datetime | timedelta | bytes | None
PyValue: TypeAlias = "PyScalar | Sequence[PyValue]"

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_DETAILS = frozenset(v.MxStatusDetail.values())
_CATEGORIES = frozenset(v.MxStatusCategory.values())
_SOURCES = frozenset(v.MxStatusSource.values())
_DATA_TYPES = frozenset(v.MxDataType.values())

# Native MxDataType numbers, one for each kind of value.
# Source: docs/reference/mxaccess.md#data-types.
BOOLEAN, INTEGER, FLOAT, DOUBLE, STRING, TIME, ELAPSED_TIME = range(1, 8)


def timestamp_from_ns(ns: int) -> Timestamp:
    """Return the Timestamp of `ns` nanoseconds since 1970 (UTC)."""
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


def timestamp_to_ns(stamp: Timestamp) -> int:
    """Return the time in nanoseconds since 1970 (UTC)."""
    return stamp.seconds * 1_000_000_000 + stamp.nanos


def timestamp_from_datetime(moment: datetime) -> Timestamp:
    """Return the Timestamp of `moment`. A `moment` without a time zone is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def timestamp_to_datetime(stamp: Timestamp) -> datetime:
    """Return the time as a datetime in UTC, exact to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC)


def duration_from_seconds(seconds: float) -> Duration:
    """Return the Duration of `seconds`."""
    ns = round(seconds * 1_000_000_000)
    whole = abs(ns) // 1_000_000_000 * (1 if ns >= 0 else -1)
    return Duration(seconds=whole, nanos=ns - whole * 1_000_000_000)


def duration_to_seconds(duration: Duration) -> float:
    """Return the duration in seconds."""
    return duration.seconds + duration.nanos / 1_000_000_000


def quality_class(raw_quality: int) -> v.Quality.ValueType:
    """Return the class of a raw quality: good, uncertain or bad. Only the bits 0xC0 of the quality decide.

    Source: docs/reference/mxaccess.md#qualities.
    """
    match raw_quality & 0xC0:
        case 0xC0:
            return v.QUALITY_GOOD
        case 0x40:
            return v.QUALITY_UNCERTAIN
        case _:
            return v.QUALITY_BAD


def status(success: int, category: int, detected_by: int, detail: int) -> v.MxStatus:
    """Return one MXSTATUS_PROXY as a message. Each native number is kept in a raw field; the mapped field beside it is
    UNSPECIFIED when the number is unknown.
    """
    return v.MxStatus(
        success=success,
        category=_mapped_category(category),
        raw_category=category,
        detected_by=_mapped_source(detected_by),
        raw_detected_by=detected_by,
        detail=_mapped_detail(detail),
        raw_detail=detail,
    )


def _mapped_category(native: int) -> v.MxStatusCategory.ValueType:
    number = native + 2
    return v.MxStatusCategory.ValueType(number) if number in _CATEGORIES else v.MX_STATUS_CATEGORY_UNSPECIFIED


def _mapped_source(native: int) -> v.MxStatusSource.ValueType:
    number = native + 2
    return v.MxStatusSource.ValueType(number) if number in _SOURCES else v.MX_STATUS_SOURCE_UNSPECIFIED


def _mapped_detail(native: int) -> v.MxStatusDetail.ValueType:
    number = native + 1
    return v.MxStatusDetail.ValueType(number) if number in _DETAILS else v.MX_STATUS_DETAIL_UNSPECIFIED


def mapped_data_type(native: int) -> v.MxDataType.ValueType:
    """Return the mapped enum value of a native MxDataType number; UNSPECIFIED when the number is unknown."""
    number = native + 2
    return v.MxDataType.ValueType(number) if number in _DATA_TYPES else v.MX_DATA_TYPE_UNSPECIFIED


def ok_status() -> v.MxStatus:
    """Return the status of a plain success, as MXAccess sends it: success -1, category Ok."""
    return status(-1, 0, 1, 0)


def is_ok(statuses: Sequence[v.MxStatus]) -> bool:
    """Return True when no status is a failure (`success == 0`)."""
    return all(s.success != 0 for s in statuses)


def to_value(value: PyValue, data_type: int | None = None) -> v.MxValue:
    """Return a Python value as a message.

    `data_type` is a native MxDataType number (docs/reference/mxaccess.md#data-types), which is stored in the message.
    It decides between float and double, and it limits an int to 32 bits when it is Integer. Without `data_type`, a
    bool, int, float, str, datetime, timedelta or bytes becomes the kind that fits its own type, and a list or tuple
    becomes an array. None becomes a value without a kind.

    Raises:
        TypeError: no MXAccess value has the type of `value`, or the type does not fit `data_type`.
        OverflowError: an integer does not fit 64 bits, or it does not fit 32 bits and `data_type` is Integer.
    """
    message = v.MxValue()
    if value is None:
        pass
    elif isinstance(value, list | tuple):
        message.array.CopyFrom(_to_array(value, data_type))
    else:
        _set_scalar(message, value, data_type)
    if data_type is not None:
        message.data_type = mapped_data_type(data_type)
        message.raw_data_type = data_type
    return message


def _set_scalar(message: v.MxValue, value: PyValue, data_type: int | None) -> None:
    if isinstance(value, bool):
        if data_type == INTEGER:
            message.integer = int(value)
        elif data_type in (FLOAT, DOUBLE):
            raise TypeError(f"a bool is not a number of data type {data_type}")
        else:
            message.boolean = value
    elif isinstance(value, int):
        if data_type == FLOAT:
            message.float = value
        elif data_type == DOUBLE:
            message.double = value
        elif value in _INT32:
            message.integer = value
        elif value in _INT64 and data_type != INTEGER:
            message.long = value
        else:
            raise OverflowError(f"{value} does not fit a {32 if data_type == INTEGER else 64}-bit integer")
    elif isinstance(value, float):
        if data_type == FLOAT:
            message.float = value
        else:
            message.double = value
    elif isinstance(value, str):
        message.string = value
    elif isinstance(value, datetime):
        message.time.CopyFrom(timestamp_from_datetime(value))
    elif isinstance(value, timedelta):
        message.elapsed_time.FromTimedelta(value)
    elif isinstance(value, bytes):
        message.opaque = value
    else:
        raise TypeError(f"no MXAccess value can hold a {type(value).__name__}")


def _to_array(values: Sequence[PyValue], data_type: int | None) -> v.MxArray:
    if not values:
        return _empty_array(data_type)
    scalars = [to_value(element, data_type) for element in values]
    kinds = {scalar.WhichOneof("kind") for scalar in scalars}
    if kinds == {"integer", "long"}:
        kinds = {"long"}
    if len(kinds) > 1 or None in kinds:
        return v.MxArray(values=v.ValueArray(elements=scalars))
    match kinds.pop():
        case "boolean":
            return v.MxArray(booleans=v.BooleanArray(elements=[s.boolean for s in scalars]))
        case "integer":
            return v.MxArray(integers=v.IntegerArray(elements=[s.integer for s in scalars]))
        case "long":
            return v.MxArray(longs=v.LongArray(elements=[s.long or s.integer for s in scalars]))
        case "float":
            return v.MxArray(floats=v.FloatArray(elements=[s.float for s in scalars]))
        case "double":
            return v.MxArray(doubles=v.DoubleArray(elements=[s.double for s in scalars]))
        case "string":
            return v.MxArray(strings=v.StringArray(elements=[s.string for s in scalars]))
        case "time":
            return v.MxArray(times=v.TimeArray(elements=[s.time for s in scalars]))
        case "elapsed_time":
            return v.MxArray(elapsed_times=v.ElapsedTimeArray(elements=[s.elapsed_time for s in scalars]))
        case _:
            return v.MxArray(values=v.ValueArray(elements=scalars))


def _empty_array(data_type: int | None) -> v.MxArray:
    match data_type:
        case 1:
            return v.MxArray(booleans=v.BooleanArray())
        case 2:
            return v.MxArray(integers=v.IntegerArray())
        case 3:
            return v.MxArray(floats=v.FloatArray())
        case 4:
            return v.MxArray(doubles=v.DoubleArray())
        case 5:
            return v.MxArray(strings=v.StringArray())
        case 6:
            return v.MxArray(times=v.TimeArray())
        case 7:
            return v.MxArray(elapsed_times=v.ElapsedTimeArray())
        case _:
            return v.MxArray(values=v.ValueArray())


def from_value(message: v.MxValue) -> PyValue:
    """Return the Python value that a message contains: None when the message has no kind, a list when it is an array.
    """
    match message.WhichOneof("kind"):
        case "boolean":
            return message.boolean
        case "integer":
            return message.integer
        case "long":
            return message.long
        case "float":
            return message.float
        case "double":
            return message.double
        case "string":
            return message.string
        case "time":
            return timestamp_to_datetime(message.time)
        case "elapsed_time":
            return message.elapsed_time.ToTimedelta()
        case "array":
            return _from_array(message.array)
        case "opaque":
            return message.opaque
        case _:
            return None


def _from_array(array: v.MxArray) -> PyValue:
    match array.WhichOneof("elements"):
        case "booleans":
            return list(array.booleans.elements)
        case "integers":
            return list(array.integers.elements)
        case "longs":
            return list(array.longs.elements)
        case "floats":
            return list(array.floats.elements)
        case "doubles":
            return list(array.doubles.elements)
        case "strings":
            return list(array.strings.elements)
        case "times":
            return [timestamp_to_datetime(stamp) for stamp in array.times.elements]
        case "elapsed_times":
            return [span.ToTimedelta() for span in array.elapsed_times.elements]
        case "values":
            return [from_value(element) for element in array.values.elements]
        case _:
            return []
