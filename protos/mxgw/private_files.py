"""Reads and creates private files, for clients: no other user may have access to them.

On POSIX systems its mode is checked, on Windows its access list. Gateway, workers and plugins use the platform layer
(`mxgw_worker.platform`), which the client library does without.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from collections.abc import Iterator
    from ctypes import byref, c_void_p, wintypes

    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    _kernel.LocalFree.argtypes = (c_void_p,)
    _advapi.OpenProcessToken.argtypes = (wintypes.HANDLE, wintypes.DWORD, c_void_p)
    _advapi.GetTokenInformation.argtypes = (wintypes.HANDLE, ctypes.c_int, c_void_p, wintypes.DWORD, c_void_p)
    _advapi.ConvertSidToStringSidW.argtypes = (c_void_p, c_void_p)
    _advapi.GetAce.argtypes = (c_void_p, wintypes.DWORD, c_void_p)
    _advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = (
        wintypes.LPCWSTR,
        wintypes.DWORD,
        c_void_p,
        c_void_p,
    )
    _kernel.CreateFileW.restype = wintypes.HANDLE
    _kernel.CreateFileW.argtypes = (
        wintypes.LPCWSTR,
        wintypes.DWORD,
        wintypes.DWORD,
        c_void_p,
        wintypes.DWORD,
        wintypes.DWORD,
        wintypes.HANDLE,
    )
    _advapi.GetSecurityInfo.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.DWORD, *[c_void_p] * 5)

    _SYSTEM, _ADMINISTRATORS, _EVERYONE = "S-1-5-18", "S-1-5-32-544", "S-1-1-0"
    _CREATOR, _OWNER_RIGHTS = "S-1-3-0", "S-1-3-4"  # both mean the owner of the file itself
    _FILE_OBJECT, _DACL, _TOKEN_QUERY, _TOKEN_USER = 1, 0x4, 0x8, 1
    _ALLOWED, _DENIED, _INHERIT_ONLY = 0, (1, 6, 10, 12), 0x8
    _WRITE, _SHARE_READ_AND_DELETE, _CREATE_NEW, _NORMAL_FILE = 0x40000000, 0x1 | 0x4, 1, 0x80
    _HEADER_BYTES = 8  # of an entry: kind, flags, size, access mask; the user follows
    _COUNT_AT = 4  # in an access list: the number of entries, 16 bits

    class _SecurityAttributes(ctypes.Structure):
        _fields_ = (("size", wintypes.DWORD), ("descriptor", c_void_p), ("inherited", wintypes.BOOL))

    def _text_of(sid: int | None) -> str:
        text = c_void_p()
        if not _advapi.ConvertSidToStringSidW(sid, byref(text)):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            return ctypes.wstring_at(text.value or 0)
        finally:
            _kernel.LocalFree(text)

    def _current_user() -> str:
        token, content, size = wintypes.HANDLE(), ctypes.create_string_buffer(512), wintypes.DWORD()
        if not _advapi.OpenProcessToken(_kernel.GetCurrentProcess(), _TOKEN_QUERY, byref(token)):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            if not _advapi.GetTokenInformation(token, _TOKEN_USER, content, len(content), byref(size)):
                raise ctypes.WinError(ctypes.get_last_error())
            return _text_of(c_void_p.from_buffer(content).value)  # the structure begins with the pointer to the user
        finally:
            _kernel.CloseHandle(token)

    def _users_in(acl: int) -> Iterator[str]:
        """Yield who gets any access by an access list. An entry that denies can only take away from that."""
        for index in range(wintypes.WORD.from_address(acl + _COUNT_AT).value):
            entry = c_void_p()
            if not _advapi.GetAce(acl, index, byref(entry)) or entry.value is None:
                raise ctypes.WinError(ctypes.get_last_error())
            kind, flags = ctypes.string_at(entry.value, 2)
            mask = wintypes.DWORD.from_address(entry.value + 4).value
            if flags & _INHERIT_ONLY or not mask or kind in _DENIED:
                continue
            # Entries of other kinds, for example with a condition, are taken for access of everybody.
            yield _text_of(entry.value + _HEADER_BYTES) if kind == _ALLOWED else _EVERYONE

    def exposure(descriptor: int, path: Path) -> str:
        """Return why an open file is not safe for a secret, and how to correct it; "" when it is safe.

        Administrators and the system do not count as other users, as they have access to every file.

        Raises:
            OSError: the access list cannot be read.
        """
        acl, security = c_void_p(), c_void_p()
        handle = msvcrt.get_osfhandle(descriptor)
        code = _advapi.GetSecurityInfo(handle, _FILE_OBJECT, _DACL, None, None, byref(acl), None, byref(security))
        if code:
            raise ctypes.WinError(code)
        try:
            # A file without a list is open to everybody.
            users = {_EVERYONE} if acl.value is None else set(_users_in(acl.value))
        finally:
            _kernel.LocalFree(security)
        own = (_current_user(), _SYSTEM, _ADMINISTRATORS)
        others = sorted(users - {*own, _CREATOR, _OWNER_RIGHTS})
        if not others:
            return ""
        grants = " ".join(f"*{user}:F" for user in own)
        return (
            f'other users may read it (access of {", ".join(others)}); run: icacls "{path}" /inheritance:r '
            f"/grant:r {grants}"
        )

    def create_private(path: Path) -> int:
        """Create a file that only the present user can use, in the place of an older one; return its descriptor, for
        writing.

        Raises:
            OSError: the file cannot be created.
        """
        entries = "".join(f"(A;;FA;;;{user})" for user in (_current_user(), _SYSTEM, _ADMINISTRATORS))
        security = c_void_p()
        convert = _advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW
        if not convert(f"D:P{entries}", 1, byref(security), None):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), security, False)
            path.unlink(missing_ok=True)
            handle = _kernel.CreateFileW(
                str(path), _WRITE, _SHARE_READ_AND_DELETE, byref(attributes), _CREATE_NEW, _NORMAL_FILE, None
            )
            if handle is None or handle == wintypes.HANDLE(-1).value:
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _kernel.LocalFree(security)
        return msvcrt.open_osfhandle(handle, os.O_NOINHERIT | os.O_BINARY)

else:

    def exposure(descriptor: int, path: Path) -> str:
        """Return why an open file is not safe for a secret, and how to correct it; "" when it is safe.

        Raises:
            OSError: the mode of the file cannot be read.
        """
        mode = os.fstat(descriptor).st_mode
        if not mode & 0o077:
            return ""
        return f"other users may read it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"

    def create_private(path: Path) -> int:
        """Create a file that only the present user can use, in the place of an older one; return its descriptor, for
        writing.

        Raises:
            OSError: the file cannot be created.
        """
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)


def read_private(path: Path) -> bytes:
    """Return the content of a file with a secret.

    Raises:
        PermissionError: other users have access to the file; `strerror` says how to correct it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # The open file is checked, so that the file that is checked is also the file that is read.
        if why := exposure(file.fileno(), path):
            raise PermissionError(errno.EACCES, why, str(path))
        return file.read()
