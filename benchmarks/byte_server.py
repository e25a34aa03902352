"""What the gateway is compared with, two gRPC servers that do nothing but move bytes:

relay   frames from a producer's socket into a list, joined into one message per write: the gateway without everything
        that makes it one (numbers, log, limits, sessions, identity);
raw     one message made beforehand, written again and again: the most gRPC can do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import uvloop

from mxgw_core.events.records import events_prefix
from mxgw_worker.ipc.framing import FrameDecoder, frame

from premade import BURST_BLOCKS, Premade
from window import EVENTS, Window

BATCH_BYTES = 512 * 1024
FRAME_BYTES = 4 * 1024 * 1024


class Ring(asyncio.Protocol):
    """Takes frames of records; one reader takes all there is, up to a message."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder(FRAME_BYTES)
        self._blocks: list[bytes] = []
        self._arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        blocks = self._decoder.feed(data)
        if blocks:
            self._blocks += blocks
            self._arrived.set()

    async def messages(self) -> AsyncIterator[bytes]:
        while True:
            await self._arrived.wait()
            size, taken = 0, 0
            for block in self._blocks:
                if taken and size + len(block) > BATCH_BYTES:
                    break
                size += len(block)
                taken += 1
            message = b"".join((events_prefix(size), *self._blocks[:taken]))
            del self._blocks[:taken]
            if not self._blocks:
                self._arrived.clear()
            yield message


class Handler(grpc.GenericRpcHandler):
    """`/bench/relay` and `/bench/raw`; the request of `raw` is the size of a message as text."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        serve = self._relay if details.method == "/bench/relay" else self._raw
        return grpc.unary_stream_rpc_method_handler(serve)

    async def _relay(self, _: bytes, context: grpc.aio.ServicerContext) -> None:
        ring = Ring()
        # Each reader has a producer of its own.
        path = str(self._directory / f"{next(self._numbers)}.sock")
        server = await asyncio.get_running_loop().create_unix_server(lambda: ring, path)
        producer = await asyncio.create_subprocess_exec(sys.executable, __file__, "produce", path)
        try:
            async for message in ring.messages():
                await context.write(message)
        finally:
            producer.kill()
            await producer.wait()
            server.close()

    async def _raw(self, request: bytes, context: grpc.aio.ServicerContext) -> None:
        _, _, records = Premade().block(1)
        body = records * max(1, int(request) // len(records))
        message = events_prefix(len(body)) + body
        while True:
            await context.write(message)


async def serve(directory: Path) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=[("grpc.max_send_message_length", FRAME_BYTES)])
    server.add_generic_rpc_handlers([Handler(directory)])
    address = f"unix:{directory}/b.sock"
    server.add_insecure_port(address)
    await server.start()
    print(json.dumps({"addresses": [address]}), flush=True)
    await server.wait_for_termination()


def produce(path: str) -> None:
    """Send blocks made beforehand, as far ahead of the reader as the window allows."""
    window, premade, number = Window.named(), Premade(), 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        while True:
            burst: list[bytes] = []
            for _ in range(BURST_BLOCKS):
                _, last, records = premade.block(number)
                burst.append(frame(records))
                number += 1
            connection.sendall(b"".join(burst))
            while last > window.sequence + EVENTS:
                time.sleep(0.001)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        produce(sys.argv[2])
    else:
        uvloop.run(serve(Path(sys.argv[2])))
