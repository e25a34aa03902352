"""One session's worker as the gateway sees it: process, endpoint, link, health and commands in one place.

A few lines above 400, because every way in which a worker comes up, is heard and comes to its end stands here together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from mxgw.v1.events_pb2 import WorkerState
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import InvalidRequest, WorkerStartFailed
from mxgw_core.api.types import CloseReason
from mxgw_core.api.workers import Orphan, WorkerExit, WorkerSpawn
from mxgw_core.config.models import Settings
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.item_book import BadRecords, ItemBook
from mxgw_core.events.log import OutOfOrder
from mxgw_core.failpoints import reach
from mxgw_core.plugins import PluginHost
from mxgw_core.printable import printable
from mxgw_core.workers.acks import Acks
from mxgw_core.workers.adopted import AdoptedProcess, ProcessHandle
from mxgw_core.workers.commands import EncodedCommand, PendingCommands, field
from mxgw_core.workers.ending import WorkerEnd, end_process, told_end
from mxgw_core.workers.endpoint import Endpoint
from mxgw_core.workers.expected import ExpectedWorker
from mxgw_core.workers.health import Health
from mxgw_core.workers.intake import Intake
from mxgw_core.workers.link import LinkBroken, Refused, WorkerLink
from mxgw_core.workers.paths import DataDirectory
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.process import StartupTooLarge, WorkerProcess
from mxgw_core.workers.startup import startup_for
from mxgw_core.workers.steps import WorkerSteps
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION
from mxgw_worker.ipc.process import resident_bytes

log = logging.getLogger(__name__)

_STARTUP_ERROR_CHARACTERS = 500
# What a command's envelope adds to it at most: a correlation id, and a tag and length.
_ENVELOPE_BYTES = 32


class Worker:
    """Start with `start`, watch with `supervise`, end with `stop` or `release`. Lives in the event loop.

    With `orphan`, `start` waits for that worker to come back instead of starting one.

    Attributes:
        ended: completed once when the worker is no longer usable, whatever the cause.
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
        self._endpoint = Endpoint(spawn, self, self._expected, plugins, frame_bytes=settings.workers.frame_bytes)
        self._link: WorkerLink | None = None
        self._process: ProcessHandle | None = None
        self._lifetime_s = orphan.lifetime_s if orphan is not None else 0.0
        self._is_cut_off = False
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[WorkerEnd] = loop.create_future()
        # Completed by the handshake.
        self._linked: asyncio.Future[None] = loop.create_future()
        # Completed by the worker's Ready message.
        self._ready: asyncio.Future[w.Ready] = loop.create_future()
        self._intake = Intake(distributor, refills=orphan is not None)
        # Completed once all that an orphan had when it came back is in the log.
        self._refilled: asyncio.Future[None] = loop.create_future()
        self.commands = PendingCommands(settings.limits.pending_commands, self._send_command)
        self.health = Health(settings.workers.heartbeat_interval_s, self._send)
        self._acks = Acks(
            lambda: distributor.log.head, lambda n: self._send(w.WorkerEnvelope(ack=w.EventAck(sequence=n)))
        )
        self.backend = ""
        self._stopping = False
        self._held = False
        self._goodbye: w.Goodbye | None = None

    # what others may know

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else self._expected.identity.pid

    @property
    def protocol_version(self) -> int:
        return PROTOCOL_VERSION

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process; 0 where the platform does not tell."""
        return resident_bytes(self.pid) if self.pid else 0

    @property
    def outlives_gateway(self) -> bool:
        """Whether the worker can be left to the next gateway."""
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

    # life

    async def start(self) -> None:
        """Start the process, or wait for the orphan, and return once its backend is ready.

        Raises:
            WorkerStartFailed: it did not come up; nothing is left behind after `stop`.
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
        """Start the process in its turn, and wait for the backend without one: a source that is slow costs nothing."""
        timeout_s = self._settings.workers.start_timeout_s
        try:
            async with asyncio.timeout(None) as timeout:
                async with self._pool.turn():
                    timeout.reschedule(asyncio.get_running_loop().time() + timeout_s)
                    await self._launch()
                    await asyncio.wait((self._linked, self.ended), return_when=asyncio.FIRST_COMPLETED)
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
        self._steps.told()

    async def _adopt(self, orphan: Orphan) -> None:
        """Wait for the orphan to connect and to send what it kept."""
        process = self._process = AdoptedProcess.find(orphan.worker)
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
            text = printable(ready.error, _STARTUP_ERROR_CHARACTERS)
            raise WorkerStartFailed(f"backend {self._spawn.backend!r} could not be started: {text}")
        return printable(ready.backend, 128)

    async def supervise(self) -> WorkerEnd:
        """Watch the worker's signs of life; return when it came to its end."""
        health = self.health
        while not self.ended.done():
            health.ask()
            await asyncio.wait((self.ended,), timeout=health.tick_s)
            self._distributor.check()
            if health.tick(excused=self._held or self._stopping):
                self._end(CloseReason.WORKER_SILENT, f"the worker gave no sign of life for {health.silence_s:.1f} s")
        return self.ended.result()

    def release(self) -> None:
        """Let go of the worker, which lives on and waits for the next gateway."""
        self._stopping = True
        self._acks.cancel()
        self._endpoint.close()
        if self._process is not None:
            self._process.leave()
        self._end(CloseReason.GATEWAY_SHUTDOWN, "the worker waits for the next gateway")

    def kill(self) -> None:
        """End the process at once, unasked; `stop` still has to follow."""
        if self._process is not None and not self._process.exited.done():
            self._process.kill()

    async def stop(self, reason: CloseReason = CloseReason.CLIENT, detail: str = "") -> None:
        """End the worker: ask it, then SIGTERM, then SIGKILL; returns when the process is gone and nothing is left.

        `reason` and `detail` are why the session ends.
        """
        self._stopping = True
        self._acks.cancel()
        if self._process is None and self._orphan is not None:
            self._process = AdoptedProcess.find(self._orphan.worker)
        process = self._process
        if process is not None and not process.exited.done():
            self._steps.stopping(self._expected.identity, reason)
        try:
            if process is not None:
                has_link = self._link is not None and not self._is_cut_off
                await end_process(
                    process,
                    ask=self._ask_to_leave if has_link else None,
                    grace_s=self._settings.workers.stop_grace_s,
                    # An orphan that did not come back may only be slow: it is asked like any other.
                    is_stuck=has_link and self.ended.done() and self.ended.result().reason is CloseReason.WORKER_SILENT,
                )
        finally:
            self._endpoint.close()
            self._end(CloseReason.CLIENT, "the worker was stopped")
        end = self.ended.result()
        if end.reason.is_fault:
            self._data.prune_logs()
        else:
            self._log_file.unlink(missing_ok=True)
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
                reason = CloseReason.CLIENT  # it did as it was told
            self.ended.set_result(WorkerEnd(reason, detail))

    def _exited(self, exited: asyncio.Future[int | None]) -> None:
        refused = "" if self._ready.done() else self._endpoint.told_refusals()
        self._end(CloseReason.WORKER_EXITED, told_end(exited.result(), self._goodbye) + refused)

    def _hint(self) -> str:
        return f"{self._endpoint.told_refusals()}; its log is {self._log_file}"

    # LinkOwner

    def resume_after(self, hello: w.Hello) -> int:
        return self._intake.resume_after(hello)

    def link_claims(self, link: WorkerLink) -> bool:
        if self._link is not None:
            return False
        assert link.handshake is not None
        try:
            self._expected.proved(link.handshake)
        except Refused as refusal:
            if self._orphan is None:  # its worker is who it should be, and cannot be used: no other one will come
                self._end(CloseReason.WORKER_START_FAILED, refusal.detail)
            raise
        self._link = link
        self._linked.set_result(None)
        self._intake.welcomed(link.handshake.hello)
        asyncio.get_running_loop().call_soon(self._steps.welcomed)
        return True

    def link_refused(self, link: WorkerLink, reason: str, detail: str) -> None:
        self._endpoint.refused(link, reason, detail)

    def link_lost(self, link: WorkerLink, detail: str) -> None:
        if link is self._link:
            self._is_cut_off = True
        if link is self._link and not self._stopping and self._goodbye is None:
            # The process may only be quicker to close its socket than to be reaped: let its exit tell the story.
            asyncio.get_running_loop().call_later(0.2, self._end, CloseReason.WORKER_EXITED, detail)

    def link_received(self, envelopes: Sequence[w.WorkerEnvelope]) -> None:
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
            self._end(CloseReason.WORKER_PROTOCOL_ERROR, f"the worker broke the numbering of events: {error}")
            raise LinkBroken(str(error)) from error
        except BadRecords as error:
            self._end(CloseReason.WORKER_PROTOCOL_ERROR, f"the worker told of items what cannot be: {error}")
            raise LinkBroken(str(error)) from error
        except LinkBroken as error:
            self._end(CloseReason.WORKER_PROTOCOL_ERROR, str(error))
            raise
        finally:
            if appended:
                self._flush()

    def _flush(self) -> None:
        try:
            self._distributor.flush()
        except MalformedBatch as error:
            self._end(CloseReason.WORKER_PROTOCOL_ERROR, f"the worker sent events that are none: {error}")
            raise LinkBroken(str(error)) from error
        self._acks.appended()
        self._check_refill()

    def _received(self, kind: str | None, envelope: w.WorkerEnvelope) -> None:
        match kind:
            case "reply":
                if not self.commands.answered(envelope.correlation_id, envelope.reply):
                    raise LinkBroken(f"the worker answered a command that was not sent ({envelope.correlation_id})")
            case "pong":
                self.health.pong(envelope.pong)
            case "ready":
                if self._ready.done():
                    raise LinkBroken("the worker said Ready twice")
                self._ready.set_result(envelope.ready)
                self._check_refill()
            case "goodbye":
                self._goodbye = envelope.goodbye
                detail = printable(envelope.goodbye.detail or envelope.goodbye.reason, 300)
                self._end(CloseReason.WORKER_EXITED, f"the worker left: {detail}")
            case _:
                raise LinkBroken(f"the worker sent {kind or 'an empty message'}, which is the gateway's to send")

    # towards the worker

    def call(
        self, request: w.CommandRequest, timeout_s: float, mx: EncodedCommand | None = None
    ) -> Coroutine[Any, Any, w.CommandReply]:
        """Run a command; see `PendingCommands.call` for what it raises.

        Raises:
            InvalidRequest: the command is larger than a frame may be.
        """
        size = request.ByteSize() + (len(mx.data) if mx is not None else 0) + _ENVELOPE_BYTES
        limit = self._settings.workers.frame_bytes
        if size > limit:
            raise InvalidRequest(
                f"the command takes {size} bytes and a worker is sent {limit} at most: split it, or raise "
                "workers.frame_bytes",
                metadata={"limit": str(limit)},
            )
        return self.commands.call(request, timeout_s, mx)

    def hold(self, on: bool) -> None:
        """Stop or go on taking messages from the worker; while stopped, its silence is not its fault."""
        self._held = on
        if self._link is not None:
            self._link.hold(on)

    def _send_command(self, correlation_id: int, request: bytes) -> None:
        if self._link is not None:
            envelope = w.WorkerEnvelope(correlation_id=correlation_id).SerializeToString()
            self._link.send_encoded(envelope + field(w.WorkerEnvelope.COMMAND_FIELD_NUMBER, request))

    def _send(self, envelope: w.WorkerEnvelope) -> None:
        if self._link is not None:
            self._link.send(envelope)
