"""Converts MxValues to the data type of the node to which they are written.

Built-in types that MXAccess has too are converted by the table that all backends share (`mxgw_worker.conversions`); the
types that only OPC UA has are converted from text here. A value that does not fit the node is refused here with a
native detail that names the cause. An OPC UA server would only answer BadTypeMismatch.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from asyncua import ua

from mxgw.convert import from_value
from mxgw.v1.values_pb2 import MxArray, MxValue
from mxgw_worker.conversions import ConversionRefused, Refusal, Target, convert

_T = ua.VariantType

# Native details (MxStatusDetail) that name the cause of a refused conversion.
WRONG_DATA_TYPE, WRONG_DIMENSIONS, NOT_SUPPORTED, TEXT_NOT_CONVERTED, OUT_OF_RANGE = 13, 14, 18, 19, 1004
DETAILS: dict[Refusal, int] = {
    Refusal.NO_VALUE: WRONG_DATA_TYPE,
    Refusal.UNSUPPORTED: NOT_SUPPORTED,
    Refusal.TEXT: TEXT_NOT_CONVERTED,
    Refusal.RANGE: OUT_OF_RANGE,
}
# Key: built-in type of OPC UA. Value: its type in the conversion table.
TARGETS: dict[int, Target] = {
    _T.Boolean: Target.BOOLEAN,
    _T.SByte: Target.INT8,
    _T.Byte: Target.UINT8,
    _T.Int16: Target.INT16,
    _T.UInt16: Target.UINT16,
    _T.Int32: Target.INT32,
    _T.UInt32: Target.UINT32,
    _T.Int64: Target.INT64,
    _T.UInt64: Target.UINT64,
    _T.Float: Target.FLOAT,
    _T.Double: Target.DOUBLE,
    _T.String: Target.TEXT,
    _T.LocalizedText: Target.TEXT,
    _T.XmlElement: Target.TEXT,
    _T.DateTime: Target.TIME,
    _T.ByteString: Target.BYTES,
}
_INT32 = range(-(2**31), 2**31)
# The first moment that a DateTime of OPC UA can express. Encoders turn an earlier one into this one without a word.
_FIRST_TIME = datetime(1601, 1, 1, tzinfo=UTC)
# Key: kind of an array. Value: the type that it gets in a node that accepts any type.
_ARRAY_TYPES: dict[str, ua.VariantType] = {
    "booleans": _T.Boolean,
    "integers": _T.Int32,
    "longs": _T.Int64,
    "floats": _T.Float,
    "doubles": _T.Double,
    "strings": _T.String,
    "times": _T.DateTime,
    "elapsed_times": _T.Double,
}
_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NODE_ID = re.compile(r"(?:ns=(\d{1,20});)?(?:i=(\d{1,20})|s=(.*)|g=(.*)|b=(.*))", re.ASCII | re.DOTALL)
_STATUS_CODE = re.compile(r"[A-Za-z0-9_]{1,128} \(0x([0-9A-Fa-f]{8})\)")
_QUALIFIED_NAME = re.compile(r"(?:(\d{1,20}):)?(.*)", re.ASCII | re.DOTALL)


class NotWritable(Exception):
    """The value does not fit the node; `detail` is the native MxStatusDetail."""

    def __init__(self, detail: int) -> None:
        super().__init__(f"the value does not fit the node's data type (detail {detail})")
        self.detail = detail


@dataclass(frozen=True, slots=True)
class NodeType:
    """The type of a node's values. `kind` is None when the node accepts any type; a value then keeps its own type.
    `rank` is the ValueRank of OPC UA: -1 for a scalar, 1 or more for an array.
    """

    kind: ua.VariantType | None
    rank: int


def to_variant(value: MxValue, target: NodeType) -> ua.Variant:
    """Return the Variant to write.

    Raises:
        NotWritable: the value cannot be converted to the node's type.
    """
    plain = from_value(value)
    if value.WhichOneof("kind") == "array":
        return _array(value.array, plain if isinstance(plain, list) else [], target)
    if target.rank >= 0:
        raise NotWritable(WRONG_DIMENSIONS)
    # A Variant cannot hold a single Variant (OPC 10000-6, 5.2.2.16), so such a node gets the value itself.
    kind = target.kind if target.kind not in (None, _T.Variant) else _natural(plain)
    return ua.Variant(_convert(plain, kind), kind)


def _array(array: MxArray, elements: Sequence[object], target: NodeType) -> ua.Variant:
    dimensions = list(array.dimensions)
    if dimensions and math.prod(dimensions) != len(elements):
        raise NotWritable(WRONG_DIMENSIONS)
    if target.rank == -1 or (target.rank == -3 and len(dimensions) > 1):
        raise NotWritable(WRONG_DIMENSIONS)
    if target.rank > 0 and target.rank != max(1, len(dimensions)):
        raise NotWritable(WRONG_DIMENSIONS)
    kind = target.kind or _natural_array(array, elements)
    converted = [_convert(element, kind) for element in elements]
    shaped = _shape(converted, dimensions) if len(dimensions) > 1 else converted
    return ua.Variant(shaped, kind, dimensions if len(dimensions) > 1 else None, is_array=True)


def _natural(value: object) -> ua.VariantType:
    """Return the OPC UA type of a Python value, for a node that accepts any type."""
    match value:
        case bool():
            return _T.Boolean
        case int():
            return _T.Int32 if value in _INT32 else _T.Int64
        case float() | timedelta():
            return _T.Double
        case datetime():
            return _T.DateTime
        case bytes():
            return _T.ByteString
        case _:
            return _T.String


def _natural_array(array: MxArray, elements: Sequence[object]) -> ua.VariantType:
    """Return the type of an array for a node that accepts any type. Elements of several types stay what they are, each
    in a Variant of its own.
    """
    kind = _ARRAY_TYPES.get(array.WhichOneof("elements") or "")
    if kind is not None:
        return kind
    kinds = {_natural(element) for element in elements}
    return kinds.pop() if len(kinds) == 1 else _T.Variant


def _convert(value: object, kind: ua.VariantType) -> object:
    try:
        return _converted(value, kind)
    except ConversionRefused as refused:
        raise NotWritable(DETAILS[refused.refusal]) from None


def _converted(value: object, kind: ua.VariantType) -> object:
    if kind == _T.Variant:
        own = _natural(value)
        return ua.Variant(_converted(value, own), own)
    if isinstance(value, timedelta):
        value = value / timedelta(milliseconds=1)  # An OPC UA Duration is a Double that counts milliseconds.
    target = TARGETS.get(kind)
    if target is None:
        return _of_text(value, kind)
    converted = convert(value, target)
    if isinstance(converted, datetime) and converted < _FIRST_TIME:
        raise ConversionRefused(Refusal.RANGE)
    if kind == _T.LocalizedText:
        return ua.LocalizedText(str(converted))
    if kind == _T.XmlElement:
        return ua.XmlElement(str(converted))
    return converted


def _of_text(value: object, kind: ua.VariantType) -> object:
    """Return a value of a type that MXAccess does not have."""
    if value is None:
        raise ConversionRefused(Refusal.NO_VALUE)
    if kind == _T.StatusCode:
        return _status_code(value)
    build = _FROM_TEXT.get(kind)
    if build is None or not isinstance(value, str):
        raise ConversionRefused(Refusal.UNSUPPORTED)
    return build(value)


def _status_code(value: object) -> ua.StatusCode:
    """Return the StatusCode of a number, or of the text that reads of it give."""
    match = _STATUS_CODE.fullmatch(value) if isinstance(value, str) else None
    number = int(match[1], 16) if match is not None else convert(value, Target.UINT32)
    assert isinstance(number, int)
    return ua.StatusCode(number)


def _guid(text: str) -> uuid.UUID:
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    if _GUID.fullmatch(text) is None:
        raise ConversionRefused(Refusal.TEXT)
    return uuid.UUID(text)


def _node_id(text: str) -> ua.NodeId:
    match = _NODE_ID.fullmatch(text)
    if match is None:
        raise ConversionRefused(Refusal.TEXT)
    namespace, number, name, guid, opaque = match.groups()
    index = _in_range(namespace or "0", 2**16)
    if number is not None:
        return ua.NodeId(_in_range(number, 2**32), index)
    if name is not None:
        return ua.NodeId(name, index)
    if guid is not None:
        return ua.NodeId(_guid(guid), index)
    try:
        return ua.NodeId(base64.b64decode(opaque, validate=True), index)
    except (binascii.Error, ValueError):
        raise ConversionRefused(Refusal.TEXT) from None


def _qualified_name(text: str) -> ua.QualifiedName:
    match = _QUALIFIED_NAME.fullmatch(text)
    # A colon belongs to a name only behind an index: 2:http://example.org.
    if match is None or (match[1] is None and ":" in text):
        raise ConversionRefused(Refusal.TEXT)
    return ua.QualifiedName(match[2], _in_range(match[1] or "0", 2**16))


def _in_range(digits: str, end: int) -> int:
    number = int(digits)
    if number >= end:
        raise ConversionRefused(Refusal.RANGE)
    return number


_FROM_TEXT: dict[int, Callable[[str], object]] = {
    _T.Guid: _guid,
    _T.NodeId: _node_id,
    _T.QualifiedName: _qualified_name,
}


def _shape(flat: Sequence[object], dimensions: Sequence[int]) -> list[object]:
    if len(dimensions) == 1:
        return list(flat)
    step = math.prod(dimensions[1:])
    return [_shape(flat[i * step : (i + 1) * step], dimensions[1:]) for i in range(dimensions[0])]
