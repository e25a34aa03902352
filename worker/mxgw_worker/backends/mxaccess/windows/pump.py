"""The message pump of a single-threaded apartment. COM delivers events to such a thread as window messages."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, wintypes

assert sys.platform == "win32"

_COINIT_APARTMENTTHREADED = 0x2
_QS_ALLINPUT, _MWMO_INPUTAVAILABLE, _INFINITE = 0x04FF, 0x0004, 0xFFFFFFFF
_PM_NOREMOVE, _PM_REMOVE = 0, 1
_WAIT_FAILED = 0xFFFFFFFF

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_user = ctypes.WinDLL("user32", use_last_error=True)
_ole = ctypes.OleDLL("ole32")

_kernel.CreateEventW.argtypes = (wintypes.LPVOID, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)
_kernel.CreateEventW.restype = wintypes.HANDLE
_kernel.SetEvent.argtypes = (wintypes.HANDLE,)
_kernel.SetEvent.restype = wintypes.BOOL
_kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel.CloseHandle.restype = wintypes.BOOL
_user.MsgWaitForMultipleObjectsEx.argtypes = (
    wintypes.DWORD,
    POINTER(wintypes.HANDLE),
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
)
_user.MsgWaitForMultipleObjectsEx.restype = wintypes.DWORD
_user.PeekMessageW.argtypes = (
    POINTER(wintypes.MSG),
    wintypes.HWND,
    wintypes.UINT,
    wintypes.UINT,
    wintypes.UINT,
)
_user.PeekMessageW.restype = wintypes.BOOL
_user.TranslateMessage.argtypes = (POINTER(wintypes.MSG),)
_user.DispatchMessageW.argtypes = (POINTER(wintypes.MSG),)
_user.DispatchMessageW.restype = ctypes.c_ssize_t
_ole.CoInitializeEx.argtypes = (wintypes.LPVOID, wintypes.DWORD)
_ole.CoUninitialize.argtypes = ()
_ole.CoUninitialize.restype = None


class WindowsPump:
    """Implements `Pump`."""

    def __init__(self) -> None:
        """Make the event that wakes the pump.

        Raises:
            OSError: Windows has no room for it.
        """
        # It is reset by the wait that it ends, so no wake is lost.
        self._woken = _kernel.CreateEventW(None, False, False, None)
        if not self._woken:
            raise ctypes.WinError(ctypes.get_last_error())
        self._handles = (wintypes.HANDLE * 1)(self._woken)
        self._message = wintypes.MSG()

    def enter(self) -> None:
        """Make this thread a single-threaded apartment with a message queue."""
        _ole.CoInitializeEx(None, _COINIT_APARTMENTTHREADED)
        _user.PeekMessageW(byref(self._message), None, 0, 0, _PM_NOREMOVE)

    def wait(self) -> None:
        """Wait for a message or a wake, whichever is first."""
        result = _user.MsgWaitForMultipleObjectsEx(1, self._handles, _INFINITE, _QS_ALLINPUT, _MWMO_INPUTAVAILABLE)
        if result == _WAIT_FAILED:
            raise ctypes.WinError(ctypes.get_last_error())

    def dispatch(self) -> bool:
        """Deliver one message, and return False when none was waiting."""
        message = byref(self._message)
        if not _user.PeekMessageW(message, None, 0, 0, _PM_REMOVE):
            return False
        _user.TranslateMessage(message)
        _user.DispatchMessageW(message)
        return True

    def wake(self) -> None:
        """Let `wait` return."""
        _kernel.SetEvent(self._woken)

    def leave(self) -> None:
        """End the apartment. The event stays, because other threads may still call `wake`."""
        _ole.CoUninitialize()
