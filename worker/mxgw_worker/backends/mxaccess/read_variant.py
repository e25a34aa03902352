"""Reads a VARIANT out of memory: its value as a message, as a time, or as numbers.

Everything is read by hand, without a call of OLE Automation, for two reasons: the libraries for COM lose some types (an
array of dates, the records of a status), and a test on any system can lay a VARIANT out in memory.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from ctypes import string_at
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import timestamp_from_ns
from mxgw.v1.values_pb2 import MxArray, MxValue
from mxgw_worker.backends.mxaccess.dates import Dates, filetime_ns, without_fraction
from mxgw_worker.backends.mxaccess.variant_layout import (
    ARRAY,
    BYREF,
    CURRENCY,
    DECIMAL_SIZE,
    DEEPEST,
    MOST_ELEMENTS,
    POINTER,
    SIZE,
    TYPE,
    VALUE_OFFSET,
    Unreadable,
    VarType,
    row_major,
    shape,
)

_I4 = struct.Struct("<i")
_VT_I4 = int(VarType.I4)  # a plain number compares faster
# Key: type. Value: how its value is laid out, and the field of MxValue. These make most of the traffic.
_NUMBERS: dict[int, tuple[struct.Struct, str]] = {
    VarType.I2: (struct.Struct("<h"), "integer"),
    VarType.I4: (struct.Struct("<i"), "integer"),
    VarType.I1: (struct.Struct("<b"), "integer"),
    VarType.UI1: (struct.Struct("<B"), "integer"),
    VarType.UI2: (struct.Struct("<H"), "integer"),
    VarType.INT: (struct.Struct("<i"), "integer"),
    VarType.ERROR: (struct.Struct("<i"), "integer"),
    VarType.UI4: (struct.Struct("<I"), "long"),
    VarType.UINT: (struct.Struct("<I"), "long"),
    VarType.I8: (struct.Struct("<q"), "long"),
    VarType.R4: (struct.Struct("<f"), "float"),
    VarType.R8: (struct.Struct("<d"), "double"),
}
# Key: type of an array's elements. Value: how one is laid out, and the field of MxArray.
_ELEMENTS: dict[int, tuple[type[ctypes._SimpleCData[int]] | type[ctypes._SimpleCData[float]], str]] = {
    VarType.I2: (ctypes.c_int16, "integers"),
    VarType.I4: (ctypes.c_int32, "integers"),
    VarType.I1: (ctypes.c_int8, "integers"),
    VarType.UI1: (ctypes.c_uint8, "integers"),
    VarType.UI2: (ctypes.c_uint16, "integers"),
    VarType.INT: (ctypes.c_int32, "integers"),
    VarType.ERROR: (ctypes.c_int32, "integers"),
    VarType.UI4: (ctypes.c_uint32, "longs"),
    VarType.UINT: (ctypes.c_uint32, "longs"),
    VarType.I8: (ctypes.c_int64, "longs"),
    VarType.R4: (ctypes.c_float, "floats"),
    VarType.R8: (ctypes.c_double, "doubles"),
}


class VariantReader:
    """Reads VARIANTs whose dates are in one zone.

    `date_of_text` returns the VT_DATE that a text means in the language of this machine, as COM converts it, and raises
    ValueError for any other text.
    """

    def __init__(self, dates: Dates, date_of_text: Callable[[str], float]) -> None:
        self._dates = dates
        self._date_of_text = date_of_text

    def value(self, address: int) -> MxValue:
        """Return the VARIANT at `address` as a value. `variant_type` of the value is the VARTYPE, without BYREF.

        A VARIANT without a value, or of a type that has no value to read (an object, a record, an array of either), has
        no kind. What a kind cannot hold keeps its meaning: a date outside the years 1 to 9999 is the double that it is,
        an unsigned number above 2**63-1 a string of digits. Half of a surrogate pair becomes U+FFFD.

        Raises:
            Unreadable: the memory holds no VARIANT, or one that is too large.
        """
        return self._value(address, DEEPEST)

    def _value(self, address: int, depth: int) -> MxValue:
        raw = string_at(address, 16)
        vt = raw[0] | raw[1] << 8
        plain = _NUMBERS.get(vt)
        if plain is not None:
            number = plain[0].unpack_from(raw, VALUE_OFFSET)[0]
            return MxValue(variant_type=vt, **{plain[1]: number})
        if vt & BYREF:
            return self._by_reference(raw, vt, depth)
        if vt & ARRAY:
            return self._array_value(POINTER.unpack_from(raw, VALUE_OFFSET)[0], vt, depth)
        message = MxValue(variant_type=vt)
        self._set_other(message, vt, address if vt == VarType.DECIMAL else address + VALUE_OFFSET)
        return message

    def _by_reference(self, raw: bytes, vt: int, depth: int) -> MxValue:
        pointer = POINTER.unpack_from(raw, VALUE_OFFSET)[0]
        vt &= ~BYREF
        if not pointer:
            raise Unreadable(f"a reference of type {vt:#x} to nothing")
        if vt == VarType.VARIANT:
            if depth == 0:
                raise Unreadable("references within references")
            return self._value(pointer, depth - 1)
        if vt & ARRAY:
            return self._array_value(POINTER.unpack(string_at(pointer, POINTER.size))[0], vt, depth)
        message = MxValue(variant_type=vt)
        plain = _NUMBERS.get(vt)
        if plain is not None:
            setattr(message, plain[1], plain[0].unpack(string_at(pointer, plain[0].size))[0])
        else:
            self._set_other(message, vt, pointer)
        return message

    def _set_other(self, message: MxValue, vt: int, address: int) -> None:
        """Set the value of the types that are no plain number. `address` is that of the value itself."""
        match vt:
            case VarType.BSTR:
                message.string = _text_at(address)
            case VarType.BOOL:
                message.boolean = string_at(address, 2) != b"\0\0"
            case VarType.DATE:
                self._set_date(message, _double_at(address))
            case VarType.CY:
                message.double = struct.unpack("<q", string_at(address, 8))[0] / CURRENCY
            case VarType.DECIMAL:
                message.double = _decimal_at(address)
            case VarType.UI8:
                _set_unsigned(message, struct.unpack("<Q", string_at(address, 8))[0])
            case VarType.FILETIME:
                self._set_filetime(message, struct.unpack("<q", string_at(address, 8))[0])
            case _:
                pass  # no value (VT_EMPTY, VT_NULL), or none that can be read (an object, a record)

    def _set_date(self, message: MxValue, date: float) -> None:
        try:
            message.time.CopyFrom(timestamp_from_ns(self._dates.ns(date)))
        except OverflowError:
            message.double = date

    def _set_filetime(self, message: MxValue, ticks: int) -> None:
        try:
            message.time.CopyFrom(timestamp_from_ns(filetime_ns(ticks)))
        except OverflowError:
            message.long = ticks

    def _array_value(self, pointer: int, vt: int, depth: int) -> MxValue:
        message = MxValue(variant_type=vt)
        field = _FIELDS.get(vt & TYPE)
        if field is not None:
            getattr(message.array, field).SetInParent()
            if pointer:
                self._fill_array(message.array, field, pointer, vt & TYPE, depth)
        return message

    def _fill_array(self, array: MxArray, field: str, pointer: int, vt: int, depth: int) -> None:
        head, sizes = shape(pointer)
        count = math.prod(sizes)
        if count > MOST_ELEMENTS:
            raise Unreadable(f"an array of {count} elements, more than {MOST_ELEMENTS}")
        if len(sizes) > 1:
            array.dimensions.extend(sizes)
        if not count:
            return
        if not head.data:
            raise Unreadable(f"an array of {count} elements without data")
        plain = _ELEMENTS.get(vt)
        if head.element_size != (_OTHER_SIZES[vt] if plain is None else ctypes.sizeof(plain[0])):
            raise Unreadable(f"an array of type {vt:#x} with elements of {head.element_size} bytes")
        if plain is not None:
            elements: Sequence[Any] = (plain[0] * count).from_address(head.data)[:]
        else:
            elements = self._other_elements(head.data, count, vt, depth)
        elements = row_major(elements, sizes)
        try:
            getattr(array, field).elements.extend(elements)
        except TypeError:  # a date that is no date is a double among times
            array.values.elements.extend(
                MxValue(variant_type=vt, time=element) if isinstance(element, Timestamp) else element
                for element in elements
            )

    def _other_elements(self, data: int, count: int, vt: int, depth: int) -> Sequence[Any]:
        match vt:
            case VarType.BOOL:
                return [word != 0 for word in (ctypes.c_int16 * count).from_address(data)]
            case VarType.BSTR:
                return [_text_at(data + step * POINTER.size) for step in range(count)]
            case VarType.CY:
                return [number / CURRENCY for number in (ctypes.c_int64 * count).from_address(data)]
            case VarType.DECIMAL:
                return [_decimal_at(data + step * DECIMAL_SIZE) for step in range(count)]
            case VarType.DATE:
                return [self._date_element(date) for date in (ctypes.c_double * count).from_address(data)]
            case VarType.UI8:
                return [_unsigned(number) for number in (ctypes.c_uint64 * count).from_address(data)]
            case _:
                if depth == 0:
                    raise Unreadable("arrays within arrays within arrays")
                return [self._value(data + step * SIZE, depth - 1) for step in range(count)]

    def _date_element(self, date: float) -> Timestamp | MxValue:
        try:
            return timestamp_from_ns(self._dates.ns(date))
        except OverflowError:
            return MxValue(variant_type=VarType.DATE, double=date)

    def time(self, address: int) -> tuple[int | None, str]:
        """Return the VARIANT at `address` as a time in nanoseconds since 1970 (UTC), and as the text that it is.

        The time is None where the VARIANT holds no time of the years 1 to 9999. The text is "" when the time says it
        all. MXAccess sends a date, a text or a FILETIME (docs/reference/mxaccess.md#times).

        Raises:
            Unreadable: the memory holds no VARIANT.
        """
        return self._as_time(self.value(address))

    def _as_time(self, value: MxValue) -> tuple[int | None, str]:
        match value.WhichOneof("kind"):
            case "time":
                return value.time.seconds * 1_000_000_000 + value.time.nanos, ""
            case "string":
                return self._time_of_text(value.string), value.string
            case "long" if value.variant_type in (VarType.I8, VarType.UI8, VarType.FILETIME):
                # A FILETIME has no type of its own in older programs: it is sent as the 64-bit number that it is.
                try:
                    return filetime_ns(value.long), ""
                except OverflowError:
                    return None, str(value.long)
            case "double":
                return None, repr(value.double)
            case None:
                return None, ""
            case _:
                return None, f"VARTYPE {value.variant_type:#x}"

    def _time_of_text(self, text: str) -> int | None:
        # COM knows no fractions of a second in texts.
        whole, fraction = without_fraction(text)
        try:
            return self._dates.ns(self._date_of_text(whole)) + fraction
        except (ValueError, OverflowError):
            return None

    def times(self, address: int) -> list[int]:
        """Return the VARIANT at `address`, an array of times or one time, in nanoseconds since 1970 (UTC).

        Raises:
            Unreadable: it is no array of times of the years 1 to 9999.
        """
        value = self.value(address)
        array = value.array
        match array.WhichOneof("elements") if value.HasField("array") else "":
            case "times":
                return [stamp.seconds * 1_000_000_000 + stamp.nanos for stamp in array.times.elements]
            case "strings":
                return [self._time(MxValue(string=text)) for text in array.strings.elements]
            case "longs":
                return [self._time(MxValue(long=ticks, variant_type=VarType.I8)) for ticks in array.longs.elements]
            case "values":
                return [self._time(element) for element in array.values.elements]
            case "":
                return [self._time(value)]
            case _:
                raise Unreadable(f"times of VARTYPE {value.variant_type:#x}")

    def _time(self, value: MxValue) -> int:
        ns, text = self._as_time(value)
        if ns is None:
            raise Unreadable(f"{text or 'nothing'!r} is no time")
        return ns

    def number(self, address: int) -> int:
        """Return the VARIANT at `address`, which is one whole number.

        Raises:
            Unreadable: it is none.
        """
        raw = string_at(address, 16)
        if raw[0] == _VT_I4 and not raw[1]:
            # What every event has three of.
            number: int = _I4.unpack_from(raw, VALUE_OFFSET)[0]
            return number
        numbers = self.numbers(address)
        if len(numbers) != 1:
            raise Unreadable(f"{len(numbers)} numbers instead of one")
        return numbers[0]

    def numbers(self, address: int) -> list[int]:
        """Return the VARIANT at `address`, an array of whole numbers or one number.

        Raises:
            Unreadable: it is neither.
        """
        value = self.value(address)
        if value.HasField("array"):
            array = value.array
            match array.WhichOneof("elements"):
                case "integers":
                    return list(array.integers.elements)
                case "longs":
                    return list(array.longs.elements)
                case "values":
                    if all(element.WhichOneof("kind") in ("integer", "long") for element in array.values.elements):
                        return [element.integer or element.long for element in array.values.elements]
                case _:
                    pass
        elif value.WhichOneof("kind") in ("integer", "long"):
            return [value.integer or value.long]
        raise Unreadable(f"numbers of VARTYPE {value.variant_type:#x}")


def length(value: MxValue) -> int:
    """Return the number of elements of an array, and 1 for any other value."""
    field = value.array.WhichOneof("elements") if value.HasField("array") else None
    return len(getattr(value.array, field).elements) if field else 1


# Key: type of an array's elements. Value: the field of MxArray.
_FIELDS = {
    **{vt: field for vt, (_, field) in _ELEMENTS.items()},
    VarType.BOOL: "booleans",
    VarType.BSTR: "strings",
    VarType.CY: "doubles",
    VarType.DECIMAL: "doubles",
    VarType.DATE: "times",
    VarType.UI8: "values",
    VarType.VARIANT: "values",
}

_OTHER_SIZES: dict[int, int] = {
    VarType.BOOL: 2,
    VarType.BSTR: POINTER.size,
    VarType.CY: 8,
    VarType.DECIMAL: DECIMAL_SIZE,
    VarType.DATE: 8,
    VarType.UI8: 8,
    VarType.VARIANT: SIZE,
}


def _double_at(address: int) -> float:
    number: float = struct.unpack("<d", string_at(address, 8))[0]
    return number


def _text_at(address: int) -> str:
    """Return the text whose BSTR is stored at `address`. Its length in bytes stands before it; no pointer is ""."""
    pointer = POINTER.unpack(string_at(address, POINTER.size))[0]
    if not pointer:
        return ""
    size = struct.unpack("<I", string_at(pointer - 4, 4))[0]
    return string_at(pointer, size & ~1).decode("utf-16-le", errors="replace")


def _decimal_at(address: int) -> float:
    """Return the DECIMAL at `address`: 96 bits, a power of ten, and a sign."""
    _, scale, sign, high, low = struct.unpack("<HBBIQ", string_at(address, DECIMAL_SIZE))
    if scale > 28:
        raise Unreadable(f"a decimal with {scale} places")
    number = float((high << 64 | low) / 10**scale)
    return -number if sign & 0x80 else number


def _unsigned(number: int) -> MxValue:
    message = MxValue(variant_type=VarType.UI8)
    _set_unsigned(message, number)
    return message


def _set_unsigned(message: MxValue, number: int) -> None:
    if number < 2**63:
        message.long = number
    else:
        message.string = str(number)
