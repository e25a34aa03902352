"""Converts OPC UA values to MxValues.

Scalars keep their own kind. Int64, UInt32 and UInt64 become `long`; a UInt64 beyond 63 bits becomes its decimal text,
because a rounded number would be wrong. Types that MXAccess does not have become text or bytes: Guid, NodeId,
QualifiedName and LocalizedText become text, and structures that the library can read become JSON text. ByteStrings and
other structures become bytes.

Where an annotation says `Any`, it means the value that a Variant of the library contains. The OPC UA type is not in
this value; the Variant has it in a field of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua

from mxgw.convert import BOOLEAN, DOUBLE, FLOAT, INTEGER, STRING, TIME, mapped_data_type, timestamp_from_ns
from mxgw.v1 import values_pb2 as v

from .texts import shown

_T = ua.VariantType
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64_MAX = 2**63 - 1

# Key: built-in type of OPC UA. Value: its native MxDataType. Types that MXAccess does not have are missing.
DATA_TYPES: dict[int, int] = {
    _T.Boolean: BOOLEAN,
    _T.SByte: INTEGER,
    _T.Byte: INTEGER,
    _T.Int16: INTEGER,
    _T.UInt16: INTEGER,
    _T.Int32: INTEGER,
    _T.Float: FLOAT,
    _T.Double: DOUBLE,
    _T.String: STRING,
    _T.DateTime: TIME,
}
_INT32_TYPES = frozenset({_T.SByte, _T.Byte, _T.Int16, _T.UInt16, _T.Int32})
_LONG_TYPES = frozenset({_T.UInt32, _T.Int64, _T.UInt64})


def to_ns(moment: datetime) -> int:
    """Return nanoseconds since 1970 (UTC), exact to the microsecond. A moment without a time zone is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND * 1000


def source_time_ns(value: ua.DataValue) -> int | None:
    """Return the source's time of the value, or the server's time if there is none; None when there is neither."""
    moment = value.SourceTimestamp or value.ServerTimestamp
    return None if moment is None else to_ns(moment)


def to_mx(variant: ua.Variant | None) -> v.MxValue:
    """Return the value of a Variant as a message. A Variant without a value becomes a message without a kind."""
    if variant is None or (variant.Value is None and not variant.is_array):
        return v.MxValue()
    kind = variant.VariantType
    if not variant.is_array:
        message = _scalar(kind, variant.Value)
    else:
        message = v.MxValue(array=_array(kind, ua.uatypes.flatten(variant.Value) or [], variant.Dimensions))
    native = DATA_TYPES.get(kind)
    if native is not None:
        message.data_type = mapped_data_type(native)
        message.raw_data_type = native
    return message


def to_mx_array(variants: Sequence[ua.Variant | None]) -> tuple[v.MxValue, int]:
    """Return one array of many values, and its native data type; 0 (no data) when the values have no common type."""
    kinds = {None if x is None or x.Value is None or x.is_array else x.VariantType for x in variants}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    if kind is None:
        elements = [to_mx(variant) for variant in variants]
        return v.MxValue(array=v.MxArray(values=v.ValueArray(elements=elements))), 0
    native = DATA_TYPES.get(kind, 0)
    message = v.MxValue(array=_array(kind, [x.Value for x in variants if x is not None], None))
    if native:
        message.data_type = mapped_data_type(native)
        message.raw_data_type = native
    return message, native


def _scalar(kind: ua.VariantType, value: Any) -> v.MxValue:
    # The most frequent types are checked first, because this runs once per event.
    if kind == _T.Double:
        return v.MxValue(double=value)
    if kind in _INT32_TYPES:
        return v.MxValue(integer=value)
    if kind == _T.Boolean:
        return v.MxValue(boolean=value)
    if kind == _T.Float:
        return v.MxValue(float=value)
    if kind == _T.String:
        return v.MxValue(string=shown(value))
    if kind in _LONG_TYPES:
        return v.MxValue(long=value) if value <= _INT64_MAX else v.MxValue(string=str(value))
    if kind == _T.DateTime:
        return v.MxValue(time=timestamp_from_ns(to_ns(value)))
    if kind == _T.Variant:
        return to_mx(value if isinstance(value, ua.Variant) else ua.Variant(value))
    if kind == _T.DataValue:
        return to_mx(value.Value) if isinstance(value, ua.DataValue) else v.MxValue()
    if isinstance(value, bytes):
        return v.MxValue(opaque=value)
    if isinstance(value, ua.ExtensionObject):
        return v.MxValue(opaque=value.Body or b"")
    return v.MxValue() if value is None else v.MxValue(string=shown(_text(value)))


def _array(kind: ua.VariantType, values: Sequence[Any], dimensions: Sequence[int] | None) -> v.MxArray:
    array = _elements(kind, values)
    if dimensions is not None and len(dimensions) > 1:
        array.dimensions.extend(dimensions)
    return array


def _elements(kind: ua.VariantType, values: Sequence[Any]) -> v.MxArray:
    build = _ARRAYS.get(kind)
    if build is not None and None not in values:
        return build(values)
    if kind in _LONG_TYPES and all(isinstance(x, int) for x in values):
        if all(x <= _INT64_MAX for x in values):
            return v.MxArray(longs=v.LongArray(elements=values))
        return v.MxArray(strings=v.StringArray(elements=[str(x) for x in values]))
    if kind in _TEXT_TYPES and None not in values:
        return v.MxArray(strings=v.StringArray(elements=[shown(_text(x)) for x in values]))
    elements = [v.MxValue() if x is None else _scalar(kind, x) for x in values]
    return v.MxArray(values=v.ValueArray(elements=elements))


def _times(values: Sequence[Any]) -> v.MxArray:
    stamps = [timestamp_from_ns(to_ns(x)) for x in values]
    return v.MxArray(times=v.TimeArray(elements=stamps))


_TEXT_TYPES = frozenset({_T.Guid, _T.NodeId, _T.ExpandedNodeId, _T.QualifiedName, _T.LocalizedText, _T.XmlElement})
_ARRAYS: dict[int, Callable[[Sequence[Any]], v.MxArray]] = {
    _T.Double: lambda xs: v.MxArray(doubles=v.DoubleArray(elements=xs)),
    _T.Float: lambda xs: v.MxArray(floats=v.FloatArray(elements=xs)),
    _T.Boolean: lambda xs: v.MxArray(booleans=v.BooleanArray(elements=xs)),
    _T.String: lambda xs: v.MxArray(strings=v.StringArray(elements=[shown(x) for x in xs])),
    _T.DateTime: _times,
    **{kind: lambda xs: v.MxArray(integers=v.IntegerArray(elements=xs)) for kind in _INT32_TYPES},
}


def _text(value: Any) -> str:
    if isinstance(value, ua.LocalizedText):
        return str(value.Text or "")
    if isinstance(value, ua.NodeId | ua.QualifiedName):
        return str(value.to_string())
    if isinstance(value, ua.StatusCode):
        return str(value.name)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.dumps(_plain(value), ensure_ascii=False)
    text = getattr(value, "Value", value)  # An XmlElement has its text in this attribute.
    return str(text)


def _plain(value: object) -> object:
    """Return a structure as plain data for JSON. Values that JSON cannot express become text."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, ua.LocalizedText | ua.NodeId | ua.QualifiedName | ua.StatusCode):
        return _text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            entry.name: _plain(getattr(value, entry.name))
            for entry in dataclasses.fields(value)
            if entry.name not in ("Encoding", "TypeId")
        }
    return str(value)
