"""Requests to stop, on Windows: Ctrl-C, Ctrl-Break, and the stop event of the process (`stop_events`)."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

assert sys.platform == "win32"

from mxgw_worker.platform.shared import StopKind, StopRequest
from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.proactor import HandleWait
from mxgw_worker.platform.windows.processes import KILLED
from mxgw_worker.platform.windows.stop_events import create_stop_event, own_stop_event

log = logging.getLogger(__name__)

_KEYS = {
    signal.SIGINT: StopRequest(StopKind.INTERRUPT, "Ctrl-C", 130),
    signal.SIGBREAK: StopRequest(StopKind.TERMINATE, "Ctrl-Break", 143),
}
_EVENT = StopRequest(StopKind.TERMINATE, "stop request", 143)
_NO_EVENT = "other processes cannot ask this one to stop: %s"
# For how long a thread waits for the stop event before it waits again.
_LISTEN_S = 3600.0


def on_stop(callback: Callable[[StopRequest], None], *kinds: StopKind) -> Callable[[], None]:
    """Call `callback` in the event loop at each request of these kinds; return a function that ends this.

    Call it in the event loop. Outside the main thread, for example in a service, keys are not listened to.
    """
    loop = asyncio.get_running_loop()
    undone = contextlib.ExitStack()
    if threading.current_thread() is threading.main_thread():
        for number, request in _KEYS.items():
            if request.kind in kinds:
                _listen_to_key(loop, number, request, callback, undone)
    if StopKind.TERMINATE in kinds:
        _listen_to_event(callback, undone)
    return undone.close


def _listen_to_key(
    loop: asyncio.AbstractEventLoop,
    number: signal.Signals,
    request: StopRequest,
    callback: Callable[[StopRequest], None],
    undone: contextlib.ExitStack,
) -> None:
    def pressed(_number: int, _frame: FrameType | None) -> None:
        if loop.is_closed():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(callback, request)

    undone.callback(signal.signal, number, signal.getsignal(number))
    signal.signal(number, pressed)


def _listen_to_event(callback: Callable[[StopRequest], None], undone: contextlib.ExitStack) -> None:
    def signalled() -> None:
        winapi.reset_event(wait.handle)
        wait.again()
        callback(_EVENT)

    try:
        event = create_stop_event()
    except OSError as error:
        log.warning(_NO_EVENT, error)
        return
    wait = HandleWait(event, signalled)
    undone.callback(wait.close)


def at_stop(callback: Callable[[StopRequest], None]) -> None:
    """Call `callback` at each request to stop until this process ends, also while the main thread is blocked.

    The callback interrupts the main thread anywhere, also while it holds a lock or writes to a stream, or runs in
    another thread. So it must wait for no lock and use no stream of Python. Call this in the main thread.
    """

    def pressed(number: int, frame: FrameType | None) -> None:
        del frame
        callback(_KEYS[signal.Signals(number)])

    def listen(event: int) -> None:
        while True:
            if winapi.is_signalled(event, _LISTEN_S):
                winapi.reset_event(event)
                callback(_EVENT)

    for number in _KEYS:
        signal.signal(number, pressed)
    try:
        event = create_stop_event()
    except OSError as error:
        log.warning(_NO_EVENT, error)
        return
    threading.Thread(target=listen, args=(event,), name="stop-event", daemon=True).start()


@contextmanager
def raising_at_stop(error: BaseException) -> Iterator[None]:
    """At the first request to terminate raise `error` in the main thread, inside the block; ignore later requests.

    It is for code without an event loop. Use it in the main thread only.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise error

    def listen(event: int) -> None:
        while not has_left.is_set():
            if winapi.is_signalled(event, 0.2) and not has_left.is_set():
                _thread.interrupt_main(signal.SIGBREAK)
                return

    before = signal.signal(signal.SIGBREAK, stop)
    has_left = threading.Event()
    listener: threading.Thread | None = None
    event = 0
    with contextlib.suppress(OSError):
        event = create_stop_event()
        listener = threading.Thread(target=listen, args=(event,), name="stop-event", daemon=True)
        listener.start()
    try:
        yield
    finally:
        has_left.set()
        signal.signal(signal.SIGBREAK, before)
        if listener is not None:
            listener.join()
            winapi.close(event)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process. Call it in the main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stop_this_process() -> None:
    """Ask this process to stop, as another program would. Any thread can call this."""
    if not winapi.signal_named_event(own_stop_event()):
        os._exit(_EVENT.exit_code)  # nothing listens yet, so there is nothing to put in order either


def kill_this_process() -> None:
    """End this process at once, as if it had been killed."""
    winapi.terminate(winapi.this_process(), KILLED)
