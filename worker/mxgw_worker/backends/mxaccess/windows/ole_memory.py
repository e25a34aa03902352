"""The memory of OLE Automation, and its reading of dates."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import POINTER, byref, c_void_p

assert sys.platform == "win32"

from mxgw_worker.backends.mxaccess.variant_layout import SafeArray  # noqa: E402

_ole = ctypes.OleDLL("oleaut32")
_ole_plain = ctypes.WinDLL("oleaut32")
_ole_plain.SysAllocStringLen.argtypes = (ctypes.c_char_p, ctypes.c_uint)
_ole_plain.SysAllocStringLen.restype = c_void_p
_ole_plain.SafeArrayCreate.argtypes = (ctypes.c_ushort, ctypes.c_uint, c_void_p)
_ole_plain.SafeArrayCreate.restype = c_void_p
_ole.VarDateFromStr.argtypes = (ctypes.c_wchar_p, ctypes.c_ulong, ctypes.c_ulong, POINTER(ctypes.c_double))
_LOCALE_USER_DEFAULT = 0x0400


class OleMemory:
    """Implements `Allocator`. A SAFEARRAY holds its elements where no lock is needed to reach them, because nobody else
    knows it yet.
    """

    def text(self, text: str) -> int:
        """Return the address of a new BSTR.

        Raises:
            MemoryError: there is no room.
        """
        encoded = text.encode("utf-16-le")
        address: int | None = _ole_plain.SysAllocStringLen(encoded, len(encoded) // 2)
        if address is None:
            raise MemoryError("no room for a text")
        return address

    def array(self, vt: int, sizes: Sequence[int]) -> tuple[int, int]:
        """Return the address of a new SAFEARRAY, and that of its elements.

        Raises:
            MemoryError: there is no room.
        """
        bounds = (ctypes.c_uint32 * (2 * len(sizes)))()
        bounds[::2] = list(sizes)
        address: int | None = _ole_plain.SafeArrayCreate(vt, len(sizes), bounds)
        if address is None:
            raise MemoryError(f"no room for an array of {sizes} elements")
        return address, SafeArray.from_address(address).data or 0


def date_of_text(text: str) -> float:
    """Return the VT_DATE that a text means in the language of this user, as COM converts it.

    Raises:
        ValueError: it is no date.
    """
    date = ctypes.c_double()
    try:
        _ole.VarDateFromStr(text, _LOCALE_USER_DEFAULT, 0, byref(date))
    except OSError:
        raise ValueError(f"{text!r} is no date") from None
    return date.value
