"""A demo server in its own process, a cuttable proxy in front of it, and a sink that keeps what it is given."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from asyncua import Client

from mxgw.convert import from_value
from mxgw.v1.events_pb2 import GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.opcua import OpcUaBackend

NS = "ns=2;s="
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Change:
    """A data change as the sink got it; messages copied, since the caller may reuse its own."""

    server: int
    item: int
    message: MxValue
    quality: int
    time_ns: int | None
    statuses: tuple[MxStatus, ...]

    @property
    def value(self) -> object:
        return from_value(self.message)


@dataclass(frozen=True)
class Complete:
    kind: str
    item: int
    statuses: tuple[MxStatus, ...]


@dataclass(frozen=True)
class Buffered:
    item: int
    data_type: int
    values: object
    qualities: tuple[int, ...]
    times_ns: tuple[int, ...]
    statuses: tuple[MxStatus, ...]


@dataclass(frozen=True)
class Gap:
    reason: int
    detail: str


@dataclass(frozen=True)
class Health:
    health: int
    detail: str


Happening: TypeAlias = Change | Complete | Buffered | Gap | Health


@dataclass
class Sink:
    """Implements `EventSink`: keeps everything in order and wakes whoever waits for it."""

    log: list[Happening] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        self._keep(Change(server_handle, item_handle, _copy(value), quality, source_time_ns, _copies(statuses)))

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._keep(Complete("write", item_handle, _copies(statuses)))

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._keep(Complete("operation", item_handle, _copies(statuses)))

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        source_times_ns: Sequence[int],
        statuses: Sequence[MxStatus],
    ) -> None:
        self._keep(
            Buffered(
                item_handle,
                data_type,
                from_value(value),
                tuple(qualities),
                tuple(source_times_ns),
                _copies(statuses),
            )
        )

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        self._keep(Gap(reason, detail))

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:
        self._keep(Health(health, detail))

    def failed(self, detail: str) -> None:
        self.failures.append(detail)

    def changes(self, item: int | None = None) -> list[Change]:
        return [entry for entry in self.log if isinstance(entry, Change) and item in (None, entry.item)]

    def completions(self, kind: str, item: int | None = None) -> list[Complete]:
        return [e for e in self.log if isinstance(e, Complete) and e.kind == kind and item in (None, e.item)]

    def buffered(self) -> list[Buffered]:
        return [entry for entry in self.log if isinstance(entry, Buffered)]

    def gaps(self) -> list[Gap]:
        return [entry for entry in self.log if isinstance(entry, Gap)]

    def healths(self) -> list[int]:
        return [entry.health for entry in self.log if isinstance(entry, Health)]

    async def until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Return when `condition` holds; it is looked at after every happening."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def first(self, item: int, timeout_s: float = TIMEOUT_S) -> Change:
        """Return the item's first data change."""
        await self.until(lambda: bool(self.changes(item)), timeout_s)
        return self.changes(item)[0]

    async def written(self, item: int, count: int = 1) -> Complete:
        """Return the item's `count`-th write completion."""
        await self.until(lambda: len(self.completions("write", item)) >= count)
        return self.completions("write", item)[count - 1]

    def _keep(self, entry: Happening) -> None:
        self.log.append(entry)
        self._arrived.set()


def _copy(value: MxValue) -> MxValue:
    copy = MxValue()
    copy.CopyFrom(value)
    return copy


def _copies(statuses: Sequence[MxStatus]) -> tuple[MxStatus, ...]:
    copies = []
    for status in statuses:
        copy = MxStatus()
        copy.CopyFrom(status)
        copies.append(copy)
    return tuple(copies)


@contextmanager
def demo_process(*arguments: str, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Run a demo server; it is killed in the end, since leaving in good order takes it a second."""
    endpoint = f"opc.tcp://127.0.0.1:{port}/mxgw/demo"
    command = [sys.executable, "-m", "mxgw_worker.backends.opcua.demo_server", "--endpoint", endpoint, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """Return the endpoint of a demo server, once, when it is ready."""
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["endpoint"])


def port_of(endpoint: str) -> int:
    """Return the port of an endpoint."""
    return urlsplit(endpoint).port or 0


async def dropped_subscriptions(endpoint: str) -> int:
    """Have the server forget all subscriptions in silence; return how many there were."""
    async with Client(endpoint, timeout=60) as client:
        control = client.get_node(NS + "Control")
        return int(await control.call_method(client.get_node(NS + "Control.DropSubscriptions").nodeid))


@asynccontextmanager
async def running_backend(
    endpoint: str, options: Mapping[str, object] | None = None
) -> AsyncIterator[tuple[OpcUaBackend, Sink]]:
    backend, sink = OpcUaBackend({"url": endpoint, **(options or {})}), Sink()
    await backend.start(sink)
    try:
        yield backend, sink
    finally:
        await backend.stop()

    assert sink.failures == []


class Proxy:
    """Forwards TCP to `port` until `cut`; `heal` lets new connections through again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._server: asyncio.Server | None = None
        self.port = 0
        self.refused = asyncio.Event()  # set when a connection was turned away

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def heal(self) -> None:
        self._is_cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            self.refused.set()
            return
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, onward_writer}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pump(reader, onward_writer))
            tasks.create_task(self._pump(onward_reader, writer))
        self._open -= {writer, onward_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_proxy(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
