"""What is registered on this machine for 32-bit programs, and the versions of the files behind it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress
from ctypes import POINTER, byref, c_void_p, wintypes
from datetime import UTC, datetime
from pathlib import Path

assert sys.platform == "win32"

import winreg  # noqa: E402

# Source: docs/reference/mxaccess.md#identifiers.
_PROGRAM_IDS = ("LMXProxy.LMXProxyServer", "LMXProxy.LMXProxyServer.1")
_CLASS = "{C30B52F5-2CB5-4760-AF0A-3A344A7EB5DC}"
_TYPE_LIBRARY = "{77E896EC-B3E3-4DE4-B96F-F32570164211}"
# The library of the consumer of alarms (source: client code, aaOpenSource/aaDataForwarder), and how the identifier of
# its class begins (source: field notes).
_ALARM_LIBRARY, _ALARM_CLASS = "wnwrapconsumer.dll", "{7ab52e5f"

_version = ctypes.WinDLL("version", use_last_error=True)
_version.GetFileVersionInfoSizeW.argtypes = (wintypes.LPCWSTR, POINTER(wintypes.DWORD))
_version.GetFileVersionInfoSizeW.restype = wintypes.DWORD
_version.GetFileVersionInfoW.argtypes = (wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, c_void_p)
_version.GetFileVersionInfoW.restype = wintypes.BOOL
_version.VerQueryValueW.argtypes = (c_void_p, wintypes.LPCWSTR, POINTER(c_void_p), POINTER(wintypes.UINT))
_version.VerQueryValueW.restype = wintypes.BOOL
_STRINGS = ("ProductName", "ProductVersion", "FileVersion", "CompanyName")


def registration() -> dict[str, object]:
    """Return how MXAccess and the consumer of alarms are registered for 32-bit programs."""
    return {
        "program_ids": {name: _value(f"{name}\\CLSID") for name in _PROGRAM_IDS},
        "class": _class(_CLASS),
        "registered_for_64_bit_programs": _is_registered_for_64_bits(),
        "type_library": {
            version: {kind: _value(f"TypeLib\\{_TYPE_LIBRARY}\\{version}\\0\\{kind}") for kind in ("win32", "win64")}
            for version in _keys(f"TypeLib\\{_TYPE_LIBRARY}")
        },
        "alarm_consumers": [{"id": found, **_class(found)} for found in _alarm_classes()],
    }


def alarm_libraries() -> list[str]:
    """Return the paths of the libraries of consumers of alarms."""
    found = (_value(f"CLSID\\{identifier}\\InprocServer32") for identifier in _alarm_classes())
    return sorted({path.strip('"') for path in found if path})


def _alarm_classes() -> Iterator[str]:
    for found in _keys("CLSID"):
        library = (_value(f"CLSID\\{found}\\InprocServer32") or "").strip('"').lower()
        if library.endswith(_ALARM_LIBRARY) or found.lower().startswith(_ALARM_CLASS):
            yield found


def _class(identifier: str) -> dict[str, object]:
    key = f"CLSID\\{identifier}"
    path = _value(f"{key}\\InprocServer32")
    facts: dict[str, object] = {
        "name": _value(key),
        "program_id": _value(f"{key}\\ProgID"),
        "threading_model": _value(f"{key}\\InprocServer32", "ThreadingModel"),
        "library": path,
    }
    if path:
        facts["library_file"] = _file(Path(path.strip('"')))
    return facts


def _value(key: str, name: str = "", view: int = 0) -> str | None:
    try:
        with winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, key, 0, winreg.KEY_READ | view) as opened:
            return str(winreg.QueryValueEx(opened, name)[0])
    except OSError:
        return None


def _is_registered_for_64_bits() -> bool:
    return _value(f"CLSID\\{_CLASS}\\InprocServer32", view=winreg.KEY_WOW64_64KEY) is not None


def _keys(key: str) -> Iterator[str]:
    try:
        opened = winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, key)
    except OSError:
        return
    with opened, suppress(OSError):  # the error that ends the enumeration
        number = 0
        while True:
            yield winreg.EnumKey(opened, number)
            number += 1


def _file(path: Path) -> dict[str, object]:
    try:
        status = path.stat()
    except OSError as error:
        return {"problem": error.strerror or str(error)}
    changed = datetime.fromtimestamp(status.st_mtime, UTC)
    return {"bytes": status.st_size, "changed": changed.isoformat(timespec="seconds"), **_version_of(path)}


def _version_of(path: Path) -> dict[str, object]:
    """Return what the version resource of a file says; nothing when it has none."""
    size = _version.GetFileVersionInfoSizeW(str(path), None)
    block = ctypes.create_string_buffer(size or 1)
    if not size or not _version.GetFileVersionInfoW(str(path), 0, size, block):
        return {}
    facts: dict[str, object] = {}
    # VS_FIXEDFILEINFO, whose third and fourth numbers are the version. Source: the documentation of the structure.
    fixed = _query(block, "\\")
    if fixed is not None:
        high, low = (wintypes.DWORD * 4).from_address(fixed[0])[2:]
        facts["version"] = f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
    languages = _query(block, "\\VarFileInfo\\Translation")
    if languages is not None and languages[1] >= 4:
        language, codepage = (wintypes.WORD * 2).from_address(languages[0])
        for name in _STRINGS:
            text = _query(block, f"\\StringFileInfo\\{language:04x}{codepage:04x}\\{name}")
            if text is not None and text[1]:
                facts[name] = ctypes.wstring_at(text[0]).strip()
    return facts


def _query(block: ctypes.Array[ctypes.c_char], what: str) -> tuple[int, int] | None:
    """Return the address and the length of a part of a version resource."""
    address, length = c_void_p(), wintypes.UINT()
    if not _version.VerQueryValueW(block, what, byref(address), byref(length)) or not address.value:
        return None
    return address.value, length.value
