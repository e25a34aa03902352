"""VARIANTs, BSTRs and SAFEARRAYs in the memory of this process, on any system."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence

from mxgw_worker.backends.mxaccess.variant_layout import ARRAY, SIZE, STATUS, VALUE_OFFSET, SafeArray, VarType

_POINTER_SIZE = ctypes.sizeof(ctypes.c_void_p)
_SIZES: dict[int, int] = {
    VarType.I1: 1,
    VarType.UI1: 1,
    VarType.I2: 2,
    VarType.UI2: 2,
    VarType.BOOL: 2,
    VarType.I4: 4,
    VarType.UI4: 4,
    VarType.INT: 4,
    VarType.UINT: 4,
    VarType.ERROR: 4,
    VarType.R4: 4,
    VarType.BSTR: _POINTER_SIZE,
    VarType.DECIMAL: 16,
    VarType.VARIANT: SIZE,
    VarType.RECORD: STATUS.size,
}


class PlainMemory:
    """Implements `Allocator`, and keeps everything until it is dropped."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def bytes(self, data: bytes) -> int:
        """Return the address of a copy of `data`."""
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        self._kept.append(buffer)
        return ctypes.addressof(buffer)

    def variant(self, vt: int = 0, value: bytes = b"") -> int:
        """Return the address of a VARIANT whose value is these bytes."""
        head = struct.pack("<H6x", vt)
        return self.bytes((head + value).ljust(SIZE, b"\0"))

    def pointer(self, address: int) -> bytes:
        """Return an address as it stands in memory."""
        return struct.pack("@P", address)

    def text(self, text: str) -> int:
        encoded = text.encode("utf-16-le", "surrogatepass")
        return self.bytes(struct.pack("<I", len(encoded)) + encoded + b"\0\0") + 4

    def array(
        self,
        vt: int,
        sizes: Sequence[int],
        elements: bytes = b"",
        *,
        first: int = 0,
        locks: int = 0,
        element_size: int | None = None,
    ) -> tuple[int, int]:
        """Return the addresses of a SAFEARRAY and of its elements. `first` is the lowest index of each dimension."""
        size = element_size or _SIZES.get(vt, 8)
        data = self.bytes(elements.ljust(math.prod(sizes) * size, b"\0"))
        head = SafeArray(len(sizes), 0, size, locks, data)
        bounds = b"".join(struct.pack("<Ii", length, first) for length in reversed(sizes))
        return self.bytes(bytes(head) + bounds), data

    def array_variant(self, vt: int, elements: bytes, *sizes: int, by_reference: bool = False, **layout: int) -> int:
        """Return the address of a VARIANT with an array of these elements; `layout` as for `array`."""
        address, _ = self.array(vt, sizes, elements, **layout)
        if by_reference:
            return self.variant(ARRAY | 0x4000 | vt, self.pointer(self.bytes(self.pointer(address))))
        return self.variant(ARRAY | vt, self.pointer(address))

    def statuses(self, *statuses: tuple[int, int, int, int], by_reference: bool = True) -> int:
        """Return the address of a VARIANT with an array of MXSTATUS_PROXY."""
        records = b"".join(struct.pack("<hxxiihxx", *status) for status in statuses)
        return self.array_variant(VarType.RECORD, records, len(statuses), by_reference=by_reference)


assert struct.calcsize("<H6x") == VALUE_OFFSET
