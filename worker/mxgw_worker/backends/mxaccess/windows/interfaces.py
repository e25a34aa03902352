"""The interfaces of MXAccess' COM object, and the receivers of its events.

Import this in the thread of an apartment only: importing comtypes makes the importing thread one.
Source of names, identifiers and orders: docs/reference/mxaccess.md#methods, #events, #identifiers.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import sys
from collections.abc import Callable
from ctypes import POINTER, c_int, c_long, c_short, c_void_p
from typing import Any, ClassVar

assert sys.platform == "win32"

from ctypes import HRESULT  # noqa: E402

# comtypes makes the thread that imports it an apartment of this kind.
sys.coinit_flags = 2  # type: ignore[attr-defined]

import comtypes  # noqa: E402
from comtypes import BSTR, COMMETHOD, GUID, COMObject  # noqa: E402
from comtypes.automation import VARIANT, IDispatch  # noqa: E402

from mxgw_worker.backends.mxaccess import variant_layout  # noqa: E402

# The import has counted this thread's apartment once more; whoever made it ends it.
comtypes.CoUninitialize()
# At its exit the main thread would end an apartment that it does not have, because it imported nothing.
atexit.unregister(comtypes._shutdown)
# An object that was never released, because a call of it hangs, must not be released by the main thread either.
atexit.register(setattr, type(comtypes.IUnknown), "_com_shutting_down", True)
# It logs every reference that is taken or released.
logging.getLogger("comtypes").setLevel(logging.WARNING)

CLASS = GUID("{C30B52F5-2CB5-4760-AF0A-3A344A7EB5DC}")
EVENTS = GUID("{848299B6-DD61-4A0D-A304-3947A564B89C}")
EVENTS_2 = GUID("{C70A6FC4-09EF-4F31-8874-A049FEE87A95}")
ON_DATA_CHANGE, ON_WRITE_COMPLETE, OPERATION_COMPLETE = 1, 2, 3
ON_BUFFERED_DATA_CHANGE = 1
_S_OK = 0

_h, _i = (["in"], c_long, "server"), (["in"], c_long, "item")
_new_item = (["out", "retval"], POINTER(c_long), "item")
_user_id = (["out", "retval"], POINTER(c_long), "user")
_value, _time = (["in"], VARIANT, "value"), (["in"], VARIANT, "time")
_users = ((["in"], c_long, "current"), (["in"], c_long, "verifier"))


class _MxStatus(ctypes.Structure):
    _fields_ = (("success", c_short), ("category", c_int), ("detected_by", c_int), ("detail", c_short))


class _Version1(IDispatch):  # type: ignore[misc]
    _iid_ = GUID("{CCE67FB7-EAFD-4367-9212-617043BF126D}")
    _methods_: ClassVar[tuple[Any, ...]] = (
        COMMETHOD([], HRESULT, "Register", (["in"], BSTR, "client"), (["out", "retval"], POINTER(c_long), "server")),
        COMMETHOD([], HRESULT, "Unregister", _h),
        COMMETHOD([], HRESULT, "AddItem", _h, (["in"], BSTR, "definition"), _new_item),
        COMMETHOD([], HRESULT, "RemoveItem", _h, _i),
        COMMETHOD([], HRESULT, "Advise", _h, _i),
        COMMETHOD([], HRESULT, "UnAdvise", _h, _i),
        COMMETHOD([], HRESULT, "Write", _h, _i, _value, (["in"], c_long, "user")),
        COMMETHOD([], HRESULT, "WriteSecured", _h, _i, *_users, _value),
        COMMETHOD([], HRESULT, "AuthenticateUser", _h, (["in"], BSTR, "name"), (["in"], BSTR, "password"), _user_id),
    )


class _Version2(_Version1):
    _iid_ = GUID("{020A8A87-69C5-497F-A893-B629E669FBFF}")
    _methods_: ClassVar[tuple[Any, ...]] = (
        COMMETHOD([], HRESULT, "ArchestrAUserToId", _h, (["in"], BSTR, "guid"), _user_id),
    )


class _Version3(_Version2):
    _iid_ = GUID("{57D006B6-F25E-4654-A81E-BCBAFD60FE59}")
    _methods_: ClassVar[tuple[Any, ...]] = (
        COMMETHOD([], HRESULT, "AddItem2", _h, (["in"], BSTR, "definition"), (["in"], BSTR, "context"), _new_item),
    )


class _Version4(_Version3):
    _iid_ = GUID("{9DC0D5C1-9371-4E84-86F8-7091D316A66C}")
    _methods_: ClassVar[tuple[Any, ...]] = (
        COMMETHOD([], HRESULT, "Write2", _h, _i, _value, _time, (["in"], c_long, "user")),
        COMMETHOD([], HRESULT, "WriteSecured2", _h, _i, *_users, _value, _time),
        COMMETHOD([], HRESULT, "Suspend", _h, _i, (["out"], POINTER(_MxStatus), "status")),
        COMMETHOD([], HRESULT, "Activate", _h, _i, (["out"], POINTER(_MxStatus), "status")),
        COMMETHOD([], HRESULT, "AdviseSupervisory", _h, _i),
    )


class _Version5(_Version4):
    _iid_ = GUID("{ECEFF506-A752-46E3-9E31-0A8E257C9926}")
    _methods_: ClassVar[tuple[Any, ...]] = (
        COMMETHOD(
            [], HRESULT, "AddBufferedItem", _h, (["in"], BSTR, "definition"), (["in"], BSTR, "context"), _new_item
        ),
        COMMETHOD([], HRESULT, "SetBufferedUpdateInterval", _h, (["in"], c_long, "milliseconds")),
    )


VERSIONS = {1: _Version1, 2: _Version2, 3: _Version3, 4: _Version4, 5: _Version5}


class _Events(IDispatch):  # type: ignore[misc]
    _iid_ = EVENTS
    _methods_: ClassVar[tuple[Any, ...]] = ()


class _Events2(IDispatch):  # type: ignore[misc]
    _iid_ = EVENTS_2
    _methods_: ClassVar[tuple[Any, ...]] = ()


class _AnySink(COMObject):  # type: ignore[misc]
    """Receives the events of one interface. `receive` gets the number of an event and the addresses of its arguments;
    it never raises.
    """

    def __init__(self, receive: Callable[[int, list[int]], None]) -> None:
        self._receive = receive
        super().__init__()

    def IDispatch_Invoke(  # noqa: N802  comtypes looks for this name
        self,
        _this: object,
        member: int,
        _iid: object,
        _locale: object,
        _flags: object,
        parameters: Any,
        _result: object,
        _exception: object,
        _wrong: object,
    ) -> int:
        given = parameters[0]
        # Arguments come in the reverse order.
        start = ctypes.cast(given.rgvarg, c_void_p).value or 0
        self._receive(member, [start + variant_layout.SIZE * k for k in range(given.cArgs - 1, -1, -1)])
        return _S_OK


class Sink(_AnySink):
    _com_interfaces_ = (_Events,)


class Sink2(_AnySink):
    _com_interfaces_ = (_Events2,)
