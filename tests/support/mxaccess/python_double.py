"""A double of MXAccess' COM object in Python: the simulator, behind the calls and in the apartment of a COM object.

Every value goes through a VARIANT in memory on its way, so that it arrives as it would from COM.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

from mxgw.convert import to_value
from mxgw.v1.events_pb2 import GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_ACCESSDENIED, E_NOTIMPL, MxError
from mxgw_worker.backends.mxaccess import errors
from mxgw_worker.backends.mxaccess.backend import MxAccessBackend
from mxgw_worker.backends.mxaccess.com import ComEvents
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.make_variant import VariantMaker
from mxgw_worker.backends.mxaccess.read_variant import VariantReader
from mxgw_worker.backends.mxaccess.variant_layout import SIZE, Status
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.timers import Cancellable
from support.mxaccess.memory import PlainMemory

T = TypeVar("T")

_DATES = Dates(local=False)
# Key: version of the interface. Value: the methods that came with it.
_SINCE = {
    2: ("archestra_user_to_id",),
    3: ("add_item2",),
    4: ("write2", "write_secured2", "suspend", "activate", "advise_supervisory"),
    5: ("add_buffered_item", "set_buffered_update_interval"),
}


class _Call:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ThreadPump:
    """Implements `Pump` with a condition, and `Clock` with timers that it runs as messages are dispatched."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self._condition = threading.Condition()
        self._is_woken = False
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()

    def enter(self) -> None:
        self.thread = threading.get_ident()

    def wait(self) -> None:
        with self._condition:
            if not self._is_woken:
                left = self._timers[0][0] - time.perf_counter() if self._timers else None
                if left is None or left > 0:
                    self._condition.wait(left)
            self._is_woken = False

    def dispatch(self, most: int) -> bool:
        for _ in range(most):
            if not self._timers or self._timers[0][0] > time.perf_counter():
                return False
            call = heappop(self._timers)[2]
            if call.callback is not None:
                call.callback()
        return True

    def wake(self) -> None:
        with self._condition:
            self._is_woken = True
            self._condition.notify()

    def leave(self) -> None:
        self.thread = None

    def monotonic(self) -> float:
        return time.perf_counter()

    def wall_ns(self) -> int:
        return time.time_ns()

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        call = _Call(callback)
        heappush(self._timers, (when, next(self._numbers), call))
        return call


class _Sink:
    """The simulator's sink: makes COM events of its events."""

    def __init__(self, double: PythonDouble) -> None:
        self._double = double

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        double = self._double
        if double.is_silent(server_handle, item_handle):
            return
        double.events.data_change(
            server_handle,
            item_handle,
            _through_memory(value),
            quality,
            source_time_ns,
            raw_source_time,
            _native(statuses),
        )

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._double.events.write_complete(server_handle, item_handle, _native(statuses))

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._double.events.operation_complete(server_handle, item_handle, _native(statuses))

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        source_times_ns: Sequence[int],
        statuses: Sequence[MxStatus],
    ) -> None:
        self._double.events.buffered_data_change(
            server_handle,
            item_handle,
            data_type,
            _through_memory(value),
            qualities,
            source_times_ns,
            _native(statuses),
        )

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        """MXAccess reports no gaps."""

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:
        """MXAccess reports no health (docs/reference/mxaccess.md#platform-loss)."""

    def failed(self, detail: str) -> None:
        raise AssertionError(detail)


class PythonDouble:
    """Implements `Com`. `denied` are references for which the licence is missing, `silent` are those that never report,
    and `hanging` the names of methods that do not return while `hang` is not set.
    """

    def __init__(
        self,
        events: ComEvents,
        pump: ThreadPump,
        options: Mapping[str, object],
        *,
        version: int = 5,
        denied: Sequence[str] = (),
        silent: Sequence[str] = (),
        hanging: Sequence[str] = (),
        released: threading.Event | None = None,
    ) -> None:
        self.events = events
        self.version = version
        self.calls: list[str] = []
        self.released = released or threading.Event()
        self._pump = pump
        self._denied = frozenset(denied)
        self._silent = frozenset(silent)
        self._hanging = frozenset(hanging)
        self._silent_items: set[tuple[int, int]] = set()
        self._sim = SimBackend(options, pump)
        _run(self._sim.start(_Sink(self)))

    def is_silent(self, server_handle: int, item_handle: int) -> bool:
        return (server_handle, item_handle) in self._silent_items

    def release(self) -> None:
        self._called("release")
        _run(self._sim.stop())

    def _called(self, method: str) -> None:
        assert self._pump.thread == threading.get_ident(), "called outside of the apartment"
        self.calls.append(method)
        if method in self._hanging:
            self.released.wait()
        for version, methods in _SINCE.items():
            if method in methods and version > self.version:
                raise MxError(E_NOTIMPL, f"MXAccess on this machine is of version {self.version} and has no {method}")

    def _add(self, method: str, reference: str, server_handle: int, add: Callable[[], Coroutine[Any, Any, int]]) -> int:
        self._called(method)
        if reference in self._denied:
            raise MxError(E_ACCESSDENIED, errors.of_call("AddItem", E_ACCESSDENIED, ""))
        handle = _run(add())
        if reference in self._silent:
            self._silent_items.add((server_handle, handle))
        return handle

    def register(self, client_name: str) -> int:
        self._called("register")
        return _run(self._sim.register(client_name))

    def unregister(self, server_handle: int) -> None:
        self._called("unregister")
        _run(self._sim.unregister(server_handle))

    def add_item(self, server_handle: int, item_definition: str) -> int:
        return self._add(
            "add_item", item_definition, server_handle, lambda: self._sim.add_item(server_handle, item_definition)
        )

    def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return self._add(
            "add_item2",
            item_definition,
            server_handle,
            lambda: self._sim.add_item2(server_handle, item_definition, item_context),
        )

    def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        return self._add(
            "add_buffered_item",
            item_definition,
            server_handle,
            lambda: self._sim.add_buffered_item(server_handle, item_definition, item_context),
        )

    def remove_item(self, server_handle: int, item_handle: int) -> None:
        self._called("remove_item")
        self._silent_items.discard((server_handle, item_handle))
        _run(self._sim.remove_item(server_handle, item_handle))

    def advise(self, server_handle: int, item_handle: int) -> None:
        self._called("advise")
        _run(self._sim.advise(server_handle, item_handle))

    def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        self._called("advise_supervisory")
        _run(self._sim.advise_supervisory(server_handle, item_handle))

    def un_advise(self, server_handle: int, item_handle: int) -> None:
        self._called("un_advise")
        _run(self._sim.un_advise(server_handle, item_handle))

    def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        self._called("write")
        _run(self._sim.write(server_handle, item_handle, _through_memory(value), user_id))

    def write2(self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int) -> None:
        self._called("write2")
        _run(self._sim.write2(server_handle, item_handle, _through_memory(value), time_ns, user_id))

    def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        self._called("write_secured")
        _run(
            self._sim.write_secured(
                server_handle, item_handle, current_user_id, verifier_user_id, _through_memory(value)
            )
        )

    def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        self._called("write_secured2")
        _run(
            self._sim.write_secured2(
                server_handle, item_handle, current_user_id, verifier_user_id, _through_memory(value), time_ns
            )
        )

    def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        self._called("authenticate_user")
        return _run(self._sim.authenticate_user(server_handle, user, password))

    def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        self._called("archestra_user_to_id")
        return _run(self._sim.archestra_user_to_id(server_handle, user_guid))

    def suspend(self, server_handle: int, item_handle: int) -> Status:
        self._called("suspend")
        return _native([_run(self._sim.suspend(server_handle, item_handle))])[0]

    def activate(self, server_handle: int, item_handle: int) -> Status:
        self._called("activate")
        return _native([_run(self._sim.activate(server_handle, item_handle))])[0]

    def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        self._called("set_buffered_update_interval")
        _run(self._sim.set_buffered_update_interval(server_handle, interval_ms))


class DoubledBackend:
    """A backend on a double, which tests can look at once it has started."""

    def __init__(self, options: Mapping[str, object], sim: Mapping[str, object], **knobs: Any) -> None:
        pump = ThreadPump()
        self.pump = pump
        self.double: PythonDouble | None = None

        def connect(events: ComEvents) -> PythonDouble:
            self.double = PythonDouble(events, pump, sim, **knobs)
            return self.double

        self.backend = MxAccessBackend(options, connect, lambda: pump)


def _run(call: Coroutine[Any, Any, T]) -> T:
    """Run a method of the simulator, none of which waits for anything."""
    try:
        call.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    call.close()
    raise AssertionError("the simulator waited")


def _native(statuses: Sequence[MxStatus]) -> tuple[Status, ...]:
    return tuple((one.success, one.raw_category, one.raw_detected_by, one.raw_detail) for one in statuses)


def _no_date(text: str) -> float:
    raise ValueError(text)


_READER = VariantReader(_DATES, _no_date)


def _through_memory(value: MxValue) -> MxValue:
    # How MXAccess sends an elapsed time is not known; a text is what any of its clients could show.
    if value.HasField("elapsed_time"):
        value = MxValue(string=str(value.elapsed_time.ToTimedelta()))
    elif value.array.WhichOneof("elements") == "elapsed_times":
        value = to_value([str(each.ToTimedelta()) for each in value.array.elapsed_times.elements])
    memory = PlainMemory()
    variant = ctypes.create_string_buffer(SIZE)
    VariantMaker(_DATES, memory, time.time_ns).fill(ctypes.addressof(variant), value)
    return _READER.value(ctypes.addressof(variant))
