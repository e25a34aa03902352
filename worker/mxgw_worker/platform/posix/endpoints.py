"""Unix sockets: the endpoints to which workers connect, and sockets for clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform != "win32"

from mxgw_worker.platform.shared import PeerCredentials

# The longest path of a Unix socket. The struct sockaddr_un has room for 108 bytes on Linux, and for 104 bytes on BSD
# and macOS. The last byte is a zero. None on a platform where the gateway uses no Unix sockets.
# Source: unix(7), unix(4).
SOCKET_PATH_BYTES: int | None = 107 if sys.platform == "linux" else 103
_OPEN_FILES = Path("/proc/self/fd")
# The layout of struct ucred: pid, uid, gid. Source: unix(7).
_UCRED = struct.Struct("3i")
_SOCKET_MODE = 0o600


def event_loop_class() -> type[asyncio.AbstractEventLoop]:
    """Return the class of asyncio's own event loop that can use the endpoints and wait for processes."""
    return asyncio.SelectorEventLoop


async def self_test() -> None:
    """Make sure that the running event loop can do what this package needs from it.

    Raises:
        OSError: it cannot; the text says what to do.
    """


def endpoint_in(directory: Path, name: str) -> Path:
    """Return the endpoint with this short name. `directory` is the private directory for endpoints."""
    return directory / f"{name}.sock"


class Listener:
    """Accepts connections at an endpoint: a Unix socket that only the present user can connect to.

    `remove` removes the file of the socket; it must not raise an error.
    """

    def __init__(self, endpoint: Path, remove: Callable[[Path], None]) -> None:
        self._endpoint = endpoint
        self._remove = remove
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Begin to accept connections.

        Raises:
            OSError: the endpoint cannot be created.
        """
        self._endpoint.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(make_protocol, str(self._endpoint))
        self._endpoint.chmod(_SOCKET_MODE)

    def close(self) -> None:
        """Accept no more connections, and remove the endpoint. Accepted connections stay open."""
        if self._server is not None:
            self._server.close()
        self._remove(self._endpoint)


class EndpointAddress:
    """The endpoint of a gateway, as a worker sees it. The directory of the socket is kept open.

    `path` leads through the open directory, even after the directory was moved. While a worker keeps the directory
    open, no other directory can get the inode of this one. `close` closes the directory.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = Path(endpoint)
        self._fd: int | None = None
        # No error is raised here, because a later attempt to connect reports the problem.
        with contextlib.suppress(OSError):
            self._fd = os.open(self._endpoint.parent, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """The path to use for connecting now."""
        if self._fd is not None and (directory := _OPEN_FILES / str(self._fd)).exists():
            return str(directory / self._endpoint.name)
        return str(self._endpoint)

    async def connect(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect to the gateway.

        Raises:
            OSError: no gateway listens at the endpoint.
        """
        await asyncio.get_running_loop().create_unix_connection(make_protocol, self.path)

    def close(self) -> None:
        """Close the directory."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def peer_credentials(transport: asyncio.BaseTransport) -> PeerCredentials:
    """Return process id and user of the peer of an accepted connection."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return PeerCredentials(None, None, same_user=True)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return PeerCredentials(pid, uid, same_user=uid == os.getuid())


def claim_port(probe: socket.socket) -> None:
    """Set the options with which a TCP socket can be bound only when no other process listens on its address.

    Call it before the socket is bound.
    """
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that ended a moment ago is no listener


def no_unix_sockets() -> str:
    """Return why the gateway cannot serve clients on a Unix socket here, as a sentence; "" when it can."""
    return ""


def unix_socket_answers(path: Path) -> bool:
    """Return whether a process listens on the Unix socket; False when it was left behind or does not exist.

    Raises:
        OSError: this cannot be found out.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def try_unix_socket(path: Path) -> None:
    """Make a Unix socket and remove it again, to find out whether this is possible.

    Raises:
        OSError: it is not possible.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        path.unlink()


@contextmanager
def private_sockets() -> Iterator[None]:
    """Let every file and socket that is created during the block be private from the moment it exists."""
    umask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(umask)
