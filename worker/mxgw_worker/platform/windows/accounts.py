"""Accounts as which a service runs."""

from __future__ import annotations

import ctypes
import hashlib
import struct
import sys
from ctypes import POINTER, byref, c_void_p, sizeof, wintypes

assert sys.platform == "win32"

from mxgw_worker.platform.services import Account
from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.security import text_of
from mxgw_worker.platform.windows.winapi import error_of, failure

_BUILT_IN = {
    "localsystem": ("LocalSystem", "S-1-5-18"),
    "system": ("LocalSystem", "S-1-5-18"),
    "localservice": (r"NT AUTHORITY\LocalService", "S-1-5-19"),
    "networkservice": (r"NT AUTHORITY\NetworkService", "S-1-5-20"),
}
_OWN = "NT SERVICE\\"
_POLICY_CREATE_ACCOUNT, _POLICY_LOOKUP_NAMES = 0x10, 0x800

_advapi = ctypes.WinDLL("advapi32", use_last_error=True)
_H, _D, _B, _S, _P = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR, c_void_p


class _LsaText(ctypes.Structure):
    _fields_ = (("length", wintypes.USHORT), ("size", wintypes.USHORT), ("text", wintypes.LPWSTR))


class _LsaAttributes(ctypes.Structure):
    _fields_ = (("length", _D), ("root", _H), ("name", _P), ("attributes", _D), ("descriptor", _P), ("quality", _P))


for _name, _result, *_arguments in (
    ("ConvertStringSidToSidW", _B, _S, POINTER(_P)),
    ("LookupAccountNameW", _B, _S, _S, _P, POINTER(_D), _P, POINTER(_D), POINTER(_D)),
    ("LsaAddAccountRights", _D, _P, _P, POINTER(_LsaText), _D),
    ("LsaClose", _D, _P),
    ("LsaNtStatusToWinError", _D, _D),
    ("LsaOpenPolicy", _D, _P, POINTER(_LsaAttributes), _D, POINTER(_P)),
):
    _call = getattr(_advapi, _name)
    _call.restype, _call.argtypes = _result, _arguments


def account_of(name: str, service: str) -> Account:
    """Return an account by the name that a person wrote; "" means the service's own account, NT SERVICE\\<service>.

    Raises:
        LookupError: there is no such account.
    """
    name = name or f"{_OWN}{service}"
    plain = name.lower().removeprefix("nt authority\\").replace(" ", "")
    if plain in _BUILT_IN:
        return Account(*_BUILT_IN[plain], needs_password=False)
    if name.lower().startswith(_OWN.lower()):
        # The account of a service exists when the service does, and its identifier follows from its name.
        own = name[len(_OWN) :]
        digest = hashlib.sha1(own.upper().encode("utf-16-le"), usedforsecurity=False).digest()
        return Account(f"{_OWN}{own}", "S-1-5-80-" + "-".join(map(str, struct.unpack("<5I", digest))), False)
    try:
        user = _look_up(name.removeprefix(".\\"))
    except OSError as error:
        raise LookupError(f"there is no account {name}: {error.strerror}") from None
    if "\\" not in name and "@" not in name:
        name = f".\\{name}"
    # The system knows the password of a managed service account, whose name ends with a dollar sign.
    return Account(name, user, needs_password=not name.endswith("$"))


def _look_up(name: str) -> str:
    sid, domain = ctypes.create_string_buffer(256), ctypes.create_unicode_buffer(256)
    sizes, kind = (_D(len(sid)), _D(len(domain))), _D()
    if not _advapi.LookupAccountNameW(None, name, sid, byref(sizes[0]), domain, byref(sizes[1]), byref(kind)):
        raise failure(name)
    return text_of(ctypes.addressof(sid))


def allow_logon_as_service(user: str) -> None:
    """Give a user the right to log on as a service, without which no service can run as this user.

    Raises:
        OSError: the right cannot be given.
    """

    def checked(status: int) -> None:
        if status:
            raise error_of(_advapi.LsaNtStatusToWinError(status))

    right = "SeServiceLogonRight"
    text = _LsaText(len(right) * 2, len(right) * 2 + 2, right)
    attributes, policy, sid = _LsaAttributes(sizeof(_LsaAttributes)), c_void_p(), c_void_p()
    if not _advapi.ConvertStringSidToSidW(user, byref(sid)):
        raise failure()
    try:
        wanted = _POLICY_CREATE_ACCOUNT | _POLICY_LOOKUP_NAMES
        checked(_advapi.LsaOpenPolicy(None, byref(attributes), wanted, byref(policy)))
        try:
            checked(_advapi.LsaAddAccountRights(policy, sid, byref(text), 1))
        finally:
            _advapi.LsaClose(policy)
    finally:
        winapi.free(sid.value)
