"""How OLE Automation lays out values in memory: the types of a VARIANT, and its arrays.

Source: the documentation of VARIANT, VARENUM, SAFEARRAY and DECIMAL in the reference of OLE Automation.
"""

from __future__ import annotations

import ctypes
import enum
import math
import struct
from collections.abc import Sequence
from ctypes import string_at
from typing import TypeVar

T = TypeVar("T")


class VarType(enum.IntEnum):
    """The types of a VARIANT that have a value. Source: the documentation of VARENUM."""

    EMPTY = 0
    NULL = 1
    I2 = 2
    I4 = 3
    R4 = 4
    R8 = 5
    CY = 6
    DATE = 7
    BSTR = 8
    ERROR = 10
    BOOL = 11
    VARIANT = 12
    DECIMAL = 14
    I1 = 16
    UI1 = 17
    UI2 = 18
    UI4 = 19
    I8 = 20
    UI8 = 21
    INT = 22
    UINT = 23
    RECORD = 36
    FILETIME = 64


# Flags of a type.
ARRAY, BYREF = 0x2000, 0x4000
TYPE = 0x0FFF  # what is left of a VARTYPE without its flags

# Where the value of a VARIANT starts, after its type and three reserved words.
VALUE_OFFSET = 8
# The size of a VARIANT: its value is at most two pointers (a record), and at least 8 bytes.
SIZE = VALUE_OFFSET + max(8, 2 * ctypes.sizeof(ctypes.c_void_p))
# A DECIMAL fills a VARIANT from its second byte on, and is 16 bytes long.
DECIMAL_SIZE = 16
# The most elements that one array may have. More would be memory that is no array, or more than an event can hold.
MOST_ELEMENTS = 4_000_000
# How deep arrays of VARIANTs may contain each other.
DEEPEST = 8
# A CY is a number of ten-thousandths.
CURRENCY = 10_000
POINTER = struct.Struct("@P")

# Success, category, detected by, detail of an MXSTATUS_PROXY. Source: docs/reference/mxaccess.md#statuses.
Status = tuple[int, int, int, int]
# int16, padding, two enumerations of 32 bits, int16, padding.
STATUS = struct.Struct("<hxxiihxx")


class SafeArray(ctypes.Structure):
    """The head of a SAFEARRAY; its bounds follow it in memory, two numbers per dimension."""

    _fields_ = (
        ("dimensions", ctypes.c_ushort),
        ("features", ctypes.c_ushort),
        ("element_size", ctypes.c_uint32),
        ("locks", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


class Unreadable(Exception):
    """The memory does not hold what was expected of it. The text says what it holds instead."""


def shape(pointer: int) -> tuple[SafeArray, list[int]]:
    """Return the head of the SAFEARRAY at `pointer`, and the lengths of its dimensions, outermost first.

    Raises:
        Unreadable: it has no dimensions, or too many.
    """
    head = SafeArray.from_address(pointer)
    # OLE Automation allows 64 dimensions (SAFEARRAY, in its reference: cDims), and 60 in Visual Basic.
    if not 1 <= head.dimensions <= 64:
        raise Unreadable(f"an array of {head.dimensions} dimensions")
    bounds = struct.unpack(f"<{2 * head.dimensions}i", string_at(pointer + ctypes.sizeof(head), 8 * head.dimensions))
    # The bounds stand in reverse order: that of the last index comes first.
    sizes = [size & 0xFFFFFFFF for size in bounds[::2]]
    return head, sizes[::-1]


def statuses(address: int) -> tuple[Status, ...]:
    """Return the MXSTATUS_PROXYs in the VARIANT at `address`: success, category, detected by and detail of each.

    Source: docs/reference/mxaccess.md#statuses.

    Raises:
        Unreadable: it is no array of such records.
    """
    raw = string_at(address, VALUE_OFFSET + POINTER.size)
    vt = raw[0] | raw[1] << 8
    pointer = POINTER.unpack_from(raw, VALUE_OFFSET)[0]
    if vt & BYREF and pointer:
        pointer = POINTER.unpack(string_at(pointer, POINTER.size))[0]
    if vt & ~BYREF != ARRAY | VarType.RECORD:
        raise Unreadable(f"statuses of VARTYPE {vt:#x}")
    if not pointer:
        return ()
    head, sizes = shape(pointer)
    count = math.prod(sizes)
    if not count:
        return ()
    if head.element_size != STATUS.size or count > MOST_ELEMENTS or not head.data:
        raise Unreadable(f"{count} statuses of {head.element_size} bytes each")
    return tuple(STATUS.iter_unpack(string_at(head.data, count * STATUS.size)))


def row_major(elements: Sequence[T], sizes: Sequence[int]) -> Sequence[T]:
    """Return the elements of a SAFEARRAY, whose first index varies fastest, in the order in which its last one does."""
    if len(sizes) < 2:
        return elements
    return [elements[place] for place in _places(sizes)]


def column_major(elements: Sequence[T], sizes: Sequence[int]) -> Sequence[T]:
    """Return elements in the order of a SAFEARRAY; the inverse of `row_major`."""
    if len(sizes) < 2:
        return elements
    ordered = list(elements)
    for source, place in zip(elements, _places(sizes), strict=True):
        ordered[place] = source
    return ordered


def _places(sizes: Sequence[int]) -> list[int]:
    """Return the place of each element in a SAFEARRAY, in the order in which the last index varies fastest."""
    places = [0]
    stride = 1
    strides = []
    for size in sizes:
        strides.append(stride)
        stride *= size
    for size, step in zip(sizes, strides, strict=True):
        places = [place + index * step for place in places for index in range(size)]
    return places
