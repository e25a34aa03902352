"""Converts MxValues to the data type of the node to which they are written.

The rules are those of MXAccess, which converts like VARIANTs: a number that is written to a text node becomes text, a
text that reads as a number becomes a number, and a float that is written to an integer node is rounded half to even. A
value that does not fit the node is refused here with a native detail that names the cause. An OPC UA server would only
answer BadTypeMismatch.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from asyncua import ua

from mxgw.convert import from_value
from mxgw.v1.values_pb2 import MxValue

_T = ua.VariantType

# Native details (MxStatusDetail) that name the cause of a refused conversion.
WRONG_DATA_TYPE, WRONG_DIMENSIONS, NOT_SUPPORTED, TEXT_NOT_CONVERTED, OUT_OF_RANGE = 13, 14, 18, 19, 1004

_INTEGERS: dict[int, range] = {
    _T.SByte: range(-(2**7), 2**7),
    _T.Byte: range(2**8),
    _T.Int16: range(-(2**15), 2**15),
    _T.UInt16: range(2**16),
    _T.Int32: range(-(2**31), 2**31),
    _T.UInt32: range(2**32),
    _T.Int64: range(-(2**63), 2**63),
    _T.UInt64: range(2**64),
}
# The smallest number that would become infinite as a 32-bit float: half a step above the largest 32-bit float.
_FLOAT_MAX = 3.4028235677973366e38
_FALSE_TEXTS, _TRUE_TEXTS = frozenset({"false", "0", "off", "no"}), frozenset({"true", "1", "-1", "on", "yes"})


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
        if target.rank == -1:
            raise NotWritable(WRONG_DIMENSIONS)
        elements = plain if isinstance(plain, list) else []
        kind = target.kind or _natural(elements[0] if elements else "")
        dimensions = list(value.array.dimensions)
        if dimensions and math.prod(dimensions) != len(elements):
            raise NotWritable(WRONG_DIMENSIONS)
        if target.rank > 0 and target.rank != max(1, len(dimensions)):
            raise NotWritable(WRONG_DIMENSIONS)
        converted = [_convert(element, kind) for element in elements]
        shaped = _shape(converted, dimensions) if len(dimensions) > 1 else converted
        return ua.Variant(shaped, kind, dimensions if len(dimensions) > 1 else None, is_array=True)
    if target.rank >= 0:
        raise NotWritable(WRONG_DIMENSIONS)
    kind = target.kind or _natural(plain)
    return ua.Variant(_convert(plain, kind), kind)


def _natural(value: object) -> ua.VariantType:
    """Return the OPC UA type of a Python value, for a node that accepts any type."""
    match value:
        case bool():
            return _T.Boolean
        case int():
            return _T.Int32 if value in _INTEGERS[_T.Int32] else _T.Int64
        case float() | timedelta():
            return _T.Double
        case datetime():
            return _T.DateTime
        case bytes():
            return _T.ByteString
        case _:
            return _T.String


def _convert(value: object, kind: ua.VariantType) -> object:
    if value is None:
        raise NotWritable(WRONG_DATA_TYPE)
    if isinstance(value, timedelta):
        value = value / timedelta(milliseconds=1)  # An OPC UA Duration is a Double that counts milliseconds.
    if kind in _INTEGERS:
        return _integer(value, _INTEGERS[kind])
    convert = _CONVERSIONS.get(kind)
    if convert is None:
        raise NotWritable(NOT_SUPPORTED)
    return convert(value)


def _integer(value: object, allowed: range) -> int:
    match value:
        case bool() | int():
            number = int(value)
        case float():
            number = _rounded(value)
        case str():
            number = _integer_of_text(value)
        case _:
            raise NotWritable(NOT_SUPPORTED)
    if number not in allowed:
        raise NotWritable(OUT_OF_RANGE)
    return number


def _rounded(value: float) -> int:
    if not math.isfinite(value):
        raise NotWritable(OUT_OF_RANGE)
    return round(value)


def _integer_of_text(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return _rounded(_number_of_text(text))


def _number_of_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise NotWritable(TEXT_NOT_CONVERTED) from None


def _double(value: object) -> float:
    match value:
        case bool() | int() | float():
            try:
                return float(value)
            except OverflowError:
                raise NotWritable(OUT_OF_RANGE) from None
        case str():
            return _number_of_text(value)
        case _:
            raise NotWritable(NOT_SUPPORTED)


def _float(value: object) -> float:
    number = _double(value)
    if math.isfinite(number) and abs(number) >= _FLOAT_MAX:
        raise NotWritable(OUT_OF_RANGE)
    return number


def _boolean(value: object) -> bool:
    match value:
        case bool():
            return value
        case int() | float():
            return value != 0
        case str() if value.strip().lower() in _TRUE_TEXTS:
            return True
        case str() if value.strip().lower() in _FALSE_TEXTS:
            return False
        case str():
            raise NotWritable(TEXT_NOT_CONVERTED)
        case _:
            raise NotWritable(NOT_SUPPORTED)


def _string(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "True" if value else "False"
        case int():
            return str(value)
        case float():
            return repr(value)
        case datetime():
            return value.isoformat()
        case _:
            raise NotWritable(NOT_SUPPORTED)


def _time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise NotWritable(TEXT_NOT_CONVERTED) from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise NotWritable(NOT_SUPPORTED)


def _bytes(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode("utf-8")
        case _:
            raise NotWritable(NOT_SUPPORTED)


def _of_text(build: Callable[[str], object]) -> Callable[[object], object]:
    def convert(value: object) -> object:
        if not isinstance(value, str):
            raise NotWritable(NOT_SUPPORTED)
        try:
            return build(value)
        except (ValueError, ua.UaError):
            raise NotWritable(TEXT_NOT_CONVERTED) from None

    return convert


_CONVERSIONS: dict[int, Callable[[object], object]] = {
    _T.Boolean: _boolean,
    _T.Float: _float,
    _T.Double: _double,
    _T.String: _string,
    _T.DateTime: _time,
    _T.ByteString: _bytes,
    _T.LocalizedText: lambda value: ua.LocalizedText(_string(value)),
    _T.Guid: _of_text(uuid.UUID),
    _T.NodeId: _of_text(ua.NodeId.from_string),
    _T.QualifiedName: _of_text(ua.QualifiedName.from_string),
}


def _shape(flat: Sequence[object], dimensions: Sequence[int]) -> list[object]:
    if len(dimensions) == 1:
        return list(flat)
    step = math.prod(dimensions[1:])
    return [_shape(flat[i * step : (i + 1) * step], dimensions[1:]) for i in range(dimensions[0])]
