"""Makes VARIANTs of values, for the arguments of MXAccess' methods.

Nothing is converted to the type of the attribute: MXAccess does that (docs/reference/mxaccess.md#conversions).
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Protocol

from mxgw.v1.values_pb2 import MxArray, MxValue
from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.mxaccess import variant_layout
from mxgw_worker.backends.mxaccess.dates import Dates, filetime
from mxgw_worker.backends.mxaccess.variant_layout import (
    ARRAY,
    BYREF,
    CURRENCY,
    DEEPEST,
    POINTER,
    TYPE,
    VALUE_OFFSET,
    VarType,
)

# Source: winerror.h.
E_OUTOFMEMORY = -2147024882  # unsigned: 0x8007000E
_INT64 = range(-(2**63), 2**63)
# Key: type. Value: the layout of a whole number, and what fits it.
_WHOLE: dict[VarType, tuple[str, range]] = {
    VarType.I1: ("<b", range(-(2**7), 2**7)),
    VarType.UI1: ("<B", range(2**8)),
    VarType.I2: ("<h", range(-(2**15), 2**15)),
    VarType.UI2: ("<H", range(2**16)),
    VarType.I4: ("<i", range(-(2**31), 2**31)),
    VarType.INT: ("<i", range(-(2**31), 2**31)),
    VarType.ERROR: ("<i", range(-(2**31), 2**31)),
    VarType.UI4: ("<I", range(2**32)),
    VarType.UINT: ("<I", range(2**32)),
    VarType.I8: ("<q", _INT64),
    VarType.UI8: ("<Q", range(2**64)),
}
# Key: kind of a value. Value: its type when the client names none, and the others that it can have.
_TYPES: dict[str, tuple[VarType, frozenset[VarType]]] = {
    "boolean": (VarType.BOOL, frozenset()),
    "integer": (VarType.I4, frozenset(_WHOLE)),
    "long": (VarType.I8, frozenset(_WHOLE) | {VarType.FILETIME}),
    "float": (VarType.R4, frozenset({VarType.R8})),
    "double": (VarType.R8, frozenset({VarType.R4, VarType.CY, VarType.DECIMAL, VarType.DATE})),
    "string": (VarType.BSTR, frozenset({VarType.UI8})),
    "time": (VarType.DATE, frozenset({VarType.FILETIME})),
}
_ELEMENTS: dict[str, tuple[VarType, str]] = {
    "booleans": (VarType.BOOL, "boolean"),
    "integers": (VarType.I4, "integer"),
    "longs": (VarType.I8, "long"),
    "floats": (VarType.R4, "float"),
    "doubles": (VarType.R8, "double"),
    "strings": (VarType.BSTR, "string"),
    "times": (VarType.DATE, "time"),
    "values": (VarType.VARIANT, ""),
}
_NO_ELAPSED_TIME = (
    "how MXAccess takes an elapsed time is not known; write what the attribute takes instead, a text or a number"
)
# A DECIMAL has 96 bits, at most 28 places, and is rounded as OLE Automation rounds a double: to 15 digits.
_EXACT = Context(prec=15, rounding=ROUND_HALF_EVEN)


class Allocator(Protocol):
    """Memory of OLE Automation. What it returns belongs to the VARIANT that it is put into."""

    def text(self, text: str) -> int:
        """Return the address of a new BSTR."""

    def array(self, vt: int, sizes: Sequence[int]) -> tuple[int, int]:
        """Return the address of a new SAFEARRAY, outermost dimension first, and that of its elements (all zero)."""


class VariantMaker:
    """Makes VARIANTs whose dates are in one zone."""

    def __init__(self, dates: Dates, allocator: Allocator, clock: Callable[[], int]) -> None:
        """Use this zone and memory; `clock` returns the present time in nanoseconds since 1970 (UTC)."""
        self._dates = dates
        self._allocator = allocator
        self._clock = clock

    def fill(self, address: int, value: MxValue) -> None:
        """Make the empty VARIANT at `address` one of `value`.

        Its type is `variant_type` of the value, so that a value can be written back as it came; without one it is the
        type that has the value's kind. A VARIANT whose making fails may hold a part of the value.

        Raises:
            MxError: E_INVALIDARG, the type does not fit the kind, or the value does not fit the type. E_OUTOFMEMORY,
                this process has no room for it.
        """
        try:
            self._fill(address, value, DEEPEST)
        except MemoryError:
            raise MxError(E_OUTOFMEMORY, "this worker has no memory left for the value") from None

    def fill_time(self, address: int, ns: int | None) -> None:
        """Make the empty VARIANT at `address` a VT_DATE of `ns` nanoseconds since 1970 (UTC); of now when it is None.

        Raises:
            MxError: E_INVALIDARG. The time is outside the years 1 to 9999.
        """
        _store(address, VarType.DATE, self._date(self._clock() if ns is None else ns))

    def _fill(self, address: int, value: MxValue, depth: int) -> None:
        kind = value.WhichOneof("kind")
        wanted = value.variant_type & ~BYREF
        if kind is None:
            if wanted not in (VarType.EMPTY, VarType.NULL):
                raise _wrong_type("without a value", wanted)
            _store(address, wanted, b"")
        elif kind == "array":
            if wanted and not wanted & ARRAY:
                raise _wrong_type("array", wanted)
            self._fill_array(address, value.array, wanted & TYPE, depth)
        else:
            vt = _type_of(kind, wanted)
            # A DECIMAL starts where the VARIANT does; its first word is the type, which is stored last.
            _store(address, vt, self._scalar(getattr(value, kind), vt))

    def _fill_array(self, address: int, array: MxArray, wanted: int, depth: int) -> None:
        field = array.WhichOneof("elements")
        if field not in _ELEMENTS:
            raise MxError(E_INVALIDARG, _NO_ELAPSED_TIME if field else "an array without elements of any kind")
        usual, kind = _ELEMENTS[field]
        elements: Sequence[object] = getattr(array, field).elements
        sizes = list(array.dimensions) or [len(elements)]
        if len(sizes) > 64 or math.prod(sizes) != len(elements):
            shown = " x ".join(map(str, sizes[:8]))
            raise MxError(E_INVALIDARG, f"an array of {len(elements)} elements does not have the dimensions {shown}")
        vt = usual if wanted in (0, usual) else _array_type(kind, wanted)
        elements = variant_layout.column_major(elements, sizes)
        if vt not in (VarType.VARIANT, VarType.BSTR):
            # Before the array is made, so that a wrong element leaves none behind.
            packed = b"".join([self._scalar(element, vt) for element in elements])
        pointer, data = self._allocator.array(vt, sizes)
        _store(address, ARRAY | vt, POINTER.pack(pointer))
        if vt == VarType.VARIANT:
            if depth == 0:
                raise MxError(E_INVALIDARG, f"arrays within arrays, more than {DEEPEST} deep")
            for step, element in enumerate(elements):
                assert isinstance(element, MxValue)
                self._fill(data + step * variant_layout.SIZE, element, depth - 1)
        elif vt == VarType.BSTR:
            for step, element in enumerate(elements):
                ctypes.memmove(data + step * POINTER.size, self._scalar(element, vt), POINTER.size)
        else:
            ctypes.memmove(data, packed, len(packed))

    def _scalar(self, value: object, vt: VarType) -> bytes:
        """Return the bytes of a value of type `vt`, as they stand in a VARIANT or an array."""
        whole = _WHOLE.get(vt)
        if whole is not None:
            number = _digits(value) if isinstance(value, str) else value
            assert isinstance(number, int)
            if number not in whole[1]:
                raise MxError(E_INVALIDARG, f"{number} does not fit VT_{vt.name}")
            return struct.pack(whole[0], number)
        match vt:
            case VarType.BOOL:
                return b"\xff\xff" if value else b"\0\0"
            case VarType.BSTR:
                return POINTER.pack(self._allocator.text(str(value)))
            case VarType.DATE:
                if isinstance(value, float):
                    return struct.pack("<d", value)
                return self._date(_ns_of(value))
            case VarType.FILETIME:
                return struct.pack("<q", value if isinstance(value, int) else filetime(_ns_of(value)))
            case VarType.R4:
                return _float32(value)
            case VarType.CY:
                return _currency(value)
            case VarType.DECIMAL:
                return _decimal(value)
            case _:
                return struct.pack("<d", value)

    def _date(self, ns: int) -> bytes:
        try:
            return struct.pack("<d", self._dates.date(ns))
        except OverflowError as error:
            raise MxError(E_INVALIDARG, str(error)) from None


def _type_of(kind: str, wanted: int) -> VarType:
    if kind == "elapsed_time":
        raise MxError(E_INVALIDARG, _NO_ELAPSED_TIME)
    if kind not in _TYPES:
        raise MxError(E_INVALIDARG, "MXAccess has no type for plain bytes")
    usual, others = _TYPES[kind]
    if wanted in (0, usual):
        return usual
    if wanted not in others:
        raise _wrong_type(kind, wanted)
    return VarType(wanted)


def _array_type(kind: str, wanted: int) -> VarType:
    if not kind or wanted not in _TYPES[kind][1] or wanted == VarType.FILETIME:
        raise _wrong_type(f"array of {kind or 'value'}", ARRAY | wanted)
    return VarType(wanted)


def _wrong_type(kind: str, wanted: int) -> MxError:
    return MxError(E_INVALIDARG, f"a value of kind {kind!r} cannot be written as VARTYPE {wanted:#x}")


def _store(address: int, vt: int, value: bytes) -> None:
    if len(value) == variant_layout.DECIMAL_SIZE:
        ctypes.memmove(address, value, len(value))
    elif value:
        ctypes.memmove(address + VALUE_OFFSET, value, len(value))
    ctypes.memmove(address, struct.pack("<H", vt), 2)


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise MxError(E_INVALIDARG, "only digits can be written as VT_UI8")
    return int(text)


def _ns_of(stamp: object) -> int:
    seconds: int = getattr(stamp, "seconds", 0)
    nanos: int = getattr(stamp, "nanos", 0)
    return seconds * 1_000_000_000 + nanos


def _float32(value: object) -> bytes:
    assert isinstance(value, float)
    try:
        return struct.pack("<f", value)
    except OverflowError:
        raise MxError(E_INVALIDARG, f"{value!r} does not fit VT_R4") from None


def _currency(value: object) -> bytes:
    assert isinstance(value, float)
    scaled = value * CURRENCY
    if not math.isfinite(scaled) or round(scaled) not in _INT64:
        raise MxError(E_INVALIDARG, f"{value!r} does not fit VT_CY")
    return struct.pack("<q", round(scaled))


def _decimal(value: object) -> bytes:
    assert isinstance(value, float)
    if not math.isfinite(value):
        raise MxError(E_INVALIDARG, f"{value!r} does not fit VT_DECIMAL")
    rounded = _EXACT.create_decimal(Decimal(repr(value)))
    if rounded.adjusted() < -28:
        rounded = Decimal(0)
    sign, digits, exponent = rounded.as_tuple()
    assert isinstance(exponent, int)
    whole = int("".join(map(str, digits)))
    if exponent > 0:
        whole, exponent = whole * 10 ** min(exponent, 30), 0
    while exponent < -28:
        whole, exponent = (whole + 5) // 10, exponent + 1
    if whole >= 2**96:
        raise MxError(E_INVALIDARG, f"{value!r} does not fit VT_DECIMAL")
    return struct.pack("<HBBIQ", 0, -exponent, 0x80 if sign else 0, whole >> 64, whole & (2**64 - 1))
