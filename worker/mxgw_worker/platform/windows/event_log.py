"""Entries of the event log of Windows."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_void_p, wintypes

assert sys.platform == "win32"

from mxgw_worker.platform.services import EventKind

_KINDS = {EventKind.ERROR: 1, EventKind.WARNING: 2, EventKind.INFORMATION: 4}
# A text can have 31,839 characters. Source: ReportEventW.
_CHARACTERS = 16_000

_advapi = ctypes.WinDLL("advapi32", use_last_error=True)
_advapi.RegisterEventSourceW.restype = wintypes.HANDLE
_advapi.RegisterEventSourceW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR)
_advapi.ReportEventW.argtypes = (
    *(wintypes.HANDLE, wintypes.WORD, wintypes.WORD, wintypes.DWORD, c_void_p, wintypes.WORD, wintypes.DWORD),
    *(POINTER(wintypes.LPCWSTR), c_void_p),
)
_advapi.DeregisterEventSource.argtypes = (wintypes.HANDLE,)


def report(source: str, kind: EventKind, number: int, text: str) -> None:
    """Write an entry to the log Application. Nothing happens where this is not possible.

    The text needs no parameters: a registered source shows the texts of its entries as they are (`accounts.remember`).
    """
    log = _advapi.RegisterEventSourceW(None, source)
    if log:
        texts = (wintypes.LPCWSTR * 1)(text[:_CHARACTERS])
        _advapi.ReportEventW(log, _KINDS[kind], 0, number, None, 1, 0, texts, None)
        _advapi.DeregisterEventSource(log)
