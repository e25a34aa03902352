"""MXAccess' COM object itself: its interfaces, its events, and the objects of OLE Automation that they take.

Import this in the thread of an apartment only: importing comtypes makes the importing thread one.
Source of names, identifiers and orders: docs/reference/mxaccess.md#methods, #events, #identifiers.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import POINTER, addressof, byref, c_int, c_long, c_short, c_void_p
from typing import Any, ClassVar, TypeVar

assert sys.platform == "win32"

from ctypes import HRESULT  # noqa: E402

# comtypes makes the thread that imports it an apartment of this kind.
sys.coinit_flags = 2  # type: ignore[attr-defined]

import comtypes  # noqa: E402
from comtypes import BSTR, COMMETHOD, GUID, COMError, COMObject  # noqa: E402
from comtypes.automation import VARIANT, IDispatch  # noqa: E402
from comtypes.connectionpoints import IConnectionPointContainer  # noqa: E402

from mxgw.v1.values_pb2 import MxValue  # noqa: E402
from mxgw_worker.backends.base import E_FAIL, E_NOTIMPL, BackendUnavailable, MxError  # noqa: E402
from mxgw_worker.backends.mxaccess import errors, read_variant  # noqa: E402
from mxgw_worker.backends.mxaccess.com import ComEvents  # noqa: E402
from mxgw_worker.backends.mxaccess.dates import Dates  # noqa: E402
from mxgw_worker.backends.mxaccess.make_variant import VariantMaker  # noqa: E402
from mxgw_worker.backends.mxaccess.read_variant import Status, Unreadable, VariantReader  # noqa: E402

T = TypeVar("T")

# At its exit the main thread would end an apartment that only the importing thread has.
atexit.unregister(comtypes._shutdown)
# It logs every reference that is taken or released.
logging.getLogger("comtypes").setLevel(logging.WARNING)

_CLASS = GUID("{C30B52F5-2CB5-4760-AF0A-3A344A7EB5DC}")
_EVENTS = GUID("{848299B6-DD61-4A0D-A304-3947A564B89C}")
_EVENTS_2 = GUID("{C70A6FC4-09EF-4F31-8874-A049FEE87A95}")
_ON_DATA_CHANGE, _ON_WRITE_COMPLETE, _OPERATION_COMPLETE = 1, 2, 3
_ON_BUFFERED_DATA_CHANGE = 1
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


_VERSIONS = {1: _Version1, 2: _Version2, 3: _Version3, 4: _Version4, 5: _Version5}


class _Events(IDispatch):  # type: ignore[misc]
    _iid_ = _EVENTS
    _methods_: ClassVar[tuple[Any, ...]] = ()


class _Events2(IDispatch):  # type: ignore[misc]
    _iid_ = _EVENTS_2
    _methods_: ClassVar[tuple[Any, ...]] = ()


class _Sink(COMObject):  # type: ignore[misc]
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
        self._receive(member, [start + read_variant.SIZE * k for k in range(given.cArgs - 1, -1, -1)])
        return _S_OK


class _Sink1(_Sink):
    _com_interfaces_ = (_Events,)


class _Sink2(_Sink):
    _com_interfaces_ = (_Events2,)


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
        return address, read_variant.SafeArray.from_address(address).data or 0


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


class LmxProxy:
    """Implements `Com` on LMXProxyServer."""

    def __init__(self, events: ComEvents, dates: Dates) -> None:
        """Make the object, and connect to its events.

        Raises:
            BackendUnavailable: it cannot be made; the text says what to do.
        """
        self._events = events
        self._reader = VariantReader(dates, date_of_text)
        self._maker = VariantMaker(dates, OleMemory(), time.time_ns)
        try:
            made = comtypes.CoCreateInstance(_CLASS, comtypes.IUnknown, comtypes.CLSCTX_INPROC_SERVER)
            self._object, self.version = _newest(made)
            del made
            self._points = [
                self._connect(_EVENTS, _Sink1(self._receive)),
                self._connect(_EVENTS_2, _Sink2(self._receive_2)),
            ]
        except (COMError, OSError) as error:
            raise BackendUnavailable(errors.of_creation(_hresult(error), _text(error))) from None

    def _connect(self, interface: GUID, sink: _Sink) -> tuple[Any, int, _Sink] | None:
        container = self._object.QueryInterface(IConnectionPointContainer)
        try:
            point = container.FindConnectionPoint(byref(interface))
        except COMError:
            if interface == _EVENTS_2:
                return None  # an object without buffered items
            raise
        return point, point.Advise(sink), sink

    def release(self) -> None:
        """See `Com.release`."""
        for connected in self._points:
            if connected is not None:
                with suppress(COMError):  # the object has ended the connection itself
                    connected[0].Unadvise(connected[1])
        self._points = []
        # The last references: COM objects may only be released in this thread.
        del self._object

    # The methods.

    def register(self, client_name: str) -> int:
        return _handle("Register", self._call("Register", client_name))

    def unregister(self, server_handle: int) -> None:
        self._call("Unregister", server_handle)

    def add_item(self, server_handle: int, item_definition: str) -> int:
        return _handle("AddItem", self._call("AddItem", server_handle, item_definition))

    def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return _handle("AddItem2", self._call("AddItem2", server_handle, item_definition, item_context))

    def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return _handle("AddBufferedItem", self._call("AddBufferedItem", server_handle, item_definition, item_context))

    def remove_item(self, server_handle: int, item_handle: int) -> None:
        self._call("RemoveItem", server_handle, item_handle)

    def advise(self, server_handle: int, item_handle: int) -> None:
        self._call("Advise", server_handle, item_handle)

    def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        self._call("AdviseSupervisory", server_handle, item_handle)

    def un_advise(self, server_handle: int, item_handle: int) -> None:
        self._call("UnAdvise", server_handle, item_handle)

    def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        with self._variant(value) as made:
            self._call("Write", server_handle, item_handle, made, user_id)

    def write2(self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int) -> None:
        with self._variant(value) as made, self._moment(time_ns) as moment:
            self._call("Write2", server_handle, item_handle, made, moment, user_id)

    def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        with self._variant(value) as made:
            self._call("WriteSecured", server_handle, item_handle, current_user_id, verifier_user_id, made)

    def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        with self._variant(value) as made, self._moment(time_ns) as moment:
            self._call("WriteSecured2", server_handle, item_handle, current_user_id, verifier_user_id, made, moment)

    def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        return int(self._call("AuthenticateUser", server_handle, user, password))

    def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        return int(self._call("ArchestrAUserToId", server_handle, user_guid))

    def suspend(self, server_handle: int, item_handle: int) -> Status:
        return _status(self._call("Suspend", server_handle, item_handle))

    def activate(self, server_handle: int, item_handle: int) -> Status:
        return _status(self._call("Activate", server_handle, item_handle))

    def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        self._call("SetBufferedUpdateInterval", server_handle, interval_ms)

    def _call(self, method: str, *arguments: object) -> Any:
        function = getattr(self._object, method, None)
        if function is None:
            raise MxError(E_NOTIMPL, f"MXAccess on this machine is of version {self.version} and has no {method}")
        try:
            return function(*arguments)
        except (COMError, OSError) as error:
            failed = MxError(_hresult(error), errors.of_call(method, _hresult(error), _text(error)))
        # Outside of the handler: the frames of the COM error must not leave this thread.
        raise failed

    @contextmanager
    def _variant(self, value: MxValue) -> Iterator[VARIANT]:
        made = VARIANT()  # which frees what it holds when it ends
        self._maker.fill(addressof(made), value)
        yield made

    @contextmanager
    def _moment(self, ns: int | None) -> Iterator[VARIANT]:
        made = VARIANT()
        self._maker.fill_time(addressof(made), ns)
        yield made

    # The events.

    def _receive(self, member: int, arguments: list[int]) -> None:
        try:
            server, item = self._handles(arguments)
            match member, len(arguments):
                case 1, 6:
                    value = self._reader.value(arguments[2])
                    (quality,) = self._reader.numbers(arguments[3])
                    when, text = self._reader.time(arguments[4])
                    self._events.data_change(
                        server, item, value, quality, when, text, read_variant.statuses(arguments[5])
                    )
                case 2, 3:
                    self._events.write_complete(server, item, read_variant.statuses(arguments[2]))
                case 3, 3:
                    self._events.operation_complete(server, item, read_variant.statuses(arguments[2]))
                case _:
                    self._events.unreadable(f"event {member}", f"it has {len(arguments)} arguments")
        except Exception as error:
            self._events.unreadable(_NAMES.get(member, f"event {member}"), _reason(error))

    def _receive_2(self, member: int, arguments: list[int]) -> None:
        try:
            server, item = self._handles(arguments)
            if (member, len(arguments)) != (_ON_BUFFERED_DATA_CHANGE, 7):
                self._events.unreadable(f"event {member}", f"it has {len(arguments)} arguments")
                return
            (data_type,) = self._reader.numbers(arguments[2])
            value = self._reader.value(arguments[3])
            qualities, times = self._reader.numbers(arguments[4]), self._reader.times(arguments[5])
            if not read_variant.length(value) == len(qualities) == len(times):
                self._events.unreadable(
                    "OnBufferedDataChange",
                    f"it has {read_variant.length(value)} values, {len(qualities)} qualities and {len(times)} times",
                )
                return
            self._events.buffered_data_change(
                server, item, data_type, value, qualities, times, read_variant.statuses(arguments[6])
            )
        except Exception as error:
            self._events.unreadable("OnBufferedDataChange", _reason(error))

    def _handles(self, arguments: list[int]) -> tuple[int, int]:
        if len(arguments) < 2:
            raise Unreadable(f"it has {len(arguments)} arguments")
        (server,), (item,) = self._reader.numbers(arguments[0]), self._reader.numbers(arguments[1])
        return server, item


_NAMES = {
    _ON_DATA_CHANGE: "OnDataChange",
    _ON_WRITE_COMPLETE: "OnWriteComplete",
    _OPERATION_COMPLETE: "OperationComplete",
}


def _newest(made: Any) -> tuple[Any, int]:
    """Return the object by its newest interface, and the version of that.

    Raises:
        COMError: it has none of the interfaces.
    """
    for version in (5, 4, 3, 2):
        try:
            return made.QueryInterface(_VERSIONS[version]), version
        except COMError:
            pass
    return made.QueryInterface(_VERSIONS[1]), 1


def _handle(method: str, handle: object) -> int:
    assert isinstance(handle, int)
    if handle <= 0:
        raise MxError(E_FAIL, f"MXAccess returned {handle} from {method}, which is no handle")
    return handle


def _status(status: Any) -> Status:
    return status.success, status.category, status.detected_by, status.detail


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"


def _hresult(error: Any) -> int:
    number: int = error.hresult if isinstance(error, COMError) else error.winerror
    return number


def _text(error: Any) -> str:
    """Return what the object itself says of its error, otherwise what Windows says."""
    if isinstance(error, COMError):
        described = (error.details or (None,))[0]
        return str(described or error.text or "").strip()
    return str(error.strerror or "")
