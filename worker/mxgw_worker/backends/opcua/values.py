"""Converts OPC UA values to MxValues.

Scalars keep their own kind. Int64, UInt32 and UInt64 become `long`; a UInt64 beyond 63 bits becomes its decimal text,
because a rounded number would be wrong. Types that MXAccess does not have become text or bytes:

- Guid, NodeId, ExpandedNodeId (OPC 10000-6, 5.1.12), QualifiedName, LocalizedText and XmlElement become their text.
- A StatusCode becomes its name and its number: `BadInvalidArgument (0x80AB0000)`.
- Structures that the library can read, DataValues and DiagnosticInfos become JSON text as RFC 8259 defines it. NaN and
  the infinities, which JSON does not have, are the texts "NaN", "Infinity" and "-Infinity", as in OPC 10000-6, 5.4.2.4.
  Integers beyond 2**53 are texts as well, because most readers of JSON would round them. ByteStrings are hexadecimal.
- ByteStrings and structures that the library cannot read become bytes.

Bytes in a text that are no UTF-8 become U+FFFD. Nothing that a server sends makes these functions raise.

Where an annotation says `Any`, it means the value that a Variant of the library contains. The OPC UA type is not in
this value; the Variant has it in a field of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
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
_EXACT_IN_JSON = 2**53 - 1
# Arrays of Variants can be nested. Deeper ones become JSON text: protobuf refuses messages nested 100 deep, and each
# array needs three.
_DEEPEST_ARRAY = 8
# Source: OPC 10000-6, 5.1.5 lets decoders stop after 100 levels of nesting.
_DEEPEST_STRUCTURE = 100
_TOO_DEEP = "(nested too deeply)"

_CODE_MASK = 0xFFFF0000

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
    return _to_mx(variant, 0)


def _to_mx(variant: ua.Variant | None, depth: int) -> v.MxValue:
    if variant is None or (variant.Value is None and not variant.is_array):
        return v.MxValue()
    kind = variant.VariantType
    if not variant.is_array:
        message = _scalar(kind, variant.Value, depth)
    elif depth >= _DEEPEST_ARRAY:
        return _string(_json(variant))
    else:
        message = v.MxValue(array=_array(kind, ua.uatypes.flatten(variant.Value) or [], variant.Dimensions, depth))
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
    message = v.MxValue(array=_array(kind, [x.Value for x in variants if x is not None], None, 0))
    if native:
        message.data_type = mapped_data_type(native)
        message.raw_data_type = native
    return message, native


def status_text(code: int) -> str:
    """Return the name of a StatusCode and its whole number; the number has the bits that the name leaves out."""
    return f"{ua.StatusCode(code & _CODE_MASK).name} (0x{code:08X})"


def _scalar(kind: ua.VariantType, value: Any, depth: int) -> v.MxValue:
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
        return _string(value)
    if kind in _LONG_TYPES:
        return v.MxValue(long=value) if value <= _INT64_MAX else v.MxValue(string=str(value))
    if kind == _T.DateTime:
        return v.MxValue(time=timestamp_from_ns(to_ns(value)))
    if kind == _T.Variant:
        return _to_mx(value if isinstance(value, ua.Variant) else ua.Variant(value), depth + 1)
    if isinstance(value, bytes):
        return v.MxValue(opaque=value)
    if isinstance(value, ua.ExtensionObject):
        # A structure without a body is none at all (OPC 10000-6, 5.2.2.15).
        return v.MxValue() if value.Body is None else v.MxValue(opaque=value.Body)
    return v.MxValue() if value is None else _string(_text(value))


def _string(text: str) -> v.MxValue:
    return v.MxValue(string=shown(text))


def _array(kind: ua.VariantType, values: Sequence[Any], dimensions: Sequence[int] | None, depth: int) -> v.MxArray:
    if dimensions is None:
        return _elements(kind, values, depth)
    # The library fills an array up with empty lists when the dimensions promise more elements than there are.
    # Dimensions that do not fit their elements say nothing, and are left out.
    values = [value for value in values if not isinstance(value, list)]
    array = _elements(kind, values, depth)
    if len(dimensions) > 1 and min(dimensions) >= 0 and math.prod(dimensions) == len(values):
        array.dimensions.extend(dimensions)
    return array


def _elements(kind: ua.VariantType, values: Sequence[Any], depth: int) -> v.MxArray:
    build = _ARRAYS.get(kind)
    if build is not None and None not in values:
        return build(values)
    if kind in _LONG_TYPES and all(isinstance(x, int) for x in values):
        if all(x <= _INT64_MAX for x in values):
            return v.MxArray(longs=v.LongArray(elements=values))
        return v.MxArray(strings=v.StringArray(elements=[str(x) for x in values]))
    if kind in _TEXT_TYPES and None not in values:
        return _strings([_text(x) for x in values])
    elements = [v.MxValue() if x is None else _scalar(kind, x, depth) for x in values]
    return v.MxArray(values=v.ValueArray(elements=elements))


def _strings(texts: Sequence[str]) -> v.MxArray:
    return v.MxArray(strings=v.StringArray(elements=[shown(text) for text in texts]))


def _times(values: Sequence[Any]) -> v.MxArray:
    stamps = [timestamp_from_ns(to_ns(x)) for x in values]
    return v.MxArray(times=v.TimeArray(elements=stamps))


_TEXT_TYPES = frozenset(
    {
        _T.Guid,
        _T.NodeId,
        _T.ExpandedNodeId,
        _T.QualifiedName,
        _T.LocalizedText,
        _T.XmlElement,
        _T.StatusCode,
        _T.DataValue,
        _T.DiagnosticInfo,
    }
)
_ARRAYS: dict[int, Callable[[Sequence[Any]], v.MxArray]] = {
    _T.Double: lambda xs: v.MxArray(doubles=v.DoubleArray(elements=xs)),
    _T.Float: lambda xs: v.MxArray(floats=v.FloatArray(elements=xs)),
    _T.Boolean: lambda xs: v.MxArray(booleans=v.BooleanArray(elements=xs)),
    _T.String: _strings,
    _T.DateTime: _times,
    **{kind: lambda xs: v.MxArray(integers=v.IntegerArray(elements=xs)) for kind in _INT32_TYPES},
}


def _text(value: Any) -> str:
    return _named(value) if isinstance(value, _NAMED) else _json(value) if _is_structure(value) else str(value)


# Structures of the library that are values of built-in types, and have a text of their own.
_NAMED = (ua.LocalizedText, ua.XmlElement, ua.NodeId, ua.QualifiedName, ua.StatusCode)


def _named(value: Any) -> str:
    match value:
        case ua.LocalizedText():
            return value.Text or ""
        case ua.XmlElement():
            return value.Value or ""
        case ua.QualifiedName():
            return f"{value.NamespaceIndex}:{value.Name or ''}"
        case ua.StatusCode():
            return status_text(value.value)
        case _:
            return _node_id_text(value)


def _node_id_text(node_id: ua.NodeId) -> str:
    """Return `svr=1;nsu=urn:plant;s=Name`. Source: OPC 10000-6, 5.1.12. A URI takes the place of the index."""
    if not isinstance(node_id, ua.ExpandedNodeId):
        return str(node_id.to_string())
    server = f"svr={node_id.ServerIndex};" if node_id.ServerIndex else ""
    uri = node_id.NamespaceUri
    index = 0 if uri else node_id.NamespaceIndex
    own = ua.NodeId(node_id.Identifier, index, node_id.NodeIdType).to_string()
    namespace = f"nsu={uri.replace('%', '%25').replace(';', '%3B')};" if uri else ""
    return f"{server}{namespace}{own}"


def _is_structure(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _json(value: object) -> str:
    return json.dumps(_plain(value, 0), ensure_ascii=False, allow_nan=False)


def _plain(value: object, depth: int) -> object:
    """Return a value as plain data for JSON."""
    if depth > _DEEPEST_STRUCTURE:
        return _TOO_DEEP
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, int):
        number = int(value)  # A member of an enumeration as well.
        return number if -_EXACT_IN_JSON <= number <= _EXACT_IN_JSON else str(number)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [_plain(element, depth + 1) for element in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, ua.Variant):
        return _plain(value.Value, depth)
    if isinstance(value, _NAMED):
        return shown(_named(value))
    if _is_structure(value):
        return {
            entry.name: _plain(getattr(value, entry.name), depth + 1)
            # The library's own field for optional members does not take part in comparisons.
            for entry in dataclasses.fields(value)  # type: ignore[arg-type]  # `_is_structure` has checked it
            if entry.name != "Encoding" or entry.compare
        }
    return shown(str(value))
