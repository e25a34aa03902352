"""A scripted worker: the other end of a worker endpoint, which sends exactly what a test tells it to send."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from mxgw.worker.v1 import worker_pb2 as w
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.ipc.handshake import WorkerHandshake
from mxgw_worker.platform import EndpointAddress
from support.events import EPOCH, batch

SESSION = "session-under-test"
SECRET = bytes(range(32))
_TIMEOUT_S = 60.0


class ScriptedWorker:
    """One connection to a worker endpoint. Every wait ends after at most 10 s."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._decoder = FrameDecoder(16 * 1024 * 1024)
        self._received: list[w.WorkerEnvelope] = []

    def send(self, *envelopes: w.WorkerEnvelope) -> None:
        """Send messages in one write."""
        self.writer.write(b"".join(frame(envelope.SerializeToString()) for envelope in envelopes))

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self.writer.write(data)

    async def receive(self) -> w.WorkerEnvelope | None:
        """Return the next message; None when the connection has ended."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not self._received:
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._received += [w.WorkerEnvelope.FromString(payload) for payload in self._decoder.feed(data)]
        return self._received.pop(0)

    async def receive_kind(self, kind: str) -> w.WorkerEnvelope:
        """Skip messages of other kinds, and return the next message of this kind."""
        while (envelope := await self.receive()) is not None:
            if envelope.WhichOneof("body") == kind:
                return envelope
        raise AssertionError(f"the connection ended without a {kind}")

    async def refusal(self) -> str:
        """Return the reason of the Reject that comes next, and assert that the connection ends after it."""
        envelope = await self.receive()

        assert envelope is not None, "the connection ended without a Reject"
        assert envelope.WhichOneof("body") == "reject", envelope
        assert await self.receive() is None

        return envelope.reject.reason

    async def ended(self) -> None:
        """Wait for the end of the connection, and ignore all messages before it."""
        while await self.receive() is not None:
            pass

    async def shake(
        self,
        *,
        session_id: str = SESSION,
        secret: bytes = SECRET,
        epoch: bytes = EPOCH,
        pid: int | None = None,
        start_ticks: int = 0,
        head: int = 0,
        oldest: int = 1,
    ) -> w.Welcome:
        """Carry out the handshake like a real worker, and return the Welcome."""
        handshake = WorkerHandshake(
            session_id=session_id, secret=secret, epoch=epoch, pid=pid or os.getpid(), start_ticks=start_ticks
        )
        self.send(w.WorkerEnvelope(hello=handshake.hello(head, oldest)))
        challenge = await self.receive_kind("challenge")
        self.send(w.WorkerEnvelope(proof=handshake.on_challenge(challenge.challenge)))
        welcome = await self.receive_kind("welcome")
        handshake.on_welcome(welcome.welcome)
        return welcome.welcome

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def scripted_worker(path: Path) -> AsyncIterator[ScriptedWorker]:
    """Connect to a worker endpoint."""
    reader = asyncio.StreamReader()
    made: asyncio.Future[asyncio.BaseTransport] = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.StreamReaderProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.set_result(transport)

    address = EndpointAddress(str(path))
    protocol = Protocol(reader)
    try:
        await address.connect(lambda: protocol)
    finally:
        address.close()
    transport = cast("asyncio.WriteTransport", await made)
    worker = ScriptedWorker(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))
    try:
        yield worker
    finally:
        await worker.close()


def block(first: int, last: int, events: bytes | None = None) -> w.WorkerEnvelope:
    """Return a message with a block of events."""
    data = batch(range(first, last + 1)) if events is None else events
    return w.WorkerEnvelope(events=w.EventBlock(first_sequence=first, last_sequence=last, events=data))


def gap(first: int, last: int, *, reason: int = 5) -> w.WorkerEnvelope:
    """Return a message that reports these sequences as lost."""
    return w.WorkerEnvelope(gap=w.WorkerGap(first_lost=first, last_lost=last, reason=reason))  # type: ignore[arg-type]
