"""The services of mxgw that are installed on this machine, in the registry, where only administrators can change it.

So commands that an administrator runs know whose files they work on (`security.trusted`), and with which settings a
service runs.
"""

from __future__ import annotations

import contextlib
import sys
import winreg
from collections.abc import Mapping
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.services import ServiceRecord

# The same for programs of 32 and of 64 bits.
_VIEW = winreg.KEY_WOW64_64KEY
_RECORDS = r"SOFTWARE\mxgw\Services"
_SOURCES = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
# A program of every Windows whose messages number 1 to 1000 consist of the text of the event and nothing else.
_MESSAGES = r"%SystemRoot%\System32\EventCreate.exe"


def remember(name: str, record: ServiceRecord) -> None:
    """Keep the record of a service, and register it as a source of the event log.

    Raises:
        OSError: this is not possible.
    """
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, rf"{_RECORDS}\{name}", 0, winreg.KEY_WRITE | _VIEW) as key:
        winreg.SetValueEx(key, "Settings", 0, winreg.REG_SZ, str(record.settings))
        winreg.SetValueEx(key, "User", 0, winreg.REG_SZ, record.user)
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, rf"{_SOURCES}\{name}", 0, winreg.KEY_WRITE | _VIEW) as key:
        winreg.SetValueEx(key, "EventMessageFile", 0, winreg.REG_EXPAND_SZ, _MESSAGES)
        winreg.SetValueEx(key, "TypesSupported", 0, winreg.REG_DWORD, 7)  # errors, warnings and information


def forget(name: str) -> None:
    """Remove what `remember` has kept.

    Raises:
        OSError: this is not possible.
    """
    for parent in (_RECORDS, _SOURCES):
        with contextlib.suppress(FileNotFoundError):
            winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, rf"{parent}\{name}", _VIEW)


def records() -> Mapping[str, ServiceRecord]:
    """Return the records of all services of mxgw on this machine, by name."""
    found: dict[str, ServiceRecord] = {}
    with contextlib.suppress(OSError), _opened(_RECORDS) as key:
        for index in range(winreg.QueryInfoKey(key)[0]):
            name = winreg.EnumKey(key, index)
            with contextlib.suppress(OSError), _opened(rf"{_RECORDS}\{name}") as one:
                settings, user = (str(winreg.QueryValueEx(one, value)[0]) for value in ("Settings", "User"))
                found[name] = ServiceRecord(Path(settings), user)
    return found


def _opened(path: str) -> winreg.HKEYType:
    return winreg.OpenKeyEx(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_READ | _VIEW)
