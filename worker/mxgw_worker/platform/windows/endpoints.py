"""Named pipes: the endpoints to which workers connect. There are no Unix sockets for clients on Windows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.shared import PeerCredentials
from mxgw_worker.platform.windows import proactor, security, winapi
from mxgw_worker.platform.windows.event_loop import EventLoop
from mxgw_worker.platform.windows.files import id_of

log = logging.getLogger(__name__)

# The longest path of a Unix socket. None on a platform where the gateway uses no Unix sockets.
SOCKET_PATH_BYTES: int | None = None

# While the gateway makes the next instance of its pipe, the pipe is busy for a moment: how long to wait before the next
# attempt to connect, and after how many attempts to give up.
_BUSY_S, _BUSY_ATTEMPTS = 0.01, 200


def event_loop_class() -> type[asyncio.AbstractEventLoop]:
    """Return the class of asyncio's own event loop that can use the endpoints and wait for processes."""
    return EventLoop


async def self_test() -> None:
    """Make sure that the running event loop can do what this package needs from it.

    Raises:
        OSError: it cannot; the text says what to do.
    """
    await proactor.self_test()


def endpoint_in(directory: Path, name: str) -> Path:
    """Return the endpoint with this short name. `directory` is the private directory for endpoints.

    Names of pipes are common to the whole machine, so the name contains a hash of the directory: of the number that its
    file system gave to it, which is the same after the directory was moved.
    """
    try:
        place = id_of(directory)
    except OSError:
        place = os.path.normcase(directory)
    return Path(rf"\\.\pipe\mxgw-{hashlib.sha256(place.encode()).hexdigest()[:12]}-{name}")


class Listener:
    """Accepts connections at an endpoint: a named pipe that only the present user can connect to.

    `remove` is not used, because a pipe has no file.
    """

    def __init__(self, endpoint: Path, remove: Callable[[Path], None]) -> None:
        del remove
        self._name = str(endpoint)
        # The instance of the pipe to which the next client connects; None before `listen` and after `close`.
        self._waiting: proactor.Pipe | None = None
        # Completed by the proactor when a client has connected to the instance.
        self._accepting: asyncio.Future[object] | None = None
        self._make_protocol: Callable[[], asyncio.Protocol] | None = None

    async def listen(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Begin to accept connections.

        Raises:
            OSError: the endpoint cannot be created.
        """
        self._make_protocol = make_protocol
        self._wait_for_client(is_first=True)

    def close(self) -> None:
        """Accept no more connections, and remove the endpoint. Accepted connections stay open."""
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.cancel()
        pipe, self._waiting = self._waiting, None
        if pipe is not None:
            pipe.close()

    def _wait_for_client(self, *, is_first: bool = False) -> None:
        with security.attributes(security.owner_only()) as attributes:
            pipe = self._waiting = proactor.Pipe(winapi.create_pipe(self._name, attributes, is_first=is_first))
        try:
            self._accepting = _accept(pipe)
        except OSError:
            self.close()
            raise
        self._accepting.add_done_callback(self._accepted)

    def _accepted(self, accepting: asyncio.Future[object]) -> None:
        if accepting is not self._accepting:
            return  # `close` was called
        pipe, make_protocol = self._waiting, self._make_protocol
        self._waiting = self._accepting = None
        assert pipe is not None
        assert make_protocol is not None
        try:
            # The next instance is made first: as long as there is one, nobody else can make a pipe of this name.
            self._wait_for_client()
        except OSError:
            log.exception("the pipe %s accepts no more connections", self._name)
        if accepting.cancelled() or accepting.exception() is not None:
            pipe.close()  # the client has gone already
        else:
            proactor.serve(pipe, make_protocol())


def _accept(pipe: proactor.Pipe) -> asyncio.Future[object]:
    while True:
        try:
            return proactor.accept(pipe)
        except BrokenPipeError:
            # A client has connected since the instance was made, and has left already.
            winapi.disconnect_pipe(pipe.fileno())


class EndpointAddress:
    """The endpoint of a gateway, as a worker sees it. `close` does nothing, because the name of a pipe cannot move."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    @property
    def path(self) -> str:
        """The path to use for connecting now."""
        return self._endpoint

    async def connect(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect to the gateway.

        The process that made the pipe can learn which user the worker runs as, but cannot act as this user
        (identification level). Names of pipes belong to nobody: while no gateway runs, another user can make a pipe of
        this name. Such a pipe is refused before anything is sent.

        Raises:
            OSError: no gateway of this user listens at the endpoint.
        """
        access = winapi.GENERIC_READ | winapi.GENERIC_WRITE
        flags = winapi.FLAG_OVERLAPPED | winapi.SECURITY_IDENTIFICATION
        for attempt in range(_BUSY_ATTEMPTS):
            try:
                handle = winapi.create_file(self._endpoint, access, share=0, flags=flags)
            except OSError as error:
                if error.winerror != winapi.ERROR_PIPE_BUSY or attempt == _BUSY_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_BUSY_S)
            else:
                pipe = proactor.Pipe(handle)
                if security.owner_of(handle, security.KERNEL_OBJECT) != security.current_user():
                    pipe.close()
                    raise winapi.error_of(winapi.ERROR_ACCESS_DENIED, self._endpoint)
                proactor.serve(pipe, make_protocol())
                return

    def close(self) -> None:
        """Do nothing."""


def peer_credentials(transport: asyncio.BaseTransport) -> PeerCredentials:
    """Return process id and user of the peer of an accepted connection."""
    pid = proactor.client_of(transport)
    same_user = False
    if pid is not None:
        with contextlib.suppress(OSError):  # a process that this one is not allowed to look at is another user's
            process = winapi.open_process(pid, winapi.PROCESS_QUERY_LIMITED_INFORMATION)
            try:
                same_user = security.user_of_process(process) == security.current_user()
            finally:
                winapi.close(process)
    return PeerCredentials(pid, None, same_user=same_user)


def claim_port(probe: socket.socket) -> None:
    """Set the options with which a TCP socket can be bound only when no other process listens on its address.

    Call it before the socket is bound.
    """
    # With SO_REUSEADDR, Windows would let this socket take the port away from the process that listens there.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)


def no_unix_sockets() -> str:
    """Return why the gateway cannot serve clients on a Unix socket here, as a sentence; "" when it can."""
    return "mxgw has no Unix sockets on Windows: use a port of this machine, for example 127.0.0.1:50051"


def unix_socket_answers(path: Path) -> bool:
    """Return whether a process listens on the Unix socket; False when it was left behind or does not exist.

    Raises:
        OSError: this cannot be found out.
    """
    raise OSError(errno.EAFNOSUPPORT, no_unix_sockets(), str(path))


def try_unix_socket(path: Path) -> None:
    """Make a Unix socket and remove it again, to find out whether this is possible.

    Raises:
        OSError: it is not possible.
    """
    raise OSError(errno.EAFNOSUPPORT, no_unix_sockets(), str(path))


@contextmanager
def private_sockets() -> Iterator[None]:
    """Let every file and socket that is created during the block be private from the moment it exists."""
    yield
