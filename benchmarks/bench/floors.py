"""The floors: servers that only move bytes. `python -m bench.floors raw|relay DIRECTORY`.

    raw     writes everything that the producer sends to the socket of every subscriber, the least a server can do
    relay   keeps the producer's frames in a list, and sends each subscriber a gRPC stream of all frames after its
    place,
            joined into messages: a gateway without numbers, limits, sessions and identities

When it is ready, it prints one JSON line with the address for the producer and the address for subscribers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import uvloop

from mxgw_core.events.encoding import events_prefix
from mxgw_worker.ipc.framing import FrameDecoder

from bench.window import EVENTS

BATCH_BYTES = 512 * 1024
FRAME_BYTES = 4 * 1024 * 1024
# More bytes than a producer can be ahead of the slowest reader.
KEPT_BYTES = 2 * EVENTS * 120
# An empty StreamOpened, which says that the subscriber is attached.
OPENED = b"\x0a\x00"


class Copy(asyncio.Protocol):
    """One connection of the raw floor. Bytes that arrive on one connection are written to all others."""

    def __init__(self, everyone: set[asyncio.Transport]) -> None:
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._everyone.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._everyone.discard(cast("asyncio.Transport", self._transport))

    def data_received(self, data: bytes) -> None:
        for transport in self._everyone:
            if transport is not self._transport:
                transport.write(data)


class RecentBlocks(asyncio.Protocol):
    """The last blocks of a producer, and the message that readers at the same place get together."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder(FRAME_BYTES)
        self._blocks: list[bytes] = []
        self._first = 0
        self._kept_bytes = 0
        self._arrived = asyncio.Event()
        self._joined: tuple[int, int, bytes] = (-1, 0, b"")

    def connection_made(self, _: asyncio.BaseTransport) -> None:
        self._decoder = FrameDecoder(FRAME_BYTES)
        self._blocks, self._first, self._kept_bytes, self._joined = [], 0, 0, (-1, 0, b"")

    def data_received(self, data: bytes) -> None:
        if blocks := self._decoder.feed(data):
            self._blocks += blocks
            self._kept_bytes += sum(map(len, blocks))
            if self._kept_bytes > 2 * KEPT_BYTES:
                self._forget()
            self._arrived.set()
            self._arrived = asyncio.Event()

    def _forget(self) -> None:
        count = 0
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._blocks[count])
            count += 1
        del self._blocks[:count]
        self._first += count

    async def messages(self) -> AsyncIterator[bytes]:
        cursor = self._first + len(self._blocks)
        while True:
            if cursor >= self._first + len(self._blocks):
                await self._arrived.wait()
                continue
            if self._joined[0] != cursor:
                self._joined = self._join(cursor)
            _, cursor, message = self._joined
            yield message

    def _join(self, cursor: int) -> tuple[int, int, bytes]:
        size, until = 0, cursor - self._first
        while until < len(self._blocks) and (not size or size + len(self._blocks[until]) <= BATCH_BYTES):
            size += len(self._blocks[until])
            until += 1
        message = b"".join((events_prefix(size), *self._blocks[cursor - self._first : until]))
        return cursor, self._first + until, message


class Handler(grpc.GenericRpcHandler):
    """Serves the stream `/bench/relay`, whose requests and messages are plain bytes."""

    def __init__(self, blocks: RecentBlocks) -> None:
        self._blocks = blocks

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_stream_rpc_method_handler(self._relay)

    async def _relay(self, _: bytes, context: grpc.aio.ServicerContext) -> None:
        messages = self._blocks.messages()
        await context.write(OPENED)
        async for message in messages:
            await context.write(message)


async def raw(_: Path) -> None:
    everyone: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Copy(everyone), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps({"addresses": [address], "source": address}), flush=True)
    await server.serve_forever()


async def relay(directory: Path) -> None:
    blocks = RecentBlocks()
    path = directory / "source.sock"
    # The variable keeps a reference to the server. Without it Python would collect the server, and it would stop
    # listening.
    source = await asyncio.get_running_loop().create_unix_server(lambda: blocks, str(path))
    server = grpc.aio.server(options=[("grpc.max_send_message_length", FRAME_BYTES)])
    server.add_generic_rpc_handlers([Handler(blocks)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"addresses": [f"127.0.0.1:{port}"], "source": f"unix:{path}"}), flush=True)
    await server.wait_for_termination()
    source.close()


if __name__ == "__main__":
    uvloop.run({"raw": raw, "relay": relay}[sys.argv[1]](Path(sys.argv[2])))
