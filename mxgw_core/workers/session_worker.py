"""One session's worker, as the gateway sees it: process, endpoint, connection, health and commands.

This module starts, watches and ends workers; the details are in the other modules of this package.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mxgw.v1.events_pb2 import WorkerState
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import WorkerStartFailed
from mxgw_core.api.types import CloseReason
from mxgw_core.api.workers import Orphan, WorkerExit, WorkerSpawn
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.item_book import BadRecords, ItemBook
from mxgw_core.events.log import OutOfOrder
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost
from mxgw_core.printable import printable
from mxgw_core.workers.commands import PendingCommands
from mxgw_core.workers.connection import BrokenProtocol, Refused, WorkerConnection
from mxgw_core.workers.endpoint import Endpoint, ExpectedWorker
from mxgw_core.workers.health import Health
from mxgw_core.workers.intake import Acks, Intake
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.process import ProcessHandle, WorkerProcess, end_in_words, end_process, found_again
from mxgw_core.workers.startup import StartupTooLarge, startup_for
from mxgw_core.workers.steps import WorkerSteps
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION
from mxgw_worker.platform import resident_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """Why a worker ended. It becomes the close reason of the session when nothing else ended the session before."""

    reason: CloseReason
    detail: str


class SessionWorker:
    """One worker: call `start`, then `supervise`, then `stop` or `release`. Use it in the event loop only.

    With an `orphan`, `start` does not start a process: it waits until the orphan has connected to this gateway.

    Attributes:
        ended: completed when the worker cannot be used any more, for whatever reason.
    """

    def __init__(
        self,
        spawn: WorkerSpawn,
        *,
        settings: Settings,
        data: DataDirectory,
        distributor: Distributor,
        items: ItemBook,
        plugins: PluginHost,
        pool: WarmPool,
        orphan: Orphan | None = None,
    ) -> None:
        self._spawn = spawn
        self._orphan = orphan
        self._expected = ExpectedWorker(spawn, orphan, plugins)
        self._steps = WorkerSteps(plugins, self._expected.phase)
        self._pool = pool
        self._settings = settings
        self._data = data
        self._distributor = distributor
        self._items = items
        self._log_file = data.log_of(spawn.session_id)
        self._endpoint = Endpoint(spawn, self, self._expected, plugins, settings.workers.frame_bytes, data.remove_later)
        self._connection: WorkerConnection | None = None
        self._process: ProcessHandle | None = None
        self._lifetime_s = orphan.lifetime_s if orphan is not None else 0.0
        self._is_cut_off = False
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[WorkerEnd] = loop.create_future()
        # Completed when a connection of the worker is accepted, at the end of the handshake.
        self._connected: asyncio.Future[None] = loop.create_future()
        # Completed by the worker's Ready message.
        self._ready: asyncio.Future[w.Ready] = loop.create_future()
        self._intake = Intake(distributor, refills=orphan is not None)
        # Completed when the log has all events that the orphan had at the moment when it connected.
        self._refilled: asyncio.Future[None] = loop.create_future()
        self.commands = PendingCommands(settings.limits.pending_commands, settings.workers.frame_bytes)
        self.health = Health(settings.workers.heartbeat_interval_s, self._send)
        self._acks = Acks(
            lambda: distributor.log.head, lambda n: self._send(w.WorkerEnvelope(ack=w.EventAck(sequence=n)))
        )
        self.backend = ""
        self._stopping = False
        self._held = False
        self._goodbye: w.Goodbye | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else self._expected.identity.pid

    @property
    def protocol_version(self) -> int:
        return PROTOCOL_VERSION

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process; 0 when the platform does not report it, or there is no process yet."""
        return resident_bytes(self.pid) if self.pid else 0

    @property
    def outlives_gateway(self) -> bool:
        """Whether the worker can live on without this gateway, until the next gateway adopts it."""
        return self._lifetime_s > 0 and not self.ended.done() and not self._stopping

    @property
    def state(self) -> WorkerState.ValueType:
        if self.ended.done():
            return WorkerState.WORKER_STATE_EXITED
        if self._stopping:
            return WorkerState.WORKER_STATE_STOPPING
        if not self._ready.done():
            return WorkerState.WORKER_STATE_STARTING
        return WorkerState.WORKER_STATE_SILENT if self.health.is_quiet else WorkerState.WORKER_STATE_READY

    async def start(self) -> None:
        """Start the process, or wait for the orphan. Return when the backend of the worker is ready.

        Raises:
            WorkerStartFailed: the worker did not become ready. Call `stop` to end its process and remove its socket.
        """
        try:
            if self._orphan is not None:
                await self._adopt(self._orphan)
            else:
                self._lifetime_s = self._steps.announce(self._spawn)
                await self._start_process()
            self.backend = self._started_backend()
        except WorkerStartFailed as error:
            self._end(CloseReason.WORKER_START_FAILED, error.message)
            raise
        self._steps.ready(self._expected.identity)

    def _started(self, process: WorkerProcess) -> None:
        self._expected.started(process.pid, process.start_ticks)
        self._steps.started(self._expected.identity)

    async def _start_process(self) -> None:
        """Start the process, and wait until its backend is ready.

        The process occupies a slot of the pool only until it has connected, because a worker that waits for a slow
        source must not delay the start of other workers.
        """
        timeout_s = self._settings.workers.start_timeout_s
        try:
            async with asyncio.timeout(None) as timeout:
                async with self._pool.start_slot():
                    timeout.reschedule(asyncio.get_running_loop().time() + timeout_s)
                    await self._launch()
                    await asyncio.wait((self._connected, self.ended), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((self._ready, self.ended), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise WorkerStartFailed(
                f"the worker was not ready within {timeout_s:g} s{self._hint()}; a slow source needs a larger "
                "workers.start_timeout_s"
            ) from None
        if self.ended.done():
            raise WorkerStartFailed(f"the worker ended before it was ready: {self.ended.result().detail}{self._hint()}")

    async def _launch(self) -> None:
        try:
            await self._endpoint.listen()
            startup = startup_for(self._spawn, self._settings, self._lifetime_s)
            process = self._pool.start(startup, self._log_file, self._started)
        except (OSError, StartupTooLarge) as error:
            raise WorkerStartFailed(f"the worker process could not be started: {error}") from error
        self._process = process
        process.exited.add_done_callback(self._exited)
        self._steps.startup_sent()

    async def _adopt(self, orphan: Orphan) -> None:
        """Wait until the orphan has connected, is ready, and has sent the events that its outbox kept."""
        process = self._process = found_again(orphan.worker)
        if process is None:
            self._end(CloseReason.WORKER_EXITED, "its worker ended while no gateway was running")
            raise WorkerStartFailed("the worker ended while no gateway was running")
        process.exited.add_done_callback(self._exited)
        reach("adopt:before-listen")
        try:
            await self._endpoint.listen()
        except OSError as error:
            raise WorkerStartFailed(f"the worker's socket could not be opened: {error}") from error
        reach("adopt:after-listen")
        try:
            async with asyncio.timeout(orphan.adopt_within_s):
                await asyncio.wait((self._refilled, self.ended), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            detail = f"its worker did not come back within {orphan.adopt_within_s:g} s of the gateway's restart"
            self._end(CloseReason.WORKER_SILENT, f"{detail}{self._hint()}")
            raise WorkerStartFailed(detail) from None
        if self.ended.done():
            raise WorkerStartFailed(self.ended.result().detail)

    def _check_refill(self) -> None:
        if self._orphan is None or self._refilled.done() or not self._ready.done():
            return
        if self._intake.is_refilled:
            self._distributor.refilled()
            self._refilled.set_result(None)

    def _started_backend(self) -> str:
        ready = self._ready.result()
        if ready.error:
            text = printable(ready.error, 500)
            raise WorkerStartFailed(f"backend {self._spawn.backend!r} could not be started: {text}")
        return printable(ready.backend, 128)

    async def supervise(self) -> WorkerEnd:
        """Check regularly that the worker still sends messages. When the worker has ended, return why."""
        health = self.health
        while not self.ended.done():
            health.ask()
            await asyncio.wait((self.ended,), timeout=health.tick_s)
            self._distributor.check()
            if health.tick(excused=self._held or self._stopping):
                self._end(CloseReason.WORKER_SILENT, f"the worker gave no sign of life for {health.silence_s:.1f} s")
        return self.ended.result()

    def release(self) -> None:
        """Close the connection to the worker. The worker lives on and waits for the next gateway."""
        self._stopping = True
        self._acks.cancel()
        self._endpoint.close()
        if self._process is not None:
            self._process.leave()
        self._end(CloseReason.GATEWAY_SHUTDOWN, "the worker waits for the next gateway")

    def kill(self) -> None:
        """Kill the process. The caller must still call `stop` afterwards."""
        if self._process is not None and not self._process.exited.done():
            self._process.kill()

    async def stop(self, reason: CloseReason = CloseReason.CLIENT, detail: str = "") -> None:
        """End the worker, and return when its process has ended and its socket is removed.

        The worker is asked to exit by a message, or by SIGTERM when there is no connection. It is killed when it has
        not exited in time (see `end_process`). `reason` and `detail` say why the session ends.
        """
        self._stopping = True
        self._acks.cancel()
        if self._process is None and self._orphan is not None:
            self._process = found_again(self._orphan.worker)
        process = self._process
        if process is not None and not process.exited.done():
            self._steps.stopping(self._expected.identity, reason)
        try:
            if process is not None:
                can_send = self._connection is not None and not self._is_cut_off
                await end_process(
                    process,
                    ask=self._ask_to_leave if can_send else None,
                    grace_s=self._settings.workers.stop_grace_s,
                    # A silent worker without a connection is an orphan that did not connect in time. Perhaps it is
                    # only slow, so it is asked to exit before it is killed.
                    is_stuck=can_send and self.ended.done() and self.ended.result().reason is CloseReason.WORKER_SILENT,
                )
        finally:
            self._endpoint.close()
            self._end(CloseReason.CLIENT, "the worker was stopped")
        end = self.ended.result()
        if end.reason.is_fault:
            self._data.prune_logs()
        else:
            self._data.remove_later(self._log_file)
        code = process.exited.result() if process is not None else None
        self._steps.exited(
            WorkerExit(self._spawn.session_id, self.pid, code, end.reason.name, end.detail, reason, detail)
        )

    def _ask_to_leave(self) -> None:
        self._send(w.WorkerEnvelope(stop=w.Stop(grace_ms=int(self._settings.workers.stop_grace_s * 1000))))
        reach("close:after-stop")

    def _end(self, reason: CloseReason, detail: str) -> None:
        if not self.ended.done():
            if self._stopping and reason is CloseReason.WORKER_EXITED:
                reason = CloseReason.CLIENT  # the worker exited because this gateway asked for it
            self.ended.set_result(WorkerEnd(reason, detail))

    def _exited(self, exited: asyncio.Future[int | None]) -> None:
        refused = "" if self._ready.done() else self._endpoint.refusals_in_words()
        self._end(CloseReason.WORKER_EXITED, end_in_words(exited.result(), self._goodbye) + refused)

    def _hint(self) -> str:
        return f"{self._endpoint.refusals_in_words()}; its log is {self._log_file}"

    # the methods of ConnectionOwner, which connections call

    def resume_after(self, hello: w.Hello) -> int:
        return self._intake.resume_after(hello)

    def claim(self, connection: WorkerConnection) -> bool:
        if self._connection is not None:
            return False
        assert connection.handshake is not None
        try:
            self._expected.proved(connection.handshake)
        except Refused as refusal:
            if self._orphan is None:  # the right process connected but is refused, so waiting any longer is useless
                self._end(CloseReason.WORKER_START_FAILED, refusal.detail)
            raise
        self._connection = self.commands.connection = connection
        self._connected.set_result(None)
        self._intake.welcomed(connection.handshake.hello)
        asyncio.get_running_loop().call_soon(self._steps.welcomed)
        return True

    def on_refused(self, connection: WorkerConnection, reason: str, detail: str) -> None:
        self._endpoint.refused(connection, reason, detail)

    def on_lost(self, connection: WorkerConnection, detail: str) -> None:
        if connection is self._connection:
            self._is_cut_off = True
        if connection is self._connection and not self._stopping and self._goodbye is None:
            # When a process ends, the end of its connection is often noticed before its exit. Wait for the exit for a
            # moment, because the exit code says more than the lost connection.
            asyncio.get_running_loop().call_later(0.2, self._end, CloseReason.WORKER_EXITED, detail)

    def on_messages(self, envelopes: Sequence[w.WorkerEnvelope]) -> None:
        self.health.heard()
        appended = False
        try:
            for envelope in envelopes:
                kind = envelope.WhichOneof("body")
                if kind == "events":
                    self._intake.events(envelope.events)
                    appended = True
                elif kind == "gap":
                    self._intake.gap(envelope.gap)
                    appended = True
                elif kind == "item_records":
                    self._items.take(envelope.item_records)
                else:
                    self._received(kind, envelope)
        except OutOfOrder as error:
            raise self._broken(f"the worker broke the numbering of events: {error}") from error
        except BadRecords as error:
            raise self._broken(f"the worker reported an impossible item: {error}") from error
        finally:
            if appended:
                self._flush()

    def _flush(self) -> None:
        try:
            self._distributor.flush()
        except MalformedBatch as error:
            raise self._broken(f"the worker sent events that are none: {error}") from error
        self._acks.appended()
        self._check_refill()

    def _broken(self, detail: str) -> BrokenProtocol:
        self._end(CloseReason.WORKER_PROTOCOL_ERROR, detail)
        return BrokenProtocol(detail)

    def _received(self, kind: str | None, envelope: w.WorkerEnvelope) -> None:
        match kind:
            case "reply":
                if not self.commands.answered(envelope.correlation_id, envelope.reply):
                    raise self._broken(f"the worker answered a command that was not sent ({envelope.correlation_id})")
            case "pong":
                self.health.pong(envelope.pong)
            case "ready":
                if self._ready.done():
                    raise self._broken("the worker said Ready twice")
                self._ready.set_result(envelope.ready)
                self._check_refill()
            case "goodbye":
                self._goodbye = envelope.goodbye
                detail = printable(envelope.goodbye.detail or envelope.goodbye.reason, 300)
                self._end(CloseReason.WORKER_EXITED, f"the worker left: {detail}")
            case _:
                raise self._broken(f"the worker sent {kind or 'an empty message'}, which is the gateway's to send")

    def hold(self, on: bool) -> None:
        """Stop reading from the worker if `on`, otherwise resume. Until then the worker does not count as silent."""
        self._held = on
        if self._connection is not None:
            self._connection.hold(on)

    def _send(self, envelope: w.WorkerEnvelope) -> None:
        if self._connection is not None:
            self._connection.send(envelope)
