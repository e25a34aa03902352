"""MXAccess' COM object itself.

Import this in the thread of an apartment only, see `interfaces.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import addressof, byref
from typing import Any

assert sys.platform == "win32"

# The first import of all that have to do with comtypes.
from mxgw_worker.backends.mxaccess.windows import interfaces  # noqa: E402, I001
import comtypes  # noqa: E402
from comtypes import GUID, COMError  # noqa: E402
from comtypes.automation import VARIANT  # noqa: E402
from comtypes.connectionpoints import IConnectionPointContainer  # noqa: E402

from mxgw.v1.values_pb2 import MxValue  # noqa: E402
from mxgw_worker.backends.base import E_FAIL, E_NOTIMPL, BackendUnavailable, MxError  # noqa: E402
from mxgw_worker.backends.mxaccess import errors, read_variant  # noqa: E402
from mxgw_worker.backends.mxaccess.com import ComEvents, Statuses  # noqa: E402
from mxgw_worker.backends.mxaccess.dates import Dates  # noqa: E402
from mxgw_worker.backends.mxaccess.make_variant import VariantMaker  # noqa: E402
from mxgw_worker.backends.mxaccess.read_variant import VariantReader  # noqa: E402
from mxgw_worker.backends.mxaccess.variant_layout import Status, Unreadable, statuses  # noqa: E402
from mxgw_worker.backends.mxaccess.windows.ole_memory import OleMemory, date_of_text  # noqa: E402

log = logging.getLogger(__name__)


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
        self._object: Any = None
        self._points: list[tuple[Any, int, Any]] = []
        try:
            made = comtypes.CoCreateInstance(interfaces.CLASS, comtypes.IUnknown, comtypes.CLSCTX_INPROC_SERVER)
            self._object, self.version = _newest(made)
            del made
            self._connect(interfaces.EVENTS, interfaces.Sink(self._receive))
            self._connect(interfaces.EVENTS_2, interfaces.Sink2(self._receive_2))
        except (COMError, OSError) as error:
            self._said("CoCreateInstance", _hresult(error), _text(error))
            failed = BackendUnavailable(errors.of_creation(_hresult(error), _text(error)))
        else:
            return
        # Otherwise the object would hold the sinks, and they this, for ever.
        self.release()
        raise failed

    def _said(self, method: str, hresult: int, text: str) -> None:
        """Do nothing with what COM, or the object, says of an error. A class that wants it overrides this."""

    def _connect(self, interface: GUID, sink: Any) -> None:
        container = self._object.QueryInterface(IConnectionPointContainer)
        try:
            point = container.FindConnectionPoint(byref(interface))
        except COMError:
            if interface != interfaces.EVENTS_2:
                raise
            if self.version >= 5:
                log.warning("MXAccess on this machine has buffered items, and no events for them: they never report")
            return
        self._points.append((point, point.Advise(sink), sink))

    def release(self) -> None:
        """See `Com.release`."""
        for point, cookie, _sink in self._points:
            with suppress(COMError, OSError):  # the object has ended the connection itself
                point.Unadvise(cookie)
        # The last references: COM objects may only be released in this thread.
        self._points = []
        self._object = None

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
            self._said(method, _hresult(error), _text(error))
            failed = MxError(_hresult(error), errors.of_call(method, _hresult(error), *_texts(error)))
        # Outside of the handler: the frames of the COM error must not leave this thread.
        try:
            raise failed
        finally:
            # The error holds this frame. If the frame held the error too, only the garbage collector would release the
            # object of `function`: at any time, and in any thread.
            del failed, function

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
                    quality = self._reader.number(arguments[3])
                    when, text = self._reader.time(arguments[4])
                    self._events.data_change(server, item, value, quality, when, text, statuses(arguments[5]))
                case 2, 3:
                    self._events.write_complete(server, item, _outcome(arguments[2]))
                case 3, 3:
                    self._events.operation_complete(server, item, _outcome(arguments[2]))
                case _:
                    self._events.unreadable(f"event {member}", f"it has {len(arguments)} arguments")
        except Exception as error:
            self._events.unreadable(_NAMES.get(member, f"event {member}"), _reason(error))

    def _receive_2(self, member: int, arguments: list[int]) -> None:
        try:
            server, item = self._handles(arguments)
            if (member, len(arguments)) != (interfaces.ON_BUFFERED_DATA_CHANGE, 7):
                self._events.unreadable(f"event {member}", f"it has {len(arguments)} arguments")
                return
            data_type = self._reader.number(arguments[2])
            value = self._reader.value(arguments[3])
            qualities, times = self._reader.numbers(arguments[4]), self._reader.times(arguments[5])
            if not read_variant.length(value) == len(qualities) == len(times):
                self._events.unreadable(
                    "OnBufferedDataChange",
                    f"it has {read_variant.length(value)} values, {len(qualities)} qualities and {len(times)} times",
                )
                return
            self._events.buffered_data_change(server, item, data_type, value, qualities, times, statuses(arguments[6]))
        except Exception as error:
            self._events.unreadable("OnBufferedDataChange", _reason(error))

    def _handles(self, arguments: list[int]) -> tuple[int, int]:
        if len(arguments) < 2:
            raise Unreadable(f"it has {len(arguments)} arguments")
        return self._reader.number(arguments[0]), self._reader.number(arguments[1])


_NAMES = {
    interfaces.ON_DATA_CHANGE: "OnDataChange",
    interfaces.ON_WRITE_COMPLETE: "OnWriteComplete",
    interfaces.OPERATION_COMPLETE: "OperationComplete",
}


def _newest(made: Any) -> tuple[Any, int]:
    """Return the object by its newest interface, and the version of that.

    Raises:
        COMError: it has none of the interfaces.
    """
    for version in (5, 4, 3, 2):
        try:
            return made.QueryInterface(interfaces.VERSIONS[version]), version
        except COMError:
            pass
    return made.QueryInterface(interfaces.VERSIONS[1]), 1


def _handle(method: str, handle: object) -> int:
    assert isinstance(handle, int)
    if handle <= 0:
        raise MxError(E_FAIL, f"MXAccess returned {handle} from {method}, which is no handle")
    return handle


def _status(status: Any) -> Status:
    return status.success, status.category, status.detected_by, status.detail


def _outcome(address: int) -> Statuses:
    """Return the statuses of a completion, of which there must be one: a list without a failure is a success."""
    found = statuses(address)
    if not found:
        raise Unreadable("it has no status")
    return found


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"


def _hresult(error: Any) -> int:
    number: int = error.hresult if isinstance(error, COMError) else error.winerror
    return number


def _texts(error: Any) -> tuple[str, str]:
    """Return what the object itself says of its error, and what Windows says of its number. Either can be ""."""
    if isinstance(error, COMError):
        described = (error.details or (None,))[0]
        return str(described or "").strip(), str(error.text or "").strip()
    return "", str(error.strerror or "").strip()


def _text(error: Any) -> str:
    own, general = _texts(error)
    return own or general
