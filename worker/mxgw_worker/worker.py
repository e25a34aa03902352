"""The worker as a whole. It stays connected to the gateway, runs the backend, and shuts down in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD, SOURCE_HEALTH_UNSPECIFIED
from mxgw.worker.v1.worker_pb2 import CommandReply, Failure, Goodbye, Pong, Ready, WorkerEnvelope, WorkerStartup
from mxgw_worker.alarms import AlarmWatch
from mxgw_worker.backends.base import Backend, BackendUnavailable
from mxgw_worker.calls import report_bug
from mxgw_worker.dispatch import Dispatcher
from mxgw_worker.gateway_connection import GatewayConnection
from mxgw_worker.ipc.framing import FrameError
from mxgw_worker.ipc.handshake import HandshakeError, HandshakeReason, WorkerHandshake
from mxgw_worker.items import ItemTable
from mxgw_worker.methods import Methods
from mxgw_worker.outbox import Outbox
from mxgw_worker.platform import EndpointAddress, start_ticks
from mxgw_worker.read_bulk import ReadBulk
from mxgw_worker.sink import WorkerSink
from mxgw_worker.snapshots import Snapshots
from mxgw_worker.turns import BackendTurn
from mxgw_worker.views import Views
from mxgw_worker.writes import Writes

log = logging.getLogger(__name__)

# The largest number of bytes of events in one block. Only a single event can be larger.
BLOCK_BYTES = 256 * 1024
HANDSHAKE_TIMEOUT_S = 10.0
# The pause between two attempts to reconnect. It is random within these limits, so that many workers do not connect at
# once.
RECONNECT_S = (0.05, 0.25)
DEFAULT_GRACE_S = 3.0
CLOSE_TIMEOUT_S = 1.0


class ExitCode(IntEnum):
    """The exit code of a worker, for the gateway and for people. Python itself exits with 1 after an unexpected
    error.
    """

    STOPPED = 0
    BAD_STARTUP = 2
    GATEWAY_UNREACHABLE = 3
    BACKEND_UNAVAILABLE = 4
    BACKEND_FAILED = 5
    GATEWAY_VANISHED = 6


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the worker ends. `goodbye` is the reason for the gateway. `goodbye` is empty when the gateway knows the
    reason already, or when the worker has no connection to the gateway.
    """

    exit_code: ExitCode
    goodbye: str
    detail: str
    grace_s: float = DEFAULT_GRACE_S


class Worker:
    """The worker of one session. `run` returns when the worker has ended; `stop` can be called at any time."""

    def __init__(self, startup: WorkerStartup, make_backend: Callable[[], Backend]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._startup = startup
        self._secret = startup.secret
        self._address = EndpointAddress(startup.endpoint)
        # The backend is created after the handshake, so that the gateway gets the error if this fails.
        self._make_backend = make_backend
        self._backend: Backend | None = None
        self._outbox = Outbox(
            limit_events=startup.outbox_events,
            limit_bytes=startup.outbox_bytes,
            maximum_frame_bytes=startup.maximum_frame_bytes,
        )
        self._items = ItemTable(lambda: self._outbox.head_sequence)
        self._writes = Writes(startup.write_completion_timeout_ms / 1000)
        self._sink = WorkerSink(
            outbox=self._outbox,
            items=self._items,
            writes=self._writes,
            on_event=self._schedule_flush,
            on_failed=self._backend_failed,
        )
        # Runs commands; created when the backend is ready.
        self._dispatcher: Dispatcher | None = None
        # The connection in use. It is set after the handshake, and None when the connection has ended.
        self._connection: GatewayConnection | None = None
        self._flush_scheduled = False
        # The Ready message for every gateway that connects; None until the backend has started.
        self._ready: Ready | None = None
        # The first completed handshake sets this event.
        self._welcomed = asyncio.Event()
        # The first reason to end the worker completes this future.
        self._ending: asyncio.Future[Ending] = loop.create_future()

    async def run(self, on_left: Callable[[ExitCode], None] = lambda _code: None) -> ExitCode:
        """Work until there is a reason to end, and return the exit code.

        `on_left` is called when all messages are sent and the connection is closed. After that, only a backend that
        cannot be cancelled can keep the process running.
        """
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(self._stay_connected(), name="worker:connection")
            starter = tasks.create_task(self._start_backend(tasks), name="worker:backend-start")
            ending = await self._ending
            log.info("leaving: %s %s", ending.exit_code.name, ending.detail)
            await self._leave(ending, starter)
            keeper.cancel()
            on_left(ending.exit_code)
        self._address.close()
        return ending.exit_code

    def stop(self, detail: str, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Make the worker shut down in order."""
        self._end(Ending(ExitCode.STOPPED, "STOPPED", detail, grace_s))

    def _make_dispatcher(self, tasks: asyncio.TaskGroup, backend: Backend) -> Dispatcher:
        startup = self._startup
        methods = Methods(
            backend=backend,
            items=self._items,
            writes=self._writes,
            turn=BackendTurn(),
            maximum_items=startup.maximum_items,
            maximum_reference_bytes=startup.maximum_reference_bytes,
        )
        views = Views(
            methods=methods, outbox=self._outbox, sink=self._sink, maximum_frame_bytes=startup.maximum_frame_bytes
        )
        return Dispatcher(
            tasks=tasks,
            methods=methods,
            read_bulk=ReadBulk(methods, startup.read_timeout_ms / 1000),
            views=views,
            snapshots=Snapshots(
                items=self._items, outbox=self._outbox, maximum_frame_bytes=startup.maximum_frame_bytes
            ),
            alarms=AlarmWatch(methods=methods, maximum_frame_bytes=startup.maximum_frame_bytes),
            maximum_frame_bytes=startup.maximum_frame_bytes,
        )

    async def _start_backend(self, tasks: asyncio.TaskGroup) -> None:
        await self._welcomed.wait()
        try:
            self._backend = backend = self._make_backend()
            await backend.start(self._sink)
        except BackendUnavailable as unavailable:
            error = str(unavailable)
        except Exception as unforeseen:
            error = report_bug(unforeseen)
        else:
            if self._sink.health == SOURCE_HEALTH_UNSPECIFIED:
                self._sink.source_health(SOURCE_HEALTH_GOOD, "")
            info = backend.info()
            self._ready = Ready(backend=f"{info.kind} {info.version}")
            self._dispatcher = self._make_dispatcher(tasks, backend)
            self._announce()
            return
        log.error("the backend cannot start: %s", error)
        if self._connection is not None:
            self._connection.send(WorkerEnvelope(ready=Ready(error=error)))
        self._end(Ending(ExitCode.BACKEND_UNAVAILABLE, "", error))

    async def _stay_connected(self) -> None:
        """Connect to the gateway. When the connection is lost, reconnect, until the lifetime of an orphan has
        expired.
        """
        lifetime_s = self._startup.orphan_lifetime_ms / 1000
        orphan_until = 0.0
        while True:
            connection = GatewayConnection(
                handshake=WorkerHandshake(
                    session_id=self._startup.session_id,
                    secret=self._secret,
                    epoch=self._outbox.epoch,
                    pid=os.getpid(),
                    start_ticks=start_ticks(os.getpid()),
                ),
                outbox=self._outbox,
                maximum_frame_bytes=self._startup.maximum_frame_bytes,
                on_envelope=self._received,
                on_writable=self._flush,
            )
            problem = await self._connect(connection)
            if problem is None:
                log.info("connected to the gateway")
                end = await connection.closed
                self._connection = None
                log.warning("the connection to the gateway ended: %s", end)
                if lifetime_s == 0:
                    self._end(Ending(ExitCode.GATEWAY_VANISHED, "", end))
                    return
                orphan_until = self._loop.time() + lifetime_s
            elif not self._welcomed.is_set() or _is_final(problem):
                self._end(Ending(ExitCode.GATEWAY_UNREACHABLE, "", str(problem)))
                return
            if self._loop.time() >= orphan_until:
                detail = f"no gateway came back within {lifetime_s:g} s"
                self._end(Ending(ExitCode.GATEWAY_VANISHED, "", detail))
                return
            await asyncio.sleep(random.uniform(*RECONNECT_S))  # noqa: S311  # jitter, not a secret

    async def _connect(self, connection: GatewayConnection) -> Exception | None:
        """Connect, run the handshake, and start to use the connection. Return None, or the error when this fails."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._address.connect(lambda: connection)
                resume_after = await connection.welcomed
        except (OSError, FrameError, HandshakeError, TimeoutError) as error:
            connection.abort()
            return error
        self._secret = connection.next_secret
        self._outbox.resume(resume_after)
        connection.send_records(self._items.records())
        self._connection = connection
        self._welcomed.set()
        self._announce()
        return None

    def _announce(self) -> None:
        """Send Ready on a new connection, and then the waiting events."""
        if self._connection is not None and self._ready is not None:
            self._connection.send(WorkerEnvelope(ready=self._ready))
            self._flush()

    def _schedule_flush(self) -> None:
        """Send events at the end of this iteration of the event loop, so that all events of the iteration share a
        block.
        """
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        connection = self._connection
        if connection is None or self._ready is None:
            return
        # Item records are sent before the events of their items.
        connection.send_records(self._items.unsent())
        outbox = self._outbox
        while connection.is_writable:
            events = outbox.take(BLOCK_BYTES)
            if events is None:
                return
            connection.send_events(events)

    def _received(self, connection: GatewayConnection, envelope: WorkerEnvelope) -> None:
        match envelope.WhichOneof("body"):
            case "ack":
                self._outbox.acknowledge(envelope.ack.sequence)
            case "command":
                self._command(connection, envelope)
            case "ping":
                connection.send(
                    WorkerEnvelope(
                        pong=Pong(
                            token=envelope.ping.token,
                            head_sequence=self._outbox.head_sequence,
                            source_health=self._sink.health,
                            source_detail=self._sink.health_detail,
                        )
                    )
                )
            case "stop":
                self.stop("the gateway asked for it", envelope.stop.grace_ms / 1000 or DEFAULT_GRACE_S)
            case other:
                log.warning("ignoring a message the gateway should not send now: %s", other)

    def _command(self, connection: GatewayConnection, envelope: WorkerEnvelope) -> None:
        correlation_id = envelope.correlation_id

        def answer(reply: CommandReply) -> None:
            # Events and item records from before the answer must also arrive before the answer.
            self._flush()
            connection.send(WorkerEnvelope(correlation_id=correlation_id, reply=reply))

        if self._dispatcher is None:
            answer(CommandReply(failure=Failure(reason="WORKER_NOT_READY", detail="the backend is still starting")))
        else:
            self._dispatcher.submit(envelope.command, answer)

    def _backend_failed(self, detail: str) -> None:
        log.error("the backend failed: %s", detail)
        self._end(Ending(ExitCode.BACKEND_FAILED, "BACKEND_FAILED", detail))

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def _leave(self, ending: Ending, starter: asyncio.Task[None]) -> None:
        """Refuse new commands, cancel running commands, stop the backend, send the remaining events and a goodbye, and
        close.
        """
        if self._dispatcher is not None:
            self._dispatcher.close(ending.detail)
        try:
            async with asyncio.timeout(ending.grace_s):
                if self._dispatcher is not None:
                    await self._dispatcher.cancel()
                starter.cancel()
                await asyncio.wait((starter,))
                if self._backend is not None:
                    await self._backend.stop()
        except TimeoutError:
            log.warning("the backend did not stop within %g s", ending.grace_s)
        except Exception:
            log.exception("the backend failed to stop")
        connection = self._connection
        if connection is not None:
            self._flush()
            if ending.goodbye:
                connection.send(WorkerEnvelope(goodbye=Goodbye(reason=ending.goodbye, detail=ending.detail)))
            await connection.close(CLOSE_TIMEOUT_S)


def _is_final(problem: Exception) -> bool:
    """Return True when the gateway has refused this worker for good. ALREADY_CONNECTED is not final, because the
    gateway has perhaps not noticed the end of the former connection yet.
    """
    return (
        isinstance(problem, HandshakeError)
        and problem.reason is HandshakeReason.REJECTED
        and not problem.detail.startswith("ALREADY_CONNECTED")
    )
