"""A service in this process, as the service control manager of Windows sees it.

Two threads belong to it, so that the main thread stays free for the gateway: one is lent to the control manager, which
calls its functions in it and in others of its own; one reports that a start or an end makes progress.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from ctypes import POINTER, byref, c_void_p, wintypes

assert sys.platform == "win32"

from mxgw_worker.platform.windows.winapi import error_of

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4

_OWN_PROCESS = 0x10
_ACCEPT_STOP, _ACCEPT_PRESHUTDOWN = 0x1, 0x100
_REASONS = {1: "it was asked to stop", 5: "the system shuts down", 15: "the system shuts down"}
_INTERROGATE = 4
_DONE, _NOT_IMPLEMENTED, _SPECIFIC_ERROR = 0, 120, 1066

# How often progress is reported, and after which time without it the control manager may say that something hangs.
_PULSE_S, _HINT_S = 1.0, 30.0
# How long the control manager may take to call, which it does at once in a process that it has started.
_CALL_S = 30.0
# How long a start may take. Plugins that hang are ended much sooner (plugins.start_timeout_s).
_START_S = 600.0


class Status(ctypes.Structure):
    """SERVICE_STATUS."""

    _fields_ = tuple(
        (name, wintypes.DWORD)
        for name in ("kind", "state", "accepted", "exit_code", "own_code", "checkpoint", "wait_hint_ms")
    )


_MAIN = ctypes.WINFUNCTYPE(None, wintypes.DWORD, c_void_p)
_HANDLER = ctypes.WINFUNCTYPE(wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, c_void_p, c_void_p)


class _Entry(ctypes.Structure):
    _fields_ = (("name", wintypes.LPWSTR), ("main", _MAIN))


_advapi = ctypes.WinDLL("advapi32", use_last_error=True)
_advapi.RegisterServiceCtrlHandlerExW.restype = c_void_p
_advapi.RegisterServiceCtrlHandlerExW.argtypes = (wintypes.LPCWSTR, _HANDLER, c_void_p)
_advapi.SetServiceStatus.argtypes = (c_void_p, POINTER(Status))
_advapi.StartServiceCtrlDispatcherW.argtypes = (POINTER(_Entry),)


class ServiceInProcess:
    """See `mxgw_worker.platform.services.ServiceProcess` and `Services.run`.

    Raises:
        OSError: the control manager has not started this process.
    """

    def __init__(self, name: str, on_control: Callable[[str], None], on_late: Callable[[str], None]) -> None:
        self._name = name
        self._on_control = on_control
        self._on_late = on_late
        # A thread that holds it can be interrupted by a request to stop, which calls `stopping` in the same thread.
        self._lock = threading.RLock()
        self._state = START_PENDING
        self._checkpoint = 0
        self._deadline = time.perf_counter() + _START_S
        self._stop_limit_s = 0.0
        self._handle: int | None = None
        self._refusal: OSError | None = None
        # Set when the control manager has called, or has refused to.
        self._called = threading.Event()
        # Set when the service has reported its end.
        self._ended = threading.Event()
        # They must exist as long as the control manager may call them.
        self._main, self._handler = _MAIN(self._run), _HANDLER(self._control)
        threading.Thread(target=self._dispatch, name="service-control", daemon=True).start()
        if not self._called.wait(_CALL_S) and self._refusal is None:
            self._refusal = TimeoutError("the service control manager did not call")
        if self._refusal is not None:
            raise self._refusal
        threading.Thread(target=self._pulse, name="service-progress", daemon=True).start()

    def started(self, stop_limit_s: float) -> None:
        with self._lock:
            self._stop_limit_s = stop_limit_s
            if self._state == START_PENDING:
                self._state = RUNNING
                self._report()

    def stopping(self) -> None:
        with self._lock:
            if self._state in (START_PENDING, RUNNING):
                self._state = STOP_PENDING
                self._deadline = time.perf_counter() + self._stop_limit_s
                self._report()

    def stopped(self, own_code: int = 0) -> None:
        with self._lock:
            if self._state != STOPPED:
                self._state = STOPPED
                self._report(own_code)
        self._ended.set()

    def _dispatch(self) -> None:
        """Lend this thread to the control manager, until the service has stopped."""
        table = (_Entry * 2)(_Entry(self._name, self._main), _Entry())
        if not _advapi.StartServiceCtrlDispatcherW(table):
            self._refusal = error_of(ctypes.get_last_error())
            self._called.set()

    def _run(self, count: int, arguments: int | None) -> None:
        """Wait until the service has stopped. The control manager calls this in a thread that it makes."""
        del count, arguments
        self._handle = _advapi.RegisterServiceCtrlHandlerExW(self._name, self._handler, None)
        if not self._handle:
            self._refusal = error_of(ctypes.get_last_error())
        else:
            with self._lock:
                self._report()
        self._called.set()
        self._ended.wait()

    def _control(self, control: int, kind: int, data: int | None, context: int | None) -> int:
        """Take a request of the control manager, which waits for the answer."""
        del kind, data, context
        if reason := _REASONS.get(control):
            self.stopping()
            self._on_control(reason)
            return _DONE
        return _DONE if control == _INTERROGATE else _NOT_IMPLEMENTED

    def _pulse(self) -> None:
        while not self._ended.wait(_PULSE_S):
            late = False
            with self._lock:
                if self._state in (START_PENDING, STOP_PENDING):
                    late = time.perf_counter() > self._deadline
                    self._report()
            if late:
                what = "stopped" if self._state == STOP_PENDING else "got ready"
                self._on_late(f"the service has not {what} in time")
                return

    def _report(self, own_code: int = 0) -> None:
        is_pending = self._state in (START_PENDING, STOP_PENDING)
        self._checkpoint = self._checkpoint + 1 if is_pending else 0
        status = Status(
            kind=_OWN_PROCESS,
            state=self._state,
            accepted=_ACCEPT_STOP | _ACCEPT_PRESHUTDOWN if self._state == RUNNING else 0,
            exit_code=_SPECIFIC_ERROR if own_code else 0,
            own_code=own_code,
            checkpoint=self._checkpoint,
            wait_hint_ms=round(_HINT_S * 1000) if is_pending else 0,
        )
        _advapi.SetServiceStatus(self._handle, byref(status))
