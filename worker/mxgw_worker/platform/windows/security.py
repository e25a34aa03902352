"""Users and access lists: who owns an object, who has access to it, and lists that give access to the present user.

Users are named by their security identifier, for example S-1-5-21-...-1001. The system and the administrators of the
machine can always take what they want. So they are treated like root on POSIX systems: private files give them access,
and a file that belongs to them is as good as one's own.

An administrator also works on the files of services of mxgw, which run as users of their own. For an administrator
these users are trusted too, and what an administrator creates in their directories can be used by them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p, wintypes
from functools import cache

assert sys.platform == "win32"

from mxgw_worker.platform.windows import service_records, winapi
from mxgw_worker.platform.windows.winapi import SecurityAttributes, error_of, failure

SYSTEM, ADMINISTRATORS, EVERYONE = "S-1-5-18", "S-1-5-32-544", "S-1-1-0"
TRUSTED = frozenset({SYSTEM, ADMINISTRATORS})
# To whom the files of Windows belong.
TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
# Identifiers that mean the owner of the object: the creator of an object below a directory, and owner rights.
_OWNER_ITSELF = frozenset({"S-1-3-0", "S-1-3-4"})

# Rights with which an object can be changed: its content, attributes, access list or owner, or that it exists.
CHANGES = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x10000 | winapi.WRITE_DAC | winapi.WRITE_OWNER | 0x10000000 | 0x40000000
_READ_AND_EXECUTE = 0x1200A9

FILE, KERNEL_OBJECT = 1, 6  # the kinds of objects of which GetSecurityInfo tells

_OWNER_INFORMATION, _DACL_INFORMATION = 0x1, 0x4
_PROTECTED_DACL_INFORMATION = 0x80000000
_TOKEN_QUERY, _TOKEN_USER = 0x8, 1
_ACCESS_ALLOWED, _INHERIT_ONLY = 0, 0x8
# ACCESS_ALLOWED_OBJECT_ACE, ACCESS_ALLOWED_CALLBACK_ACE and ACCESS_ALLOWED_CALLBACK_OBJECT_ACE. Lists of mxgw have no
# such entries, so they are taken for access of everybody.
_OTHER_ALLOWED = frozenset({5, 9, 11})

_advapi = ctypes.WinDLL("advapi32", use_last_error=True)
_H, _D, _B, _S, _P = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR, c_void_p
for _name, _result, *_arguments in (
    ("ConvertSidToStringSidW", _B, _P, POINTER(_P)),
    ("ConvertStringSecurityDescriptorToSecurityDescriptorW", _B, _S, _D, POINTER(_P), _P),
    ("ConvertStringSidToSidW", _B, _S, POINTER(_P)),
    ("GetAce", _B, _P, _D, POINTER(_P)),
    ("GetSecurityInfo", _D, _H, ctypes.c_int, _D, POINTER(_P), _P, POINTER(_P), _P, POINTER(_P)),
    ("GetTokenInformation", _B, _H, ctypes.c_int, _P, _D, POINTER(_D)),
    ("LookupAccountSidW", _B, _S, _P, _P, POINTER(_D), _P, POINTER(_D), POINTER(_D)),
    ("OpenProcessToken", _B, _H, _D, POINTER(_H)),
    ("SetKernelObjectSecurity", _B, _H, _D, _P),
):
    _call = getattr(_advapi, _name)
    _call.restype, _call.argtypes = _result, _arguments


class _AceHeader(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_ubyte),
        ("flags", ctypes.c_ubyte),
        ("size", wintypes.WORD),
        ("mask", wintypes.DWORD),
    )


class _AclHeader(ctypes.Structure):
    _fields_ = (
        ("revision", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("size", wintypes.WORD),
        ("count", wintypes.WORD),
        ("unused_too", wintypes.WORD),
    )


def user_of_process(process: int) -> str:
    """Return the user as whom a process runs; `process` is a handle.

    Raises:
        OSError: this process is not allowed to know.
    """
    token = wintypes.HANDLE()
    if not _advapi.OpenProcessToken(process, _TOKEN_QUERY, byref(token)):
        raise failure()
    try:
        content, size = ctypes.create_string_buffer(512), wintypes.DWORD()
        if not _advapi.GetTokenInformation(token, _TOKEN_USER, content, len(content), byref(size)):
            raise failure()
        return text_of(c_void_p.from_buffer(content).value)  # the first field of TOKEN_USER is the pointer to the SID
    finally:
        winapi.close(token.value or 0)


@cache
def current_user() -> str:
    """Return the user as whom this process runs."""
    return user_of_process(winapi.this_process())


def service_users() -> frozenset[str]:
    """Return the users of the services of mxgw on this machine, if this process has the rights of an administrator."""
    if not winapi.is_administrator():
        return frozenset()
    return frozenset(record.user for record in service_records.records().values())


def trusted() -> frozenset[str]:
    """Return the users whose files are as good as those of the present user, and who may have access to these."""
    return TRUSTED | service_users()


def name_of(user: str) -> str:
    """Return the name of a user or group for messages, for example BUILTIN\\Users; the identifier without a name."""
    sid = c_void_p()
    if not _advapi.ConvertStringSidToSidW(user, byref(sid)):
        return user
    try:
        name, domain = ctypes.create_unicode_buffer(256), ctypes.create_unicode_buffer(256)
        sizes = wintypes.DWORD(len(name)), wintypes.DWORD(len(domain))
        kind = wintypes.DWORD()
        if not _advapi.LookupAccountSidW(None, sid, name, byref(sizes[0]), domain, byref(sizes[1]), byref(kind)):
            return user
        return f"{domain.value}\\{name.value}" if domain.value else name.value
    finally:
        winapi.free(sid.value)


def owner_only() -> str:
    """Return, as SDDL, the access list of pipes and events: the present user and nobody else."""
    return f"O:{current_user()}D:P(A;;GA;;;{current_user()})"


def private_file(*, is_directory: bool = False, services: Iterable[str] = ()) -> str:
    """Return, as SDDL, the access list of private files: the present user, administrators and system.

    What is created below a private directory gets the same list. With `services`, users of services of mxgw, an
    administrator shares the file with them, and it belongs to the administrators.
    """
    services = sorted({*services} - {current_user(), *TRUSTED})
    flags = "OICI" if is_directory else ""
    entries = (f"(A;{flags};FA;;;{user})" for user in (current_user(), SYSTEM, ADMINISTRATORS, *services))
    return f"O:{ADMINISTRATORS if services else current_user()}D:P{''.join(entries)}"


def shared_file(user: str, *, may_write: bool, is_directory: bool) -> str:
    """Return, as SDDL, owner and access list of a file that an administrator gives to a user: both and the system."""
    flags = "OICI" if is_directory else ""
    entries = [f"(A;{flags};FA;;;{each})" for each in (SYSTEM, ADMINISTRATORS)]
    if user not in TRUSTED:
        entries.append(f"(A;{flags};{'FA' if may_write else f'0x{_READ_AND_EXECUTE:x}'};;;{user})")
    return f"O:{ADMINISTRATORS}D:P{''.join(entries)}"


def stoppable() -> str:
    """Return, as SDDL, the access list of a stop event: all for the present user; others with rights may signal it."""
    others = "".join(f"(A;;0x{winapi.EVENT_MODIFY_STATE:x};;;{user})" for user in (SYSTEM, ADMINISTRATORS))
    return f"{owner_only()}{others}"


@contextmanager
def attributes(sddl: str, *, inherited: bool = False) -> Iterator[SecurityAttributes]:
    """Yield the security attributes with this access list, for the creation of an object inside the block.

    Raises:
        OSError: the list cannot be used.
    """
    descriptor = _descriptor_of(sddl)
    try:
        yield SecurityAttributes(descriptor, inherited=inherited)
    finally:
        winapi.free(descriptor)


def owner_of(handle: int, kind: int) -> str:
    """Return the user to whom an object belongs. `kind` is FILE or KERNEL_OBJECT.

    Raises:
        OSError: this cannot be read.
    """
    owner, descriptor = c_void_p(), c_void_p()
    code = _advapi.GetSecurityInfo(handle, kind, _OWNER_INFORMATION, byref(owner), None, None, None, byref(descriptor))
    if code:
        raise error_of(code)
    try:
        return text_of(owner.value)
    finally:
        winapi.free(descriptor.value)


def others_with_access(handle: int, kind: int, rights: int = 0xFFFFFFFF) -> list[str]:
    """Return who has access to an object, apart from the present user and who is trusted: users and groups.

    Only access with one of these rights counts.

    Raises:
        OSError: the access list cannot be read.
    """
    others = users_with_access(handle, kind, rights) - {current_user(), *TRUSTED, *_OWNER_ITSELF}
    return sorted(others - service_users()) if others else []


def users_with_access(handle: int, kind: int, rights: int = 0xFFFFFFFF) -> frozenset[str]:
    """Return all users and groups that an access list gives one of these rights.

    Raises:
        OSError: the access list cannot be read.
    """
    acl, descriptor = c_void_p(), c_void_p()
    code = _advapi.GetSecurityInfo(handle, kind, _DACL_INFORMATION, None, None, byref(acl), None, byref(descriptor))
    if code:
        raise error_of(code)
    try:
        if not acl.value:
            return frozenset({EVERYONE})  # an object without a list gives access to everybody
        return frozenset(_users_in(acl.value, rights))
    finally:
        winapi.free(descriptor.value)


def set_access(handle: int, sddl: str, *, owner: bool = False) -> None:
    """Replace the access list of an object, and let it inherit nothing. The handle needs the right WRITE_DAC; with
    `owner`, the owner is replaced as well, and the handle needs WRITE_OWNER.

    What is below a directory keeps its own access list. On Windows a private directory does not hide it, because every
    user may pass through directories; so each file with secrets needs a private list of its own.

    Raises:
        OSError: the list cannot be changed.
    """
    descriptor = _descriptor_of(sddl)
    try:
        what = _DACL_INFORMATION | _PROTECTED_DACL_INFORMATION | (_OWNER_INFORMATION if owner else 0)
        if not _advapi.SetKernelObjectSecurity(handle, what, descriptor):
            raise failure()
    finally:
        winapi.free(descriptor)


def _users_in(acl: int, rights: int) -> Iterator[str]:
    """Yield the users and groups to whom a list gives any of these rights to the object itself.

    Only entries that allow are read: an entry that denies can only take away from what they give.
    """
    for index in range(_AclHeader.from_address(acl).count):
        entry = c_void_p()
        if not _advapi.GetAce(acl, index, byref(entry)):
            raise failure()
        assert entry.value is not None
        header = _AceHeader.from_address(entry.value)
        if header.flags & _INHERIT_ONLY or not header.mask & rights:
            continue
        if header.kind == _ACCESS_ALLOWED:
            yield text_of(entry.value + ctypes.sizeof(_AceHeader))
        elif header.kind in _OTHER_ALLOWED:
            yield EVERYONE


def _descriptor_of(sddl: str) -> int:
    descriptor = c_void_p()
    if not _advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, 1, byref(descriptor), None):
        raise failure()
    assert descriptor.value is not None
    return descriptor.value


def text_of(sid: int | None) -> str:
    """Return the text of the security identifier at an address.

    Raises:
        OSError: there is none.
    """
    text = c_void_p()
    if not _advapi.ConvertSidToStringSidW(sid, byref(text)):
        raise failure()
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        winapi.free(text.value)
