"""Writing to gRPC without a task, and with one where that cannot be done: what comes of it is the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
from support.clients import client_of, read_events
from support.clock import advance
from support.loads import load_names
from support.waiting import until

from mxgw_core.rpc.writers import GrpcStream, PeerGone, ResponseWriter, WriteDriver
from mxgw_core.testing import running_gateway

LOAD = {"backends.sim.profile": "load", "backends.sim.items": 2, "backends.sim.rate": 500}

both_ways = pytest.mark.parametrize("drives", [True, False], ids=["driven", "with tasks"])


class Context:
    """A call's context whose writes wait for futures that a test resolves, `waits` of them for each message."""

    def __init__(self, waits: int = 1) -> None:
        self.waits = waits
        self.sent: list[object] = []
        self.ended: list[object] = []
        self.pending: asyncio.Future[None] | None = None

    async def send_initial_metadata(self, _: object) -> None:
        self.sent.append("headers")

    async def write(self, data: bytes) -> None:
        self.sent.append(data)
        for _ in range(self.waits):
            self.pending = asyncio.get_running_loop().create_future()
            try:
                await self.pending
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
        self.ended.append(data)

    async def land(self, error: Exception | None = None) -> None:
        await turns()
        assert self.pending is not None
        if error is None:
            self.pending.set_result(None)
        else:
            self.pending.set_exception(error)
        await turns()


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def stream_of(context: Context, *, drives: bool) -> tuple[GrpcStream, list[BaseException | None]]:
    """Return a stream, and what its `on_writable` was called with."""
    driver = WriteDriver()
    driver.works = drives
    stream, ended = GrpcStream(context, driver), list[BaseException | None]()  # type: ignore[arg-type]
    stream.on_writable = ended.append
    return stream, ended


@pytest.mark.asyncio
@both_ways
@pytest.mark.parametrize("waits", [1, 3])
async def test_a_write_is_pending_until_the_transport_took_it(drives: bool, waits: int) -> None:
    context = Context(waits)
    stream, ended = stream_of(context, drives=drives)

    assert not stream.try_write(b"first")
    assert stream.unsent_bytes == 5

    for _ in range(waits):
        assert ended == []

        await context.land()

    assert (ended, stream.unsent_bytes) == ([None], 0)
    assert not stream.try_write(b"second")

    for _ in range(waits):
        await context.land()

    assert context.ended == [b"first", b"second"]
    assert ended == [None, None]


@pytest.mark.asyncio
async def test_a_driven_write_begins_at_once_and_may_have_finished_at_once() -> None:
    context = Context(waits=0)
    stream, ended = stream_of(context, drives=True)

    assert stream.try_write(b"now")
    assert (context.ended, ended, stream.unsent_bytes) == ([b"now"], [], 0)


@pytest.mark.asyncio
@both_ways
async def test_whoever_is_called_may_write_on(drives: bool) -> None:
    context = Context()
    stream, ended = stream_of(context, drives=drives)

    def go_on(error: BaseException | None) -> None:
        ended.append(error)
        if len(ended) < 3:
            stream.try_write(b"more")

    stream.on_writable = go_on
    stream.try_write(b"more")
    for _ in range(3):
        await context.land()

    assert (ended, context.ended) == ([None] * 3, [b"more"] * 3)


@pytest.mark.asyncio
@both_ways
async def test_a_failed_write_says_that_the_client_is_gone(drives: bool) -> None:
    context = Context()
    stream, ended = stream_of(context, drives=drives)
    stream.try_write(b"lost")
    await context.land(RuntimeError("reset"))

    assert [type(error) for error in ended] == [PeerGone]
    assert stream.unsent_bytes == 0


@pytest.mark.asyncio
async def test_a_driven_write_that_fails_as_it_begins_raises() -> None:
    class Closed(Context):
        async def write(self, data: bytes) -> None:
            raise RuntimeError("closed")

    stream, ended = stream_of(Closed(), drives=True)
    with pytest.raises(PeerGone):
        stream.try_write(b"lost")

    assert ended == []


@pytest.mark.asyncio
@both_ways
async def test_an_aborted_write_is_cancelled_and_nobody_is_called(drives: bool) -> None:
    context = Context()
    stream, ended = stream_of(context, drives=drives)
    stream.try_write(b"given up")
    await turns()
    stream.abort()
    stream.abort()
    await turns()

    assert (context.ended, ended, stream.unsent_bytes) == (["cancelled"], [], 0)


@pytest.mark.asyncio
@both_ways
async def test_headers_go_out_once_and_by_themselves_even_when_the_stream_is_cancelled(drives: bool) -> None:
    class Slow(Context):
        may_go_on = asyncio.Event()

        async def send_initial_metadata(self, _: object) -> None:
            await self.may_go_on.wait()
            self.sent.append("headers")

    context = Slow(waits=0)
    stream, _ = stream_of(context, drives=drives)
    writing = asyncio.get_running_loop().create_task(stream.write(b"opened"))
    await turns()
    writing.cancel()
    await turns()

    assert not writing.done()

    context.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert context.sent == ["headers"]

    await stream.write(b"again")

    assert context.sent == ["headers", b"again"]


@pytest.mark.asyncio
async def test_a_stream_is_what_an_outlet_writes_to() -> None:
    assert isinstance(stream_of(Context(), drives=True)[0], ResponseWriter)


# the check at start-up


class Opaque:
    """Something to wait for that yields no future."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield object()


@pytest.mark.asyncio
async def test_where_a_coroutine_does_not_yield_its_future_the_gateway_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def waiting_for(_: asyncio.Future[None]) -> None:
        await Opaque()

    monkeypatch.setattr("mxgw_core.rpc.writers._waiting_for", waiting_for)

    assert not WriteDriver().works
    assert "does not yield it: each message of a stream is written by a task" in caplog.text


class Unlike:
    """A call's context that writes in another way than grpc does today: `begin` makes something of grpc's coroutine."""

    def __init__(self, context: Any, begin: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._context = context
        self._begin = begin

    def send_initial_metadata(self, metadata: Any) -> Any:
        return self._context.send_initial_metadata(metadata)

    def write(self, data: bytes) -> Any:
        return self._begin(self._context.write(data))


async def with_a_turn_first(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(0)  # which yields None instead of a future
    await coroutine


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("begin", "warning"),
    [
        (None, ""),
        (lambda coroutine: asyncio.get_running_loop().create_task(coroutine), "does not write in a coroutine"),
        (with_a_turn_first, ""),
    ],
    ids=["as it is", "in a future", "with a turn of others first"],
)
async def test_however_grpc_writes_a_gateway_serves_its_streams_and_says_once_when_it_needs_tasks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begin: Any, warning: str
) -> None:
    tasks: list[object] = []

    async def finished(writing: Any) -> None:
        tasks.append(writing)
        await writing

    monkeypatch.setattr("mxgw_core.rpc.writers._finished", finished)
    if begin is not None:
        made = lambda context, driver: GrpcStream(Unlike(context, begin), driver)  # type: ignore[arg-type]  # noqa: E731
        monkeypatch.setattr("mxgw_core.rpc.handlers.GrpcStream", made)
    with caplog.at_level(logging.WARNING, "mxgw_core.rpc.writers"):
        async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client, asyncio.timeout(60):
            session = await client.open()
            await client.subscribe(session.session_id, load_names(2))
            for _ in range(2):
                stream = client.stream(session.session_id)
                _, sequences = await read_events(stream, 10)

                assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))

                stream.cancel()
                await until(lambda: gateway.api.streams() == ())
    said = [record.message for record in caplog.records if record.name == "mxgw_core.rpc.writers"]

    assert len(said) == (1 if warning else 0)
    assert all(warning in message for message in said)
    assert bool(tasks) is bool(warning)


@pytest.mark.asyncio
async def test_a_driven_write_that_is_aborted_while_it_lets_others_run_goes_no_further() -> None:
    sent: list[bytes] = []

    async def write(data: bytes) -> None:
        await asyncio.sleep(0)
        sent.append(data)

    context = Context()
    context.write = write  # type: ignore[method-assign]
    stream, ended = stream_of(context, drives=True)

    assert not stream.try_write(b"late")

    stream.abort()
    await turns()

    assert (sent, ended, stream.unsent_bytes) == ([], [], 0)


@pytest.mark.asyncio
async def test_headers_that_a_stopped_client_never_takes_do_not_keep_a_cancelled_stream() -> None:
    context = Context()

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    context.send_initial_metadata = never  # type: ignore[method-assign]
    stream, _ = stream_of(context, drives=True)
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(stream.write(b"first"))
        await turns()
        writing.cancel()
        await turns()

        assert not writing.done()  # a client that reads would have them in a moment

        advance(3)
        await asyncio.wait([writing])

        assert writing.cancelled()
