"""The sessions of a gateway over several restarts, without real processes and sockets.

The registry, sessions, the gateway's objects for workers, the handshake, the manifest, the detach grace, the event log
and the outbox are the real ones. Processes, their connections and the server are replaced by stand-ins, and time moves
only when a test moves it.

This module has more than 400 lines, because the stand-ins are of use only together.
"""

from __future__ import annotations

import asyncio
import selectors
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TypeVar, cast
from unittest.mock import patch

from mxgw.worker.v1.worker_pb2 import CommandReply, Pong, Ready, WorkerEnvelope, WorkerStartup
from mxgw_core.api import hookimpl
from mxgw_core.api.workers import WorkerIdentity, WorkerSpawn
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.plugins import PluginHost
from mxgw_core.sessions import registry as registry_module
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.workers import session_worker as worker_module
from mxgw_core.workers.endpoint import ExpectedWorker
from mxgw_core.workers.orphans import orphans_of
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.session_worker import SessionWorker
from mxgw_reattach.plugin import ReattachPlugin
from mxgw_reattach.settings import ReattachSettings
from mxgw_replay import ReplayPlugin, ReplaySettings
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.ipc.handshake import GatewayHandshake, WorkerHandshake
from mxgw_worker.outbox import Block, Outbox
from mxgw_worker.platform import pid_scope
from support.events import batch

T = TypeVar("T")

FRAME_BYTES = 1 << 20
_FRAME_HEADER_BYTES = 4


class StillSelector(selectors.SelectSelector):
    """Never waits for a timer, because the time of `StillLoop` does not pass by itself."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(0)


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when a test moves it."""

    def __init__(self) -> None:
        super().__init__(StillSelector())
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run everything that can run without moving the time."""
        inner: Any = self
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            timers = [timer for timer in inner._scheduled if not timer.cancelled() and timer.when() <= self.now]
            if not inner._ready and not timers:
                return

    def move(self, until: float) -> bool:
        """Move the time to the next timer, but not beyond `until`. Return True when `until` is not yet reached."""
        inner: Any = self
        next_s = min((timer.when() for timer in inner._scheduled if not timer.cancelled()), default=until)
        self.now = max(self.now, min(next_s, until))
        self.settle()
        return self.now < until

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function within the loop, and then run everything that can run without moving the time."""

        async def call() -> T:
            return function(*arguments)

        result: T = self.finish(call()).result()
        return result

    def finish(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a coroutine, and run it as far as it gets without moving the time."""
        task = self.create_task(coroutine)
        self.settle()
        return task


class Process:
    """The process of a worker and the program in it. It goes on when a gateway ends."""

    def __init__(self, world: World, startup: WorkerStartup) -> None:
        self._world = world
        self.startup = startup
        self.session_id = startup.session_id
        self.pid = world.next_pid()
        self.start_ticks = self.pid * 10
        self.secret = startup.secret
        self.outbox = Outbox(
            limit_events=startup.outbox_events, limit_bytes=startup.outbox_bytes, maximum_frame_bytes=FRAME_BYTES
        )
        self.is_alive = True
        # True when the process ignores requests to end.
        self.is_stubborn = False
        self.was_welcomed = False
        self.leaves_at: float | None = None
        self.connection: Connection | None = None
        self.handles: list[Handle] = []

    def event(self) -> None:
        self.outbox.append(batch([self.outbox.head_sequence + 1]))
        self.flush()

    def flush(self) -> None:
        """Send all events that are not sent yet."""
        while self.connection is not None and self.connection.is_ready:
            match self.outbox.take(FRAME_BYTES // 2):
                case None:
                    return
                case Block() as block:
                    self.connection.bring(WorkerEnvelope.FromString(block_frame(block)[_FRAME_HEADER_BYTES:]))
                case gap:
                    self.connection.bring(WorkerEnvelope(gap=gap))

    def connect(self, upto: str = "ready") -> None:
        """Connect to the endpoint of the gateway and handshake up to the step `upto`: proved, welcomed or ready."""
        endpoint = self._world.endpoints[self.startup.endpoint]
        mine = WorkerHandshake(
            session_id=self.session_id,
            secret=self.secret,
            epoch=self.outbox.epoch,
            pid=self.pid,
            start_ticks=self.start_ticks,
        )
        theirs = endpoint.expected.handshake()
        hello = mine.hello(self.outbox.head_sequence, self.outbox.oldest_sequence)
        proof = mine.on_challenge(theirs.on_hello(hello))
        welcome = theirs.on_proof(proof, endpoint.owner.resume_after(theirs.hello))
        self.connection = Connection(self, endpoint.owner, theirs)

        assert endpoint.owner.claim(cast("Any", self.connection))
        if upto == "proved":
            return
        resume_after = mine.on_welcome(welcome)
        self.secret, self.was_welcomed, self.leaves_at = mine.next_secret, True, None
        self.outbox.resume(resume_after)
        if upto == "welcomed":
            return
        self.connection.is_ready = True
        self.connection.bring(WorkerEnvelope(ready=Ready(backend="a stand-in")))
        self.flush()

    def cut(self, now: float) -> None:
        """Lose the connection, because the gateway has ended."""
        self.connection, self.handles, self.is_stubborn = None, [], False
        lifetime_s = self.startup.orphan_lifetime_ms / 1000
        if not self.was_welcomed:
            self.is_alive = False
        elif self.leaves_at is None:
            self.leaves_at = now + lifetime_s

    def die(self, code: int) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        for handle in self.handles:
            if not handle.exited.done():
                handle.exited.set_result(code)
        self.connection = None


class Connection:
    """The connection of a worker to this gateway, as the gateway uses it."""

    def __init__(self, process: Process, owner: SessionWorker, handshake: GatewayHandshake) -> None:
        self._process = process
        self._owner = owner
        self.handshake = handshake
        self.is_ready = False

    def bring(self, envelope: WorkerEnvelope) -> None:
        self._owner.on_messages([envelope])

    def send(self, envelope: WorkerEnvelope) -> None:
        asyncio.get_running_loop().call_soon(self._arrives, envelope)

    def _arrives(self, envelope: WorkerEnvelope) -> None:
        process = self._process
        if process.connection is not self:
            return
        match envelope.WhichOneof("body"):
            case "ack":
                process.outbox.acknowledge(envelope.ack.sequence)
            case "ping":
                self.bring(WorkerEnvelope(pong=Pong(token=envelope.ping.token)))
            case "command":
                self.bring(WorkerEnvelope(correlation_id=envelope.correlation_id, reply=CommandReply()))
            case "stop" if not process.is_stubborn:
                process.die(0)

    def hold(self, on: bool) -> None:
        del on


class Handle:
    """The process of a worker, as one gateway uses it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid, self.start_ticks = process.pid, process.start_ticks
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        process.handles.append(self)

    def _is_held(self) -> bool:
        """Return False when the gateway was killed. Tasks of it that still run must not do anything to the process."""
        if self not in self._process.handles and not self.exited.done():
            self.exited.set_result(None)
        return self in self._process.handles

    def terminate(self) -> None:
        if self._is_held() and not self._process.is_stubborn:
            self._process.die(0)

    def kill(self) -> None:
        if self._is_held():
            self._process.die(-9)

    def leave(self) -> None:
        if self in self._process.handles:
            self._process.handles.remove(self)


class Endpoint:
    """The place to which the worker of one session connects."""

    def __init__(self, world: World, spawn: WorkerSpawn, owner: SessionWorker, expected: ExpectedWorker) -> None:
        self._world = world
        self._path = str(spawn.endpoint)
        self.owner = owner
        self.expected = expected

    async def listen(self) -> None:
        self._world.endpoints[self._path] = self

    def close(self) -> None:
        if self._world.endpoints.get(self._path) is self:
            del self._world.endpoints[self._path]

    def refusals_in_words(self) -> str:
        return ""


class Pool(WarmPool):
    """Starts stand-ins for worker processes."""

    world: World

    def start(self, startup: WorkerStartup, log_file: Path, on_started: Callable[[Any], None]) -> Any:
        del log_file
        process = Process(self.world, startup)
        self.world.processes[startup.session_id] = process
        handle = Handle(process)
        on_started(handle)
        return handle


class Authenticates:
    """A plugin that authenticates, because only then do sessions have owners."""

    @hookimpl
    def mxgw_authenticate(self, request: object) -> None:
        del request


class Host(PluginHost):
    """The plugins of one run of the gateway. After the gateway was killed, no hook is called any more."""

    def __init__(self, **plugins: object) -> None:
        super().__init__()
        for name, plugin in plugins.items():
            self._plugins.register(plugin, name=name)
        self._prepare()
        self.is_dead = False

    def ask(self, hook: str, /, **arguments: Any) -> Any:
        return [] if self.is_dead else super().ask(hook, **arguments)


class Gateway:
    """One run of the gateway on the directory and processes of `world`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.host = world.host
        self.host.is_dead = False
        self._stopping = asyncio.Event()
        self.left = 0
        self.registry: SessionRegistry
        self._task = world.loop.finish(self._run())

    async def _run(self) -> None:
        world = self._world
        async with AsyncExitStack() as stack:
            data = stack.enter_context(DataDirectory(world.settings.gateway.data_dir))
            seen: Any = SimpleNamespace(
                data_dir=data.path,
                data_dir_id=data.id,
                remembered_sessions=world.settings.limits.remembered_sessions,
            )
            await stack.enter_async_context(world.reattach.mxgw_gateway_context(seen))
            registry = SessionRegistry(world.settings, self.host, data, clock=world.loop.time)
            pool = registry.pool = Pool(0, "sim", data.log_of_spare, remove=data.remove_later)
            pool.world = world
            await stack.enter_async_context(registry)
            for answer in self.host.ask("mxgw_ended_sessions"):
                registry.remember(answer.value)
            for orphan, decision in orphans_of(self.host):
                registry.take_over(orphan, decision)
            self.registry = registry
            await self._stopping.wait()
            self.left = registry.release_all()
            await registry.wait_closed()

    def stop(self) -> None:
        """End the gateway in order. It has been draining since `registry.drain` was called."""
        self._stopping.set()
        self._world.loop.settle()
        self._task.result()
        self._gone()

    def kill(self) -> None:
        """End the gateway as SIGKILL does: nothing of it runs on."""
        self.host.is_dead = True
        self._gone()
        for _ in range(20):
            if self._task.done():
                break
            for task in asyncio.all_tasks(self._world.loop):
                task.cancel()
            self._world.loop.settle()

        assert self._task.done()

    def _gone(self) -> None:
        self._world.endpoints.clear()
        for process in self._world.processes.values():
            if process.is_alive:
                process.cut(self._world.loop.now)


class World:
    """Everything that goes on when a gateway ends: the directory, the processes and the time.

    Call `close` at the end.
    """

    def __init__(
        self,
        *,
        grace_s: float | str,
        outbox_events: int,
        lifetime_s: float,
        adopt_within_s: float,
        unattached_events: int = 20_000,
        retained_events: int | None = 100_000,
    ) -> None:
        """With `retained_events` None there is no plugin `replay`, so that there is no detach grace either."""
        self._stack = ExitStack()
        memory = Path("/dev/shm")  # in memory if possible, so that the disk is not used
        directory = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="mxgw-", dir=memory if memory.is_dir() else None)
        )
        self.loop = StillLoop()
        self._stack.callback(self.loop.close)
        self.settings = Settings.model_validate(
            {
                "gateway": {"data_dir": directory},
                "limits": {"sessions": 5, "sessions_per_owner": 3, "sweep_interval_s": 5.0},
                "workers": {"outbox_events": outbox_events, "heartbeat_interval_s": 60.0},
                "events": {"unattached_events": unattached_events},
            }
        )
        # The plugins are made once for all runs, because making them takes most of a start. They keep what they know of
        # sessions in the manifest, so a new run starts with an empty state.
        self.reattach, replay = ReattachPlugin(), ReplayPlugin()
        self.reattach.mxgw_settings().apply(
            ReattachSettings(
                max_orphan_lifetime_seconds=lifetime_s, adopt_within_seconds=adopt_within_s, check_environment=False
            )
        )
        plugins: dict[str, object] = {"reattach": self.reattach, "authenticates": Authenticates()}
        if retained_events is not None:
            kept = {"detach_grace_seconds": grace_s, "seconds": 0.0, "events": retained_events}
            replay.mxgw_settings().apply(ReplaySettings.model_validate(kept))
            plugins["replay"] = replay
        self.host = Host(**plugins)
        self.processes: dict[str, Process] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self._pids = 100

        def endpoint(
            spawn: WorkerSpawn, owner: SessionWorker, expected: ExpectedWorker, plugins: PluginHost, *others: object
        ) -> Endpoint:
            del plugins, others
            return Endpoint(self, spawn, owner, expected)

        def find(worker: WorkerIdentity) -> Handle | None:
            found = self.processes.get(worker.session_id)
            is_it = found is not None and (found.pid, found.start_ticks) == (worker.pid, worker.start_ticks)

            assert worker.boot_id == pid_scope()
            return Handle(found) if found is not None and is_it and found.is_alive else None

        self._stack.enter_context(patch.object(worker_module, "Endpoint", endpoint))
        self._stack.enter_context(patch.object(worker_module, "found_again", find))
        # Switch off the regular check of memory, which would be a timer, and so a step of time.
        self._stack.enter_context(patch.object(registry_module, "_MEMORY_WATCH_S", 1e9))

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def start(self) -> Gateway:
        return Gateway(self)

    def pass_time(self, seconds: float, look: Callable[[], None]) -> None:
        """Let time pass. Call `look` after each step of time in which something can have happened."""
        until = self.loop.now + seconds
        is_more = True
        while is_more:
            leaving = [
                p.leaves_at for p in self.processes.values() if p.is_alive and p.connection is None and p.leaves_at
            ]
            is_more = (
                self.loop.move(min([until, *(at for at in leaving if at > self.loop.now)])) or self.loop.now < until
            )
            for process in self.processes.values():
                if process.connection is None and process.leaves_at is not None and process.leaves_at <= self.loop.now:
                    process.die(6)
            self.loop.settle()
            look()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
