"""A relay between client and gateway that breaks connections in the ways in which networks break them.

Clients connect over TCP, so that a connection can be reset. A fault
breaks the connections that exist at that moment. Later connections work.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_CHUNK_BYTES = 64 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[str], Awaitable[Streams]]


async def connect_tcp(upstream: str) -> Streams:
    """Open a connection to `host:port`."""
    host, _, port = upstream.rpartition(":")
    return await asyncio.open_connection(host, int(port))


class Connection:
    """One relayed connection."""

    def __init__(self, client: Streams, gateway: Streams) -> None:
        self.client = client
        self.gateway = gateway
        self.relayed_bytes = 0
        # Cleared while the relay passes no data on.
        self.passes = asyncio.Event()
        self.passes.set()
        # How many more bytes to the client the relay passes before it ends the connection in the middle of a message;
        # None for no end.
        self.left_bytes: int | None = None
        self.is_dead = False

    def abort(self, *, reset: bool) -> None:
        """End the connection to both sides at once. With `reset` the client gets an RST instead of a normal end."""
        self.is_dead = True
        writer = self.client[1]
        if reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        self.gateway[1].transport.abort()
        self.passes.set()


class FaultProxy:
    """A relay, made by `fault_proxy`. Clients connect to `target`."""

    def __init__(self, upstream: str, tasks: asyncio.TaskGroup, connect: Connect) -> None:
        self._upstream = upstream
        self._connect = connect
        self._tasks = tasks
        self._server: asyncio.Server | None = None
        self._has_stopped = False
        self.target = ""
        self.connections: set[Connection] = set()
        self.accepted = 0
        # How many seconds each piece of data is delayed, in each direction.
        self.latency_s = 0.0
        # True while new connections are refused.
        self.is_down = False
        # True while new connections are accepted and no data passes on them.
        self.hangs = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: Streams | None = None
        try:
            # The server can still accept a connection that came at the moment when the relay was stopped.
            if not self.is_down and not self._has_stopped:
                upstream = await self._connect(self._upstream)
        except OSError:
            pass
        finally:
            # When the connection to the gateway failed, this is the only place that closes the connection of the
            # client.
            if upstream is None:
                writer.transport.abort()
        if upstream is None:
            return
        connection = Connection((reader, writer), upstream)
        if self._has_stopped:
            connection.abort(reset=False)
            return
        self.accepted += 1
        self.connections.add(connection)
        if self.hangs:
            connection.passes.clear()
        up = self._tasks.create_task(self._relay(connection, reader, upstream[1], to_client=False))
        down = self._tasks.create_task(self._relay(connection, upstream[0], writer, to_client=True))
        for task in (up, down):
            task.add_done_callback(lambda _: self.connections.discard(connection))

    async def _relay(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.latency_s:
                    await asyncio.sleep(self.latency_s)
                await connection.passes.wait()
                if connection.is_dead:
                    return
                left = connection.left_bytes
                if to_client and left is not None:
                    connection.left_bytes = left - len(data)
                    if left <= len(data):
                        writer.write(data[:left])
                        await writer.drain()
                        break
                connection.relayed_bytes += len(data)
                writer.write(data)
                await writer.drain()
        # While the relay passes no data on, it does not pass on the end of a connection either.
        await connection.passes.wait()
        connection.is_dead = True
        for side in (connection.client[1], connection.gateway[1]):
            side.close()
        connection.passes.set()

    # Faults

    def reset(self) -> int:
        """Reset every connection with an RST, and return their number."""
        return self._on_each(lambda connection: connection.abort(reset=True))

    def half_open(self) -> int:
        """Stop passing data in both directions while both sides stay connected. Return the number of connections."""
        return self._on_each(lambda connection: connection.passes.clear())

    def cut_inside_a_message(self, after_bytes: int) -> int:
        """End every connection after so many more bytes to its client, at any place within a message.

        Return their number.
        """

        def cut(connection: Connection) -> None:
            connection.left_bytes = after_bytes

        return self._on_each(cut)

    def close_slowly(self, seconds: float) -> int:
        """Close the gateway's side of every connection now, and the client's side `seconds` later. Return their number.

        Until then the client gets no data.
        """

        def close(connection: Connection) -> None:
            connection.passes.clear()
            connection.gateway[1].transport.abort()
            asyncio.get_running_loop().call_later(seconds, lambda: connection.abort(reset=False))

        return self._on_each(close)

    def _on_each(self, fault: Callable[[Connection], object]) -> int:
        connections = tuple(self.connections)
        for connection in connections:
            fault(connection)
        return len(connections)

    async def stop(self) -> None:
        assert self._server is not None
        self._has_stopped = True
        self._server.close()
        for connection in tuple(self.connections):
            connection.abort(reset=False)


@asynccontextmanager
async def fault_proxy(upstream: str, connect: Connect = connect_tcp) -> AsyncIterator[FaultProxy]:
    """Relay connections to `upstream` during the block. `connect` opens a connection to it."""
    async with asyncio.TaskGroup() as tasks:
        proxy = FaultProxy(upstream, tasks, connect)
        await proxy.start()
        try:
            yield proxy
        finally:
            await proxy.stop()
