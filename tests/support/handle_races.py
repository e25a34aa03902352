"""A worker and the gateway's code for one session in one event loop, where a test decides when each message arrives.

Worker, simulator, command service, guard, filter, item book, log and subscriber are the real ones. The connection
between worker and gateway is replaced by two queues. A test can therefore bring about every order of commands, answers
and events that is possible on a busy machine. The simulator records every call and the item to which it really went.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import events_pb2 as e
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_acl.item_rights import ItemFilter, ItemGuard, ItemRights
from mxgw_acl.keys import Constraints
from mxgw_acl.patterns import ItemPatterns
from mxgw_core.api import CommandGuard
from mxgw_core.api.calls import Call as GatewayCall
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.types import Identity, Peer, SessionInfo
from mxgw_core.config.models import Settings
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.plugins.host import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.command_service import CommandService
from mxgw_core.workers.commands import EncodedCommand
from mxgw_worker.backends.sim.backend import SimBackend
from mxgw_worker.backends.sim.testing import ManualClock
from mxgw_worker.gateway_connection import GatewayConnection
from mxgw_worker.outbox import Block
from mxgw_worker.testing.driver import startup_for
from mxgw_worker.worker import Worker
from support.distributing import EVERYTHING, NO_LIMITS
from support.events import EPOCH, frame_of

# The references that the key with limits can read and write, can only read, can only write, and cannot see.
OPEN, SHOWN, SETTABLE, SECRET = "Bench_001.Count", "Tank_001.Level", "Bench_001.Amount", "Bench_001.Ratio"
REFERENCES = (OPEN, SHOWN, SETTABLE, SECRET)
READABLE, WRITABLE = frozenset({OPEN, SHOWN}), frozenset({OPEN, SETTABLE})
LIMITED, FREE = Identity("limited", "key"), Identity("free", "key")
_VALUES = (e.EVENT_KIND_DATA_CHANGE, e.EVENT_KIND_BUFFERED_DATA_CHANGE)
_WRITES = frozenset({"write", "write2"})

_caller: ContextVar[str] = ContextVar("caller")


@dataclass
class Truth:
    """A record of what really happened in the simulator."""

    # Key: server handle and item handle. Value: the reference of the item that has these handles now.
    meaning: dict[tuple[int, int], str] = field(default_factory=dict)
    # Key: the sequence of an event. Value: the reference of its item, and the kind of the event.
    events: dict[int, tuple[str, int]] = field(default_factory=dict)
    # The caller, method and reference of every call for an item that reached the simulator.
    calls: list[tuple[str, str, str]] = field(default_factory=list)


class WatchedSim(SimBackend):
    """A simulator that records its calls. Each call first waits for `pace` turns of the event loop."""

    def __init__(self, clock: ManualClock, truth: Truth) -> None:
        super().__init__({"resolve_delay_s": 0.0, "update_period_s": 0.05}, clock)
        self.pace = 0
        self._truth = truth

    async def _goes(self, method: str, server_handle: int, item_handle: int) -> None:
        for _ in range(self.pace):
            await asyncio.sleep(0)
        reference = self._truth.meaning.get((server_handle, item_handle), "")
        self._truth.calls.append((_caller.get(), method, reference))

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        for _ in range(self.pace):
            await asyncio.sleep(0)
        handle = await super().add_item(server_handle, item_definition)
        self._truth.meaning[server_handle, handle] = item_definition
        return handle

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        await self._goes("remove_item", server_handle, item_handle)
        await super().remove_item(server_handle, item_handle)
        del self._truth.meaning[server_handle, item_handle]

    async def advise(self, server_handle: int, item_handle: int) -> None:
        await self._goes("advise", server_handle, item_handle)
        await super().advise(server_handle, item_handle)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        await self._goes("un_advise", server_handle, item_handle)
        await super().un_advise(server_handle, item_handle)

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        await self._goes("write", server_handle, item_handle)
        await super().write2(server_handle, item_handle, value, None, user_id)

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        await self._goes("suspend", server_handle, item_handle)
        return await super().suspend(server_handle, item_handle)

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        await self._goes("activate", server_handle, item_handle)
        return await super().activate(server_handle, item_handle)


class _WatchedSink:
    """Records the item of each event that the simulator reports."""

    def __init__(self, worker: Worker, truth: Truth) -> None:
        self._worker, self._truth = worker, truth

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., None] = getattr(self._worker._sink, name)
        if name in ("source_gap", "source_health", "failed"):
            return method

        def noted(server_handle: int, item_handle: int, *rest: Any) -> None:
            outbox = self._worker._outbox
            before = outbox.head_sequence
            method(server_handle, item_handle, *rest)
            if outbox.head_sequence > before:
                kind = {"data_change": 1, "write_complete": 2, "operation_complete": 3}[name]
                reference = self._truth.meaning.get((server_handle, item_handle), "")
                self._truth.events[outbox.head_sequence] = reference, kind

        return noted


class _Wire:
    """The worker's end of the connection to the gateway."""

    is_writable = True
    send_records = GatewayConnection.send_records

    def __init__(self, out: deque[w.WorkerEnvelope]) -> None:
        self._out = out

    def send(self, envelope: w.WorkerEnvelope) -> None:
        self._out.append(w.WorkerEnvelope.FromString(envelope.SerializeToString()))

    def send_events(self, events: Block | w.WorkerGap) -> None:
        if isinstance(events, Block):
            block = w.EventBlock(
                first_sequence=events.first_sequence,
                last_sequence=events.last_sequence,
                events=b"".join(events.records),
            )
            self.send(w.WorkerEnvelope(events=block))
        else:
            self.send(w.WorkerEnvelope(gap=events))


class _Tasks:
    """A replacement for the TaskGroup that a worker uses."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.tasks: set[asyncio.Task[Any]] = set()
        # Exceptions with which tasks ended. There must be none: a run in which tasks fail would prove nothing.
        self.failures: list[BaseException] = []

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        task = self._loop.create_task(coro, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)


class _Access(AccessControl):
    """Checks the caller with limits by one guard; the other caller has all rights."""

    def __init__(self, guard: ItemGuard) -> None:
        super().__init__(PluginHost())
        self._guard = guard

    def guards(self, session: SessionInfo, identity: Identity) -> Sequence[CommandGuard]:
        return [self._guard] if identity == LIMITED else []


class _Session:
    """The parts of a session that the command service uses."""

    def __init__(self, race: HandleRace) -> None:
        self.items = ItemBook(1000)
        self.worker = SimpleNamespace(commands=SimpleNamespace(call=race.send))

    def info(self) -> None: ...

    def require_ready(self) -> None: ...

    def touch(self) -> None: ...


class HandleRace:
    """One session with its worker. Tasks run only during `turns` and the methods that call it."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.clock = ManualClock()
        self.sim = WatchedSim(self.clock, self.truth)
        self.to_worker: deque[tuple[int, Identity, w.CommandRequest]] = deque()
        self.to_gateway: deque[w.WorkerEnvelope] = deque()
        # The sequences of the events that the subscriber with limits got.
        self.shown: set[int] = set()
        # Key: a reason of a refusal. Value: how often it was given, for a single command or for one item of a bulk
        # call.
        self.reasons: Counter[str] = Counter()
        self._waiting: dict[int, asyncio.Future[w.CommandReply]] = {}
        self._last_id = 0
        readable, writable = ItemPatterns(tuple(READABLE)), ItemPatterns(tuple(WRITABLE))
        self._rights = ItemRights(Constraints(readable=readable, writable=writable), writes=True)
        self._asking: ContextVar[Identity] = ContextVar("asking")

    async def start(self) -> None:
        """Start the worker, connect it to the gateway, and register once."""
        self._tasks = _Tasks(asyncio.get_running_loop())
        self._wire = _Wire(self.to_gateway)
        self._worker = worker = Worker(startup_for(cast("Any", "/nowhere"), "sim"), lambda: self.sim)
        await self.sim.start(cast("Any", _WatchedSink(worker, self.truth)))
        worker._dispatcher = worker._make_dispatcher(cast("Any", self._tasks), self.sim)
        worker._ready = w.Ready(backend="sim")
        worker._connection = cast("Any", self._wire)
        self._connected()
        self.ask(FREE, register=c.RegisterCommand(client_name="race"))
        await self.settle()

    def _connected(self) -> None:
        self.session = _Session(self)
        self.distributor = Distributor(unattached=EVERYTHING, items=self.session.items, clock=self.clock.monotonic)
        self.distributor.epoch = EPOCH
        self.distributor.retain(EVERYTHING)
        self._reader = self.distributor.attach(
            "limited",
            Start.NOW,
            limits=NO_LIMITS,
            policy=DisconnectPolicy(),
            filters=[ItemFilter(self._rights)],
        )
        access = _Access(ItemGuard(self._rights))
        registry = SimpleNamespace(info=lambda _: None, get=lambda _: self.session)
        self._service = CommandService(Settings(), cast("Any", registry), access)

    async def send(
        self, request: w.CommandRequest, timeout_s: float, mx: EncodedCommand | None = None
    ) -> w.CommandReply:
        """Take the place of `PendingCommands.call`: queue a command for the worker, and wait for its answer."""
        del timeout_s
        if mx is not None:
            request.mx.MergeFromString(mx.data)
        self._last_id += 1
        future: asyncio.Future[w.CommandReply] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = future
        self.to_worker.append((self._last_id, self._asking.get(), request))
        return await future

    # What a test can let happen

    def ask(self, who: Identity, **command: Any) -> None:
        """Let a caller send a command. The gateway checks its rights in the next turn of the loop."""
        self._tasks.create_task(self._asked(who, c.MxCommand(**command)))

    async def _asked(self, who: Identity, command: c.MxCommand) -> None:
        self._asking.set(who)
        call = GatewayCall("/mxgw.v1.CommandService/Invoke", who, Peer("unix", is_local=True), None)
        try:
            reply = (await self._service.Invoke(cs.InvokeRequest(session_id="s", command=command), call)).reply
        except GatewayError as error:
            self.reasons[error.reason] += 1
            return
        self.reasons.update(reason for reason in (reply.reason, *(i.reason for i in reply.bulk.items)) if reason)

    async def let_to_worker(self, count: int) -> None:
        """Pass the next `count` commands of the queue to the worker."""
        for _ in range(min(count, len(self.to_worker))):
            correlation_id, who, request = self.to_worker.popleft()
            token = _caller.set(who.id)
            envelope = w.WorkerEnvelope(correlation_id=correlation_id, command=request)
            self._worker._received(cast("Any", self._wire), envelope)
            _caller.reset(token)

    def let_to_gateway(self, count: int) -> None:
        """Pass the next `count` messages of the queue to the gateway, and read what the subscriber can get."""
        for _ in range(min(count, len(self.to_gateway))):
            envelope = self.to_gateway.popleft()
            match envelope.WhichOneof("body"):
                case "item_records":
                    self.session.items.take(envelope.item_records)
                case "events":
                    block = envelope.events
                    self.distributor.append(block.first_sequence, block.last_sequence, block.events)
                case "reply":
                    self._waiting.pop(envelope.correlation_id).set_result(envelope.reply)
                case other:
                    raise AssertionError(other)
        while (item := self._reader.take(1 << 20)) is not None:
            assert not isinstance(item, Gap)
            if isinstance(item, Chunk):
                self.shown |= {event.sequence for event in frame_of(item).events.events}

    def time_passes(self) -> None:
        """Move the clock, so that the simulator completes writes and changes values."""
        self.clock.advance(0.06)

    def gateway_restarts(self) -> None:
        """Connect another gateway to the worker.

        All messages in both queues are lost, and the new gateway learns the items from new item records.
        """
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        self.to_worker.clear()
        self.to_gateway = deque()  # answers that the worker still sends on the old connection are ignored
        self.shown.clear()
        worker = self._worker
        worker._connection = None
        worker._outbox.resume(0)
        self._connected()
        self._wire = _Wire(self.to_gateway)
        self._wire.send_records(worker._items.records())
        worker._connection = cast("Any", self._wire)
        worker._flush()

    async def turns(self, count: int) -> None:
        """Give all tasks `count` turns of the event loop."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Pass on messages and move the clock until every command is answered."""
        self.sim.pace = 0
        for _ in range(6):
            for _ in range(8):
                await self.let_to_worker(len(self.to_worker))
                await self.turns(12)
                self.let_to_gateway(len(self.to_gateway))
            self.time_passes()
        await self.turns(12)
        self.let_to_gateway(len(self.to_gateway))

    async def end(self) -> None:
        """Cancel all tasks and stop the simulator. Raise the exceptions with which tasks ended."""
        for task in tuple(self._tasks.tasks):
            task.cancel()
        if self._tasks.tasks:
            await asyncio.wait(self._tasks.tasks)
        await self.sim.stop()
        if self._tasks.failures:
            raise ExceptionGroup("tasks failed", [e for e in self._tasks.failures if isinstance(e, Exception)])

    # What a test checks afterwards

    def forbidden_calls(self) -> Sequence[tuple[str, str]]:
        """Return the calls of the caller with limits that reached items for which it has no right."""
        return [
            (method, reference)
            for who, method, reference in self.truth.calls
            if who == LIMITED.id and reference not in (WRITABLE if method in _WRITES else READABLE | WRITABLE)
        ]

    def wrongly_shown_or_withheld(self) -> Sequence[tuple[int, str, int]]:
        """Return the events for which the subscriber with limits and its rights disagree.

        It got the event without the right to see it, or it did not get the event although it has the right.
        """
        return [
            (sequence, reference, kind)
            for sequence, (reference, kind) in self.truth.events.items()
            if (reference in (READABLE if kind in _VALUES else READABLE | WRITABLE)) is not (sequence in self.shown)
        ]
