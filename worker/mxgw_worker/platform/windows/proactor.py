"""The parts of asyncio's proactor event loop that are not public: waiting for handles, and own handles of named pipes.

Python offers no public way to give a pipe of asyncio an access list, or to wait for a process that is no child. The
parts in use are the same in Python 3.11 to 3.14. `self_test` finds out whether this Python still has them; nothing else
in mxgw touches private parts of asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import windows_utils
from collections.abc import Callable
from typing import Any

assert sys.platform == "win32"

from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.winapi import SecurityAttributes

# The system can look at a handle for a moment after the wait for it was cancelled. So the handle is closed later.
_CLOSED_AFTER_S = 1.0

Pipe = windows_utils.PipeHandle


class HandleWait:
    """Calls `on_signalled` in the event loop when a process ends or an event is signalled.

    `close` cancels the wait, and closes the handle. The handle belongs to this object from now on.
    """

    def __init__(self, handle: int, on_signalled: Callable[[], None]) -> None:
        self.handle = handle
        self._loop = asyncio.get_running_loop()
        self._on_signalled = on_signalled
        self._is_closed = False
        self._future: asyncio.Future[Any] | None = None
        self.again()

    def again(self) -> None:
        """Wait for the next signal of an event, which must have been reset."""
        if not self._is_closed:
            # Completed by the proactor when the handle is signalled.
            self._future = _proactor(self._loop).wait_for_handle(self.handle)
            self._future.add_done_callback(self._done)

    def close(self) -> None:
        """Cancel the wait and close the handle. `on_signalled` is not called any more."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._future is None or self._loop.is_closed():  # a loop that is closed has cancelled its waits
            winapi.close(self.handle)
        else:
            self._future.cancel()
            self._loop.call_later(_CLOSED_AFTER_S, winapi.close, self.handle)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._future = None
        if not future.cancelled() and not self._is_closed:
            self._on_signalled()


def accept(pipe: Pipe) -> asyncio.Future[Any]:
    """Return a future that is completed when a client has connected to this instance of a named pipe."""
    accepting: asyncio.Future[Any] = _proactor(asyncio.get_running_loop()).accept_pipe(pipe)
    return accepting


def serve(pipe: Pipe, protocol: asyncio.Protocol) -> None:
    """Let `protocol` use a connected pipe, which its transport closes."""
    loop: Any = asyncio.get_running_loop()
    loop._make_duplex_pipe_transport(pipe, protocol, extra={"pipe": pipe})


def client_of(transport: asyncio.BaseTransport) -> int | None:
    """Return the process id of the client at the other end of an accepted pipe; None when it is unknown."""
    pipe = transport.get_extra_info("pipe")
    return winapi.pipe_client(pipe.handle) if pipe is not None and pipe.handle is not None else None


def _proactor(loop: asyncio.AbstractEventLoop) -> Any:
    return getattr(loop, "_proactor", None)


async def self_test() -> None:
    """Wait for an event with the private parts of asyncio, and look for the other parts that are used.

    Raises:
        OSError: this Python's asyncio does not have what is needed; the text says what to do.
    """
    loop = asyncio.get_running_loop()
    try:
        signalled = loop.create_future()
        wait = HandleWait(winapi.create_event(SecurityAttributes()), lambda: signalled.set_result(None))
        winapi.set_event(wait.handle)
        async with asyncio.timeout(10):
            await signalled
        wait.close()
        for name in ("wait_for_handle", "accept_pipe"):
            getattr(_proactor(loop), name)
        getattr(loop, "_make_duplex_pipe_transport")  # noqa: B009  mypy does not know it
    except (AttributeError, TypeError, TimeoutError) as error:
        version = ".".join(map(str, sys.version_info[:3]))
        raise OSError(
            f"asyncio of Python {version} cannot wait for processes as mxgw needs it ({error}): run mxgw with "
            "Python 3.11 to 3.14 and without another event loop"
        ) from error
