"""The parts of asyncio's proactor event loop that are not public: waiting for handles, and own handles of named pipes.

Python offers no public way to give a pipe of asyncio an access list, or to wait for a process that is no child. The
parts in use are the same in Python 3.11 to 3.14. Where one is missing, OSError is raised with a text that says so.
`self_test` uses all of them; nothing else in mxgw touches private parts of asyncio.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

assert sys.platform == "win32"

from mxgw_worker.platform.windows import security, winapi
from mxgw_worker.platform.windows.winapi import SecurityAttributes

# The system can look at a handle for a moment after the wait for it was cancelled. So the handle is closed later.
_CLOSED_AFTER_S = 1.0

_TEST_S = 10.0


class Pipe:
    """The handle of one end of a named pipe, as asyncio wants it. `close` closes it."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def fileno(self) -> int:
        """Return the handle.

        Raises:
            ValueError: it is closed.
        """
        if self._handle is None:
            raise ValueError("the pipe is closed")
        return self._handle

    def client(self) -> int | None:
        """Return the process id of the client at the other end; None when it is unknown."""
        return winapi.pipe_client(self._handle) if self._handle is not None else None

    def close(self) -> None:
        """Close the handle."""
        handle, self._handle = self._handle, None
        if handle is not None:
            winapi.close(handle)


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
            self._future = _private(_private(self._loop, "_proactor"), "wait_for_handle")(self.handle)
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
    proactor = _private(asyncio.get_running_loop(), "_proactor")
    accepting: asyncio.Future[Any] = _private(proactor, "accept_pipe")(pipe)
    return accepting


def serve(pipe: Pipe, protocol: asyncio.Protocol) -> None:
    """Let `protocol` use a connected pipe, which its transport closes."""
    _private(asyncio.get_running_loop(), "_make_duplex_pipe_transport")(pipe, protocol, extra={"pipe": pipe})


def client_of(transport: asyncio.BaseTransport) -> int | None:
    """Return the process id of the client at the other end of an accepted pipe; None when it is unknown."""
    pipe = transport.get_extra_info("pipe")
    return pipe.client() if isinstance(pipe, Pipe) else None


def _private(owner: object, name: str) -> Any:
    part = getattr(owner, name, None)
    if part is None:
        raise _unfit(f"{type(owner).__name__} has no {name}")
    return part


def _unfit(why: object) -> OSError:
    version = ".".join(map(str, sys.version_info[:3]))
    return OSError(
        errno.ENOSYS,
        f"asyncio of Python {version} is not as mxgw needs it ({why}): run mxgw with Python 3.11 to 3.14 and without "
        "another event loop",
    )


async def self_test() -> None:
    """Wait for an event, and send a byte through a named pipe, with the private parts of asyncio.

    Raises:
        OSError: this Python's asyncio is not as needed, or the system refused; the text says what to do.
    """
    try:
        async with asyncio.timeout(_TEST_S):
            await _wait_for_event()
            await _use_pipe()
    except TimeoutError as error:
        raise _unfit(f"nothing happened within {_TEST_S:g} s") from error
    except OSError:
        raise
    # Parts that are not public can change in any way, and the texts of the errors would explain nothing to a user.
    except Exception as error:
        raise _unfit(f"{type(error).__name__}: {error}") from error


async def _wait_for_event() -> None:
    # Completed when the event is signalled.
    signalled = asyncio.get_running_loop().create_future()
    wait = HandleWait(winapi.create_event(SecurityAttributes()), lambda: signalled.set_result(None))
    try:
        winapi.set_event(wait.handle)
        await signalled
    finally:
        wait.close()


class _TestedEnd(asyncio.Protocol):
    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        loop = asyncio.get_running_loop()
        # Completed when something has arrived, and when the pipe is closed.
        self.received: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self.received.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.lost.set_result(None)


async def _use_pipe() -> None:
    name = rf"\\.\pipe\mxgw-test-{os.getpid()}-{os.urandom(8).hex()}"
    with security.attributes(security.owner_only()) as attributes:
        ours = Pipe(winapi.create_pipe(name, attributes, is_first=True))
    try:
        accepting = accept(ours)
        access = winapi.GENERIC_READ | winapi.GENERIC_WRITE
        theirs = Pipe(winapi.create_file(name, access, share=0, flags=winapi.FLAG_OVERLAPPED))
    except BaseException:
        ours.close()
        raise
    await accepting
    ends = _TestedEnd(b"1"), _TestedEnd(b"")
    for pipe, end in zip((ours, theirs), ends, strict=True):
        serve(pipe, end)
    await ends[1].received
    for end in ends:
        end.transport.abort()
        await end.lost
