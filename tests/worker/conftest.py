"""A worker's inside around a scripted backend, without process or socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import Event, EventBatch
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest
from mxgw_worker import platform
from mxgw_worker.alarms import AlarmWatch
from mxgw_worker.dispatch import Dispatcher
from mxgw_worker.items import ItemTable
from mxgw_worker.methods import Methods
from mxgw_worker.outbox import Block, Outbox
from mxgw_worker.read_bulk import ReadBulk
from mxgw_worker.sink import WorkerSink
from mxgw_worker.snapshots import Snapshots
from mxgw_worker.testing import ScriptedBackend, WorkerDriver
from mxgw_worker.testing.driver import startup_for
from mxgw_worker.turns import BackendTurn
from mxgw_worker.views import Views
from mxgw_worker.worker import ExitCode, Worker
from mxgw_worker.writes import Writes

FRAME_BYTES = 64 * 1024


class Inside:
    """Dispatcher, sink and outbox of one worker."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        backend: ScriptedBackend,
        *,
        completion_timeout_s: float = 30.0,
        read_timeout_s: float = 10.0,
        maximum_items: int = 100,
        maximum_reference_bytes: int = 1 << 20,
    ) -> None:
        self.backend = backend
        self.failure = ""
        self.outbox = Outbox(limit_events=10_000, limit_bytes=1 << 20, maximum_frame_bytes=FRAME_BYTES)
        self.items = ItemTable(lambda: self.outbox.head_sequence)
        self.writes = Writes(completion_timeout_s)
        self.sink = WorkerSink(
            outbox=self.outbox,
            items=self.items,
            writes=self.writes,
            on_event=lambda: None,
            on_failed=lambda detail: setattr(self, "failure", detail),
        )
        methods = Methods(
            backend=backend,
            items=self.items,
            writes=self.writes,
            turn=BackendTurn(),
            maximum_items=maximum_items,
            maximum_reference_bytes=maximum_reference_bytes,
        )
        self.dispatcher = Dispatcher(
            tasks=tasks,
            methods=methods,
            read_bulk=ReadBulk(methods, read_timeout_s),
            views=Views(methods=methods, outbox=self.outbox, sink=self.sink, maximum_frame_bytes=FRAME_BYTES),
            snapshots=Snapshots(items=methods.items, outbox=self.outbox, maximum_frame_bytes=FRAME_BYTES),
            alarms=AlarmWatch(methods=methods, maximum_frame_bytes=FRAME_BYTES),
            maximum_frame_bytes=FRAME_BYTES,
        )
        self._events: list[Event] = []

    def submit(self, request: CommandRequest | c.MxCommand, timeout_ms: int = 60_000) -> asyncio.Future[CommandReply]:
        """Hand over a request; the future gets its reply, and a second reply would be an error."""
        reply: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        if isinstance(request, c.MxCommand):
            request = CommandRequest(mx=request)
        if not request.timeout_ms:
            request.timeout_ms = timeout_ms
        self.dispatcher.submit(request, reply.set_result)
        return reply

    async def mx(self, command: c.MxCommand, timeout_ms: int = 60_000) -> c.MxReply:
        """Run an MXAccess command."""
        reply = await self.submit(command, timeout_ms)
        assert reply.WhichOneof("reply") == "mx", reply
        return reply.mx

    async def register(self) -> int:
        return (await self.mx(c.MxCommand(register=c.RegisterCommand(client_name="test")))).server_handle

    async def add(self, server: int, reference: str, *, advise: bool = True) -> int:
        add = c.AddItemCommand(server_handle=server, item_definition=reference)
        handle = (await self.mx(c.MxCommand(add_item=add))).item_handle
        if advise:
            await self.mx(c.MxCommand(advise=c.AdviseCommand(server_handle=server, item_handle=handle)))
        return handle

    def events(self) -> list[Event]:
        """Return all events numbered so far."""
        while isinstance(block := self.outbox.take(1 << 20), Block):
            self._events.extend(EventBatch.FromString(b"".join(block.records)).events)
        return self._events


InsideOf = Callable[..., AbstractAsyncContextManager[Inside]]


@pytest.fixture
def inside() -> InsideOf:
    """Return a context manager that runs the inside of a worker and ends what is left of its commands."""

    @asynccontextmanager
    async def run(backend: ScriptedBackend | None = None, **limits: float) -> AsyncIterator[Inside]:
        backend = backend or ScriptedBackend()
        async with asyncio.TaskGroup() as tasks:
            worker = Inside(tasks, backend, **limits)  # type: ignore[arg-type]
            await backend.start(worker.sink)
            yield worker
            for hold in backend.holds.values():
                hold.set()
            await worker.dispatcher.cancel()

    return run


Attached = Callable[..., AbstractAsyncContextManager[tuple[WorkerDriver, asyncio.Task[ExitCode]]]]


@pytest.fixture
def attached(tmp_path: Path) -> Attached:
    """Return a context manager that runs a whole worker around a scripted backend, connected by a real socket."""

    @asynccontextmanager
    async def run(
        backend: ScriptedBackend, *, is_ready: bool = True, **startup_fields: object
    ) -> AsyncIterator[tuple[WorkerDriver, asyncio.Task[ExitCode]]]:
        startup = startup_for(platform.endpoint_in(tmp_path, "worker"), "scripted")
        for name, value in startup_fields.items():
            setattr(startup, name, value)
        driver = WorkerDriver(startup, (), tmp_path / "worker.log")
        await driver.listen()
        try:
            async with asyncio.TaskGroup() as tasks:
                worker = Worker(startup, lambda: backend)
                running = tasks.create_task(worker.run())
                await driver.accept()
                await driver.shake_hands()
                if is_ready:
                    await driver.ready()
                yield driver, running
                for hold in backend.holds.values():
                    hold.set()
                await driver.close()
                worker.stop("the test is over")
        finally:
            await driver.close()

    return run
