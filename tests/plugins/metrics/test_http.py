"""The little HTTP server: what it understands, what it refuses, byte by byte and on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from support.turns import Turns, counted_turns

from mxgw_metrics import http
from mxgw_metrics.endpoint import Endpoint, serving
from mxgw_metrics.exposition import OPENMETRICS, TEXT, content_type_for
from mxgw_metrics.http import BadRequest, parse
from mxgw_metrics.settings import Address

GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with serving(Endpoint(list), Address("127.0.0.1", 0)) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-Length"))
    return int(head.split()[1]), await reader.readexactly(length)


# requests


def test_a_request_is_read_with_its_headers_in_any_case() -> None:
    request = parse(b"GET /metrics?x=1 HTTP/1.1\r\nACCEPT: text/plain\r\naccept:  */*")

    assert (request.method, request.path) == ("GET", "/metrics")
    assert request.headers["accept"] == "text/plain, */*"
    assert request.is_kept_alive


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
    ],
)
def test_a_connection_is_kept_as_the_client_wishes(head: bytes, kept: bool) -> None:
    assert parse(head).is_kept_alive is kept


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics SPDY/1", HTTPStatus.BAD_REQUEST),
        (b"G\x00T / HTTP/1.1", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nno colon", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost : spaced", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: 3", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"GET / HTTP/1.1" + b"\r\na:" * 65, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_what_is_no_request_without_a_body_is_refused(head: bytes, status: HTTPStatus) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(head)

    assert caught.value.status is status


# formats


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("application/json", TEXT),
        ("text/html, */*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text; version=99.0.0", TEXT),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;version=1.0.0;q=0.2", TEXT),
        ("text/plain;version=0.0.4;q=0.2, application/openmetrics-text;version=1.0.0;q=0.9", OPENMETRICS),
        ("application/openmetrics-text;q=0, text/plain", TEXT),
        ("application/openmetrics-text;q=0, */*;q=0", TEXT),
        ("application/openmetrics-text;q=many", TEXT),
        ("text/html," * 32 + OPENMETRICS, TEXT),  # no more than 32 types are looked at
        # Prometheus 2.42 and 3.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OPENMETRICS,
        ),
    ],
)
def test_the_format_is_the_one_the_client_prefers(accept: str, expected: str) -> None:
    assert content_type_for(accept) == expected


# connections


@pytest.mark.asyncio
async def test_requests_are_answered_in_order_however_they_arrive() -> None:
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(GET + b"HEAD /metrics HTTP/1.1\r\n\r\n" + GET.replace(b"/metrics", b"/other"))
        whole = await answer(reader)
        head = await reader.readuntil(b"\r\n\r\n")
        other = await answer(reader)
        for byte in GET:
            writer.write(bytes([byte]))
            await writer.drain()
        again = await answer(reader)

    assert whole[0] == again[0] == 200
    assert b"mxgw_metrics_collect_duration_seconds" in whole[1]
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert other == (404, b"the metrics are at /metrics\n")


@pytest.mark.asyncio
async def test_a_method_that_would_change_something_is_refused_by_name() -> None:
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(b"DELETE /metrics HTTP/1.1\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()

    assert head.startswith("HTTP/1.1 405")
    assert "Allow: GET, HEAD" in head


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
    ],
)
async def test_nonsense_and_what_is_too_long_is_answered_once_and_cut(sent: bytes, status: int) -> None:
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(sent)
        said = (await answer(reader))[0]

        assert said == status
        assert await reader.read() == b""


@pytest.mark.asyncio
async def test_a_client_that_asks_and_never_reads_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_SEND_S", 0.05)

    async def ask() -> None:
        while True:
            writer.write(GET * 100)
            await writer.drain()

    async with connected() as (_, writer), asyncio.timeout(60):
        with pytest.raises(ConnectionError):
            await ask()


@pytest.mark.asyncio
async def test_a_client_that_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_S", 0.05)
    async with connected() as (reader, _), asyncio.timeout(60):
        assert await reader.read() == b""


@pytest.mark.asyncio
async def test_a_client_that_asked_may_be_silent_for_longer_and_is_then_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_IDLE_S", 0.05)
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(GET)

        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""


@pytest.mark.asyncio
async def test_a_second_request_that_is_never_finished_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(GET)

        assert (await answer(reader))[0] == 200

        monkeypatch.setattr(http, "_REQUEST_S", 0.05)  # the time between two requests stays two minutes
        writer.write(GET[:10])

        assert await reader.read() == b""


@pytest.mark.asyncio
async def test_whoever_was_silent_longest_makes_room_and_a_scraper_always_gets_in() -> None:
    async with serving(Endpoint(list), Address("127.0.0.1", 0)) as address, asyncio.timeout(60):

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(address.host, address.port)

        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            writer.write(GET)
            return (await answer(reader))[0]

        scraper = await connect()

        assert await ask(*scraper) == 200

        silent = [await connect() for _ in range(40)]
        late = await connect()

        assert await ask(*late) == 200
        assert await ask(*scraper) == 200  # one that asks keeps its place before those that never did

        for reader, _ in silent[:26]:
            assert await reader.read() == b""

        asking = []
        for _ in range(16):
            asking.append(await connect())

            assert await ask(*asking[-1]) == 200

        # Among those that ask, the one that did so longest ago.
        assert await late[0].read() == b""
        assert await scraper[0].read() == b""
        assert await ask(*asking[0]) == 200

        for _, writer in (scraper, late, *silent, *asking):
            writer.close()


@pytest.mark.asyncio
async def test_a_collection_that_fails_is_logged_and_the_next_one_may_succeed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fails = [True]

    def collect() -> list[object]:
        if fails.pop() if fails else False:
            raise RuntimeError("a secret of the gateway")
        return []

    async with serving(Endpoint(collect), Address("127.0.0.1", 0)) as address, asyncio.timeout(60):  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(GET + GET)
        failed, well = await answer(reader), await answer(reader)
        writer.close()

    assert failed == (500, b"the gateway failed; its log has the details\n")
    assert well[0] == 200
    assert "a secret of the gateway" in caplog.text


@pytest.mark.asyncio
async def test_who_was_taken_in_before_the_end_and_is_told_of_after_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_S", 3600)
    connections = http.Connections(lambda _: http.text_response(HTTPStatus.OK, "here"))
    connections.close_all()
    ours, theirs = socket.socketpair()
    with ours:
        await asyncio.get_running_loop().connect_accepted_socket(connections.make, theirs)
        ours.settimeout(60)

        assert await asyncio.to_thread(ours.recv, 1) == b""


# load


@asynccontextmanager
async def answered_by(answer: Callable[[http.Request], http.Response]) -> AsyncIterator[int]:
    """Yield the port of a server that answers so."""
    connections = http.Connections(answer)
    server = await asyncio.get_running_loop().create_server(connections.make, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        connections.close_all()
        await server.wait_closed()


@pytest.mark.asyncio
async def test_of_all_the_requests_that_were_sent_at_once_one_is_answered_in_a_turn() -> None:
    each, turns = 500, Turns()
    at: Counter[int] = Counter()
    ports: list[str] = []

    def answer(request: http.Request) -> http.Response:
        at[turns.taken] += 1
        ports.append(request.path)
        return http.text_response(HTTPStatus.OK, "here")

    async def ask(port: int, path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"HEAD {path} HTTP/1.1\r\n\r\n".encode() * each)
        for _ in range(each):
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with answered_by(answer) as port, counted_turns(turns), asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for path in ("/a", "/b", "/c"):
            tasks.create_task(ask(port, path))

    assert at.total() == 3 * each
    assert max(at.values()) == 1
    # Nobody waits for all that another one asked.
    assert {"/a", "/b", "/c"} == set(ports[each : each + 10])


@pytest.mark.asyncio
async def test_nothing_more_is_read_or_answered_until_an_answer_is_sent() -> None:
    body = b"x" * 8 * 1024 * 1024  # more than the buffers of a connection take
    answers = [0]

    def answer(request: http.Request) -> http.Response:
        del request
        answers[0] += 1
        return http.Response(HTTPStatus.OK, "text/plain", body, {})

    async with answered_by(answer) as port, asyncio.timeout(60):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, GET * 3)
            # The answer has begun, and it cannot end.
            got = len(await loop.sock_recv(client, 1))
            for _ in range(100):
                await asyncio.sleep(0)

            assert answers == [1]

            # Much more than the system keeps for a connection that is not read: it stops there.
            refused, sent = 0, 0
            while refused < 100:
                try:
                    sent += client.send(GET * 1000)
                except BlockingIOError:
                    refused += 1
                await asyncio.sleep(0)
                assert sent < 64 * 1024 * 1024

            assert answers == [1]

            while got < 2 * len(body):
                got += len(await loop.sock_recv(client, 1 << 20))

            assert answers[0] in (2, 3)
