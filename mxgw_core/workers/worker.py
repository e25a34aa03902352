"""One session's worker as the gateway sees it: process, endpoint, link, health and commands in one place."""

from __future__ import annotations

import asyncio
import logging
import secrets
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from mxgw.v1.events_pb2 import GapReason, WorkerState
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import GatewayError, InvalidRequest, WorkerStartFailed
from mxgw_core.api.types import CloseReason
from mxgw_core.api.workers import WorkerExit, WorkerIdentity, WorkerSpawn
from mxgw_core.config.models import Settings
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.log import LogGap, OutOfOrder
from mxgw_core.events.records import MalformedBatch
from mxgw_core.plugins import PluginHost
from mxgw_core.printable import printable
from mxgw_core.workers.acks import Acks
from mxgw_core.workers.commands import PendingCommands
from mxgw_core.workers.health import Health
from mxgw_core.workers.link import LinkBroken, WorkerLink
from mxgw_core.workers.paths import DataDirectory
from mxgw_core.workers.process import StartupTooLarge, WorkerProcess
from mxgw_core.workers.startup import startup_for
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, GatewayHandshake
from mxgw_worker.ipc.process import resident_bytes

log = logging.getLogger(__name__)

_STARTUP_ERROR_CHARACTERS = 500
# What a command's envelope adds to it at most: a correlation id, and a tag and length.
_ENVELOPE_BYTES = 32
_GAP_REASONS = frozenset(GapReason.values())


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker came to its end, for the session's close reason."""

    reason: CloseReason
    detail: str


class Worker:
    """Start with `start`, watch with `supervise`, end with `stop`. Lives in the event loop.

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
        plugins: PluginHost,
        starts: asyncio.Semaphore,
    ) -> None:
        self._spawn = spawn
        # Bounds how many workers start at once: more would only slow each other down.
        self._starts = starts
        self._settings = settings
        self._data = data
        self._distributor = distributor
        self._plugins = plugins
        self._log_file = data.log_of(spawn.session_id)
        self._server: asyncio.AbstractServer | None = None
        self._link: WorkerLink | None = None
        # Also the refused ones, for as long as they take to close.
        self._links: weakref.WeakSet[WorkerLink] = weakref.WeakSet()
        self._process: WorkerProcess | None = None
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[WorkerEnd] = loop.create_future()
        # Completed by the worker's Ready message.
        self._ready: asyncio.Future[w.Ready] = loop.create_future()
        self.commands = PendingCommands(settings.limits.pending_commands, self._send_command)
        self.health = Health(settings.workers.heartbeat_interval_s, self._send)
        self._acks = Acks(lambda: distributor.log.head, self._send_ack)
        self.backend = ""
        self._stopping = False
        self._held = False
        self._goodbye: w.Goodbye | None = None
        self._refused: list[str] = []

    # what others may know

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def protocol_version(self) -> int:
        return PROTOCOL_VERSION

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process; 0 where the platform does not tell."""
        return resident_bytes(self.pid) if self.pid else 0

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
        """Start the process and return once its backend is ready.

        Raises:
            WorkerStartFailed: it did not come up; nothing is left behind after `stop`.
        """
        for answer in self._plugins.ask("mxgw_worker_spawning", spawn=self._spawn):
            if answer.error is not None:
                raise WorkerStartFailed(f"plugin {answer.plugin!r} prevented the start of the worker")
        try:
            async with self._starts:
                await self._start_process()
            self.backend = self._started_backend()
        except WorkerStartFailed as error:
            self._end(CloseReason.WORKER_START_FAILED, error.message)
            raise
        assert self._link is not None
        assert self._link.handshake is not None
        hello = self._link.handshake.hello
        self._plugins.ask(
            "mxgw_worker_ready",
            worker=WorkerIdentity(self._spawn.session_id, hello.pid, hello.start_ticks, hello.epoch, PROTOCOL_VERSION),
        )

    async def _start_process(self) -> None:
        try:
            await self._listen()
            startup = startup_for(self._spawn, self._settings)
            self._process = WorkerProcess.spawn(startup, self._log_file)
        except (OSError, StartupTooLarge) as error:
            raise WorkerStartFailed(f"the worker process could not be started: {error}") from error
        self._process.exited.add_done_callback(self._exited)
        timeout_s = self._settings.workers.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait((self._ready, self.ended), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise WorkerStartFailed(
                f"the worker was not ready within {timeout_s:g} s{self._hint()}; a slow source needs a larger "
                "workers.start_timeout_s"
            ) from None
        if self.ended.done():
            raise WorkerStartFailed(f"the worker ended before it was ready: {self.ended.result().detail}{self._hint()}")

    def _started_backend(self) -> str:
        ready = self._ready.result()
        if ready.error:
            text = printable(ready.error, _STARTUP_ERROR_CHARACTERS)
            raise WorkerStartFailed(f"backend {self._spawn.backend!r} could not be started: {text}")
        return printable(ready.backend, 128)

    async def _listen(self) -> None:
        path = self._spawn.endpoint
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, str(path), backlog=8)
        path.chmod(0o600)

    def _accept(self) -> WorkerLink:
        link = WorkerLink(
            self,
            lambda: GatewayHandshake(session_id=self._spawn.session_id, secret=self._spawn.secret),
            expected_pid=lambda: self._process.pid if self._process is not None else None,
            frame_bytes=self._settings.workers.frame_bytes,
        )
        self._links.add(link)
        return link

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

    async def stop(self) -> None:
        """End the worker: ask it, then SIGTERM, then SIGKILL; returns when the process is gone and nothing is left."""
        self._stopping = True
        self._acks.cancel()
        process = self._process
        try:
            if process is not None and not process.exited.done():
                grace_s = self._settings.workers.stop_grace_s
                failed = self.ended.done() and self.ended.result().reason is CloseReason.WORKER_SILENT
                if self._link is not None and not failed:
                    self._send(w.WorkerEnvelope(stop=w.Stop(grace_ms=int(grace_s * 1000))))
                    await _done_within(process.exited, grace_s)
                elif not failed:
                    process.terminate()
                    await _done_within(process.exited, grace_s)
                if not process.exited.done():
                    if not failed:
                        log.warning("worker %d did not leave within %.1f s and is killed", process.pid, grace_s)
                    process.kill()
                    await process.exited
        finally:
            if process is not None and not process.exited.done():
                process.kill()  # cancelled while waiting: leave nothing behind
            for link in tuple(self._links):
                link.abort()
            if self._server is not None:
                self._server.close()
            self._spawn.endpoint.unlink(missing_ok=True)
            self._end(CloseReason.CLIENT, "the worker was stopped")
        self._report_exit()

    def kill(self) -> None:
        """End the process at once, unasked; `stop` still has to follow."""
        if self._process is not None and not self._process.exited.done():
            self._process.kill()

    def _report_exit(self) -> None:
        process, end = self._process, self.ended.result()
        if process is None:
            return
        code = process.exited.result()
        if end.reason.is_fault:
            self._data.prune_logs()
        else:
            self._log_file.unlink(missing_ok=True)
        self._plugins.ask(
            "mxgw_worker_exited",
            worker_exit=WorkerExit(self._spawn.session_id, process.pid, code, end.reason.name, end.detail),
        )

    def _end(self, reason: CloseReason, detail: str) -> None:
        if not self.ended.done():
            if self._stopping and reason is CloseReason.WORKER_EXITED:
                reason = CloseReason.CLIENT  # it did as it was told
            self.ended.set_result(WorkerEnd(reason, detail))

    def _exited(self, exited: asyncio.Future[int]) -> None:
        said = f" ({printable(self._goodbye.detail or self._goodbye.reason, 300)})" if self._goodbye else ""
        code = exited.result()
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
        self._end(CloseReason.WORKER_EXITED, f"the worker process {how}{said}")

    def _hint(self) -> str:
        refused = f"; refused connections: {', '.join(self._refused)}" if self._refused else ""
        return f"{refused}; its log is {self._log_file}"

    # LinkOwner

    def resume_after(self, hello: w.Hello) -> int:
        return self._distributor.log.head if hello.epoch == self._distributor.epoch else 0

    def link_claims(self, link: WorkerLink) -> bool:
        if self._link is not None:
            return False
        self._link = link
        assert link.handshake is not None
        self._distributor.epoch = link.handshake.hello.epoch
        return True

    def link_refused(self, reason: str, detail: str) -> None:
        log.warning("session %s: refused a worker connection: %s: %s", self._spawn.session_id, reason, detail)
        if len(self._refused) < 10:
            self._refused.append(reason)

    def link_lost(self, link: WorkerLink, detail: str) -> None:
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
                    block = envelope.events
                    self._distributor.append(block.first_sequence, block.last_sequence, block.events)
                    appended = True
                elif kind == "gap":
                    gap = envelope.gap
                    detail = printable(gap.detail, 300)
                    reason = gap.reason if gap.reason in _GAP_REASONS else GapReason.GAP_REASON_UNSPECIFIED
                    self._distributor.append_gap(LogGap(gap.first_lost, gap.last_lost, reason, detail, gap.count))
                    appended = True
                else:
                    self._received(kind, envelope)
        except OutOfOrder as error:
            self._end(CloseReason.WORKER_PROTOCOL_ERROR, f"the worker broke the numbering of events: {error}")
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
            case "goodbye":
                self._goodbye = envelope.goodbye
                detail = printable(envelope.goodbye.detail or envelope.goodbye.reason, 300)
                self._end(CloseReason.WORKER_EXITED, f"the worker left: {detail}")
            case _:
                raise LinkBroken(f"the worker sent {kind or 'an empty message'}, which is the gateway's to send")

    # towards the worker

    async def call(self, request: w.CommandRequest, timeout_s: float) -> w.CommandReply:
        """Run a command; see `PendingCommands.call` for what it raises.

        Raises:
            InvalidRequest: the command is larger than a frame may be.
        """
        size, limit = request.ByteSize() + _ENVELOPE_BYTES, self._settings.workers.frame_bytes
        if size > limit:
            raise InvalidRequest(
                f"the command takes {size} bytes and a worker is sent {limit} at most: split it, or raise "
                "workers.frame_bytes",
                metadata={"limit": str(limit)},
            )
        return await self.commands.call(request, timeout_s)

    def hold(self, on: bool) -> None:
        """Stop or go on taking messages from the worker; while stopped, its silence is not its fault."""
        self._held = on
        if self._link is not None:
            self._link.hold(on)

    def fail_commands(self, error: GatewayError) -> None:
        """Let every waiting and later command fail with `error`."""
        self.commands.fail_all(error)

    def _send_command(self, correlation_id: int, request: w.CommandRequest) -> None:
        self._send(w.WorkerEnvelope(correlation_id=correlation_id, command=request))

    def _send(self, envelope: w.WorkerEnvelope) -> None:
        if self._link is not None:
            self._link.send(envelope)

    def _send_ack(self, sequence: int) -> None:
        self._send(w.WorkerEnvelope(ack=w.EventAck(sequence=sequence)))


async def _done_within(future: asyncio.Future[int], seconds: float) -> None:
    await asyncio.wait((future,), timeout=seconds)


def new_secret() -> bytes:
    """Return a secret for one worker: 256 bits."""
    return secrets.token_bytes(32)
