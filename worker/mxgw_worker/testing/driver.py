"""The gateway's side of a real worker process, for tests."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

from mxgw.v1.commands_pb2 import MxCommand, MxReply
from mxgw.v1.events_pb2 import Event, EventBatch
from mxgw.worker.v1.worker_pb2 import (
    CommandReply,
    CommandRequest,
    Hello,
    ItemRecord,
    Reject,
    WorkerEnvelope,
    WorkerStartup,
)
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, SECRET_BYTES, GatewayHandshake
from mxgw_worker.ipc.startup import write_startup
from mxgw_worker.platform import Listener, endpoint_in, start_child

# How long the worker may take for an answer, in seconds. A worker that is right needs much less, however busy the
# machine is.
_PATIENCE_S = 60.0


class WorkerGone(Exception):
    """The worker closed the connection."""


class WorkerDriver:
    """Starts a worker, accepts its connection and exchanges messages with it. `events` and `gaps` collect what the
    worker sends.
    """

    def __init__(self, startup: WorkerStartup, command: Sequence[str], log_path: Path) -> None:
        self.startup = startup
        self.secret = startup.secret
        self.hello: Hello | None = None
        self.events: list[Event] = []
        self.gaps: list[WorkerEnvelope] = []
        # The item records that were received, and the serials of events that came before the record of their item.
        self.records: list[ItemRecord] = []
        self.unreported_serials: list[int] = []
        self.blocks = 0
        # Correlation ids of replies that belong to no request of this connection.
        self.replies_nobody_asked_for: list[int] = []
        self.ready_detail = ""
        self.goodbye = ""
        self._command = command
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self._listener: Listener | None = None
        self._connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue(16)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._decoder = FrameDecoder(startup.maximum_frame_bytes)
        self._inbox: list[WorkerEnvelope] = []
        self._replies: dict[int, CommandReply] = {}
        self._asked: set[int] = set()
        self._correlation_id = 0

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The worker's process."""
        if self._process is None:
            raise RuntimeError("the worker is not started")
        return self._process

    @property
    def log(self) -> str:
        """The text that the worker has logged."""
        return self._log_path.read_text()

    async def listen(self) -> None:
        """Listen at the worker's endpoint."""
        self._listener = Listener(Path(self.startup.endpoint), lambda socket: socket.unlink(missing_ok=True))
        await self._listener.listen(self._make_protocol)

    async def stop_listening(self) -> None:
        """Close the socket and every connection, as happens when a gateway dies."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self.disconnect()

    async def disconnect(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._reader = None
        self._decoder = FrameDecoder(self.startup.maximum_frame_bytes)
        self._inbox.clear()
        self._asked.clear()

    async def start(self) -> None:
        """Start the process, and send it the start-up frame."""
        with self._log_path.open("wb") as log:
            self._process = await start_child(*self._command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log)
        buffer = BytesIO()
        write_startup(buffer, self.startup)
        stdin = self.process.stdin
        if stdin is not None:
            stdin.write(buffer.getvalue())
            stdin.close()

    async def accept(self) -> None:
        """Accept the worker's next connection. It takes the place of the connection before."""
        await self.disconnect()
        async with asyncio.timeout(_PATIENCE_S):
            self._reader, self._writer = await self._connections.get()

    async def shake_hands(self, resume_after: int | None = None) -> Hello:
        """Run the handshake, and keep the secret of the next handshake. The worker then sends all events in its outbox,
        or only those after the sequence `resume_after`.
        """
        handshake = GatewayHandshake(session_id=self.startup.session_id, secret=self.secret)
        hello = (await self.receive()).hello
        self.send(WorkerEnvelope(challenge=handshake.on_hello(hello)))
        proof = (await self.receive()).proof
        after = hello.outbox_oldest - 1 if resume_after is None else resume_after
        self.send(WorkerEnvelope(welcome=handshake.on_proof(proof, after)))
        self.secret = handshake.next_secret
        self.hello = hello
        return hello

    async def ready(self) -> str:
        """Wait for the Ready message. Return the name of the backend, or the error text when the backend could not
        start.
        """
        envelope = await self.receive()
        while envelope.WhichOneof("body") == "item_records":
            envelope = await self.receive()
        if envelope.WhichOneof("body") != "ready":
            raise AssertionError(f"expected Ready, got {envelope.WhichOneof('body')}")
        return envelope.ready.error or envelope.ready.backend

    async def reject(self, reason: str) -> None:
        """Refuse the connection that was accepted last."""
        self.send(WorkerEnvelope(reject=Reject(reason=reason, detail="by a test")))

    def send(self, envelope: WorkerEnvelope) -> None:
        """Send one message."""
        self.send_raw(frame(envelope.SerializeToString()))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, without a frame."""
        if self._writer is None:
            raise RuntimeError("there is no connection")
        self._writer.write(data)

    async def receive(self) -> WorkerEnvelope:
        """Return the next message. Events, gaps and replies are also collected.

        Raises:
            WorkerGone: the worker closed the connection.
        """
        reader = self._reader
        if reader is None:
            raise RuntimeError("there is no connection")
        while not self._inbox:
            async with asyncio.timeout(_PATIENCE_S):
                try:
                    data = await reader.read(65536)
                except ConnectionError:
                    data = b""
            if not data:
                raise WorkerGone
            for payload in self._decoder.feed(data):
                self._inbox.append(WorkerEnvelope.FromString(payload))
        envelope = self._inbox.pop(0)
        self._note(envelope)
        return envelope

    async def ask(self, request: CommandRequest) -> CommandReply:
        """Send a request and return its reply."""
        return await self.reply(self.request(request))

    def request(self, request: CommandRequest) -> int:
        """Send a request and return its correlation id."""
        self._correlation_id += 1
        self._asked.add(self._correlation_id)
        self.send(WorkerEnvelope(correlation_id=self._correlation_id, command=request))
        return self._correlation_id

    async def reply(self, correlation_id: int) -> CommandReply:
        """Wait for the reply of a request."""
        while correlation_id not in self._replies:
            await self.receive()
        return self._replies.pop(correlation_id)

    async def mx(self, command: MxCommand, timeout_ms: int = 60_000) -> MxReply:
        """Run an MXAccess command and return its reply."""
        reply = await self.ask(CommandRequest(mx=command, timeout_ms=timeout_ms))
        if reply.WhichOneof("reply") != "mx":
            raise AssertionError(f"{reply.failure.reason}: {reply.failure.detail}")
        return reply.mx

    async def until_events(self, count: int) -> list[Event]:
        """Wait until `count` events have come in total, and return all of them."""
        while len(self.events) < count:
            await self.receive()
        return self.events

    async def exit_code(self) -> int:
        """Wait for the process to end, and return its exit code."""
        async with asyncio.timeout(_PATIENCE_S):
            return await self.process.wait()

    async def close(self) -> None:
        """Close everything, and kill the worker if it still runs."""
        await self.stop_listening()
        while not self._connections.empty():
            self._connections.get_nowait()[1].close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _make_protocol(self) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._connected)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._connections.put((reader, writer))

    def _note(self, envelope: WorkerEnvelope) -> None:
        match envelope.WhichOneof("body"):
            case "events":
                self.blocks += 1
                events = EventBatch.FromString(envelope.events.events).events
                self.events.extend(events)
                reported = {record.item_serial for record in self.records}
                self.unreported_serials += [event.item_serial for event in events if event.item_serial not in reported]
            case "item_records":
                self.records.extend(envelope.item_records.records)
            case "gap":
                self.gaps.append(envelope)
            case "reply":
                if envelope.correlation_id in self._asked:
                    self._asked.discard(envelope.correlation_id)
                    self._replies[envelope.correlation_id] = envelope.reply
                else:
                    self.replies_nobody_asked_for.append(envelope.correlation_id)
            case "goodbye":
                self.goodbye = envelope.goodbye.reason


def startup_for(endpoint: Path, kind: str, options: Mapping[str, object] | None = None) -> WorkerStartup:
    """Return a start-up message with the gateway's defaults."""
    return WorkerStartup(
        protocol_version=PROTOCOL_VERSION,
        session_id="session-of-a-test",
        endpoint=str(endpoint),
        secret=secrets.token_bytes(SECRET_BYTES),
        backend_kind=kind,
        backend_options_json=json.dumps(dict(options or {})),
        outbox_events=10_000,
        outbox_bytes=8 * 1024 * 1024,
        maximum_frame_bytes=4 * 1024 * 1024,
        heartbeat_interval_ms=1000,
        write_completion_timeout_ms=30_000,
        read_timeout_ms=10_000,
        orphan_lifetime_ms=0,
        log_level="DEBUG",
        maximum_items=20_000,
        maximum_reference_bytes=4 * 1024 * 1024,
    )


@asynccontextmanager
async def running_worker(
    directory: Path,
    kind: str = "sim",
    options: Mapping[str, object] | None = None,
    *,
    command: Sequence[str] = (sys.executable, "-I", "-m", "mxgw_worker"),
    is_ready: bool = True,
    **startup_fields: object,
) -> AsyncIterator[WorkerDriver]:
    """Run a real worker process, with its files in `directory`. By default the handshake is done and the backend is
    ready.
    """
    startup = startup_for(endpoint_in(directory, "worker"), kind, options)
    for name, value in startup_fields.items():
        setattr(startup, name, value)
    driver = WorkerDriver(startup, command, directory / "worker.log")
    try:
        await driver.listen()
        await driver.start()
        await driver.accept()
        if is_ready:
            await driver.shake_hands()
            driver.ready_detail = await driver.ready()
        yield driver
    finally:
        await driver.close()
