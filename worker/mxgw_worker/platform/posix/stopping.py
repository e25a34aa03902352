"""Requests to stop, on POSIX systems: SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

assert sys.platform != "win32"

from mxgw_worker.platform.shared import StopKind, StopRequest

_KINDS = {signal.SIGINT: StopKind.INTERRUPT, signal.SIGTERM: StopKind.TERMINATE}


def on_stop(callback: Callable[[StopRequest], None], *kinds: StopKind) -> Callable[[], None]:
    """Call `callback` in the event loop at each request of these kinds; return a function that ends this.

    Call it in the main thread, in the event loop.
    """
    loop = asyncio.get_running_loop()
    numbers = [number for number, kind in _KINDS.items() if kind in kinds]
    for number in numbers:
        loop.add_signal_handler(number, callback, StopRequest(_KINDS[number], number.name, 128 + number))

    def undo() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    return undo


def at_stop(callback: Callable[[StopRequest], None]) -> None:
    """Call `callback` at each request to stop until this process ends, also while the main thread is blocked.

    The callback interrupts the main thread anywhere, also while it holds a lock or writes to a stream, or runs in
    another thread. So it must wait for no lock and use no stream of Python. Call this in the main thread.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        request = signal.Signals(number)
        callback(StopRequest(_KINDS[request], request.name, 128 + number))

    for number in _KINDS:
        signal.signal(number, stop)


@contextmanager
def raising_at_stop(error: BaseException) -> Iterator[None]:
    """At the first request to terminate raise `error` in the main thread, inside the block; ignore later requests.

    It is for code without an event loop. Use it in the main thread only.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise error

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process. Call it in the main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stop_this_process() -> None:
    """Ask this process to stop, as another program would. Any thread can call this."""
    os.kill(os.getpid(), signal.SIGTERM)


def kill_this_process() -> None:
    """End this process at once, as if it had been killed."""
    os.kill(os.getpid(), signal.SIGKILL)
