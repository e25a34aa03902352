"""The sentences for errors of COM: what they mean here, and what to do. The HRESULT itself goes to the client as it is.

Source of the meanings: docs/reference/mxaccess.md#licence, #bitness; names and numbers: winerror.h. That a missing
licence can also show when the object is made, or in `Register`, is unconfirmed.
"""

from __future__ import annotations

from mxgw_worker.backends.base import E_ACCESSDENIED, E_FAIL, E_INVALIDARG, E_NOTIMPL

REGDB_E_CLASSNOTREG = -2147221164  # unsigned: 0x80040154
CO_E_DLLNOTFOUND = -2147221000  # unsigned: 0x800401F8
E_NOINTERFACE = -2147467262  # unsigned: 0x80004002

_LICENCE = (
    "MXAccess refuses access: most often its run-time licence is missing on this machine (MXAccess_Runtime, or one of"
    " WindowViewer), or the platform is not deployed here"
)
# COM's text for an invalid argument, word for word, where the object itself gives none.
OUT_OF_RANGE = "Value does not fall within the expected range."
NO_CONSUMER = (
    "the alarm manager's object wwAlarmConsumer is not registered on this machine for 32-bit programs, so alarms cannot"
    " be read; MXAccess works without it. Install what brings wnwrapConsumer.dll, or name the class in the option"
    " alarm_consumer"
)
_NAMES = {
    E_FAIL: "E_FAIL",
    E_NOTIMPL: "E_NOTIMPL",
    E_ACCESSDENIED: "E_ACCESSDENIED",
    E_INVALIDARG: "E_INVALIDARG",
    E_NOINTERFACE: "E_NOINTERFACE",
    REGDB_E_CLASSNOTREG: "REGDB_E_CLASSNOTREG",
}


def of_creation(hresult: int, text: str) -> str:
    """Return why MXAccess' object cannot be made, and what to do. `text` is what COM says of it."""
    match hresult:
        case -2147221164:
            return (
                "MXAccess is not installed on this machine: LMXProxy.LMXProxyServer is not registered for 32-bit"
                f" programs ({shown(hresult)}). Install the run-time components of System Platform or the MXAccess"
                " toolkit"
            )
        case -2147024891:
            return f"{_LICENCE}; or this user has no right to load it ({shown(hresult)})"
        case -2147467262:
            return f"the object LMXProxy.LMXProxyServer has none of MXAccess' interfaces ({shown(hresult)})"
        case _:
            return f"MXAccess does not start: {text or 'no reason given'} ({shown(hresult)})"


def of_call(method: str, hresult: int, own: str, general: str = "") -> str:
    """Return why a method failed. `own` is what the object says of it, `general` what Windows says of the number, in
    the language of the machine; either can be "".
    """
    if hresult == E_ACCESSDENIED and method in ("Register", "AddItem", "AddItem2", "AddBufferedItem"):
        return _LICENCE
    if hresult == E_INVALIDARG:
        return own or OUT_OF_RANGE
    return f"{method}: {own or general or 'no reason given'} ({shown(hresult)})"


def of_consumer(hresult: int, text: str) -> str:
    """Return why the object of the alarm manager cannot be made. `text` is what COM says of it."""
    if hresult == REGDB_E_CLASSNOTREG:
        return f"{NO_CONSUMER} ({shown(hresult)})"
    return f"the alarm manager's object cannot be made: {text or 'no reason given'} ({shown(hresult)})"


def shown(hresult: int) -> str:
    """Return an HRESULT as people look it up."""
    number = f"0x{hresult & 0xFFFFFFFF:08X}"
    return f"{_NAMES[hresult]}, {number}" if hresult in _NAMES else number
