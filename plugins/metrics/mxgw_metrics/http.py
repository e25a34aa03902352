"""The small part of HTTP/1.1 that serving metrics needs: GET and HEAD, small responses, connections kept alive.

The server runs in the event loop of the gateway and never waits there. Each iteration of the loop answers one
request, in the order in which the requests of all connections arrived. The server reads more bytes of a connection only
when no request of that connection waits and the last response has been sent. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

log = logging.getLogger(__name__)

# The most bytes of a request line with its headers. The requests of monitoring systems are much shorter.
_REQUEST_BYTES = 8 * 1024
_HEADERS = 64
# An idle connection is closed after this time. Monitoring systems read metrics at least once a minute, so their
# connections stay open.
_IDLE_S = 120.0
# The longest time until a request is complete, counted from the opening of the connection or the request's first byte.
_REQUEST_S = 5.0
# The most open connections. When one more is opened, the connection that `Connections.opened` chooses is closed, so
# that a monitoring system can always connect.
_MOST_CONNECTIONS = 16
# The longest time for sending a response over a slow network. When this time has passed, the connection is closed.
_SEND_S = 30.0
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body. The names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    is_kept_alive: bool


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `headers` are sent in addition to the headers that every response has."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str]

    def encoded(self, *, with_body: bool, is_kept_alive: bool) -> bytes:
        """Return the response as the bytes to send."""
        headers = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "keep-alive" if is_kept_alive else "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + _END + (self.body if with_body else b"")


class BadRequest(Exception):
    """The request is malformed, or this server does not support it."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def text_response(status: HTTPStatus, text: str, **headers: str) -> Response:
    """Return a response whose body is `text`, a sentence for people."""
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


def parse(head: bytes) -> Request:
    """Parse `head`, the request line and the headers of a request.

    Raises:
        BadRequest: the request is malformed, or has a body.
    """
    line, *rest = head.decode("latin-1").split("\r\n")
    if len(rest) > _HEADERS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for field in rest:
        name, colon, value = field.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadRequest(HTTPStatus(413))
    wishes = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    is_kept_alive = "close" not in wishes and (words[2] != "HTTP/1.0" or "keep-alive" in wishes)
    return Request(words[0], words[1].partition("?")[0], headers, is_kept_alive)


class Connections:
    """The connections of one server, and the function `answer`, which makes the responses."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self.answer = answer
        # The open connections, sorted by the time of the last request or, if there was none, of the opening; the oldest
        # is the first.
        self._open: dict[HttpConnection, None] = {}
        # Connections that have a complete request, in the order in which they are served. Each waits for one request.
        self._waiting: deque[HttpConnection] = deque()
        self._has_ended = False

    def make(self) -> HttpConnection:
        """Return the asyncio protocol for a new connection."""
        return HttpConnection(self)

    def opened(self, connection: HttpConnection) -> None:
        """Add a connection. When there are too many, close another connection first.

        The oldest connection that never sent a request is closed or, if all sent one, the connection that was idle
        longest.
        """
        if self._has_ended:  # the event loop accepted this connection before the server closed, and reports it late
            connection.cut()
            return
        if len(self._open) >= _MOST_CONNECTIONS:
            silent = next((one for one in self._open if not one.has_asked), None) or next(iter(self._open))
            self.closed(silent)
            silent.cut()
        self._open[connection] = None

    def asked(self, connection: HttpConnection) -> None:
        """Move a connection that sent a request to the end of `_open`, because the others were idle for longer."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def wants_turn(self, connection: HttpConnection) -> None:
        """Put a connection that has a complete request at the end of the queue `_waiting`."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._serve_next)

    def _serve_next(self) -> None:
        # The connection stays in the queue while it is served. If its next request has arrived, `wants_turn` then finds
        # more than one entry in the queue, and does not schedule `_serve_next` a second time.
        try:
            self._waiting[0].serve()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._serve_next)

    def closed(self, connection: HttpConnection) -> None:
        """Remove a connection that was closed."""
        self._open.pop(connection, None)

    def close_all(self) -> None:
        """Close all connections. Close each connection that the event loop reports later when it is reported."""
        self._has_ended = True
        for connection in tuple(self._open):
            connection.cut()


class HttpConnection(asyncio.Protocol):
    """One connection: divides the received bytes into requests, and answers the requests in order."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        # Whether a complete request has ever arrived.
        self.has_asked = False
        self._is_reading = True
        # Whether the connection waits in the queue `Connections._waiting`, because it has a complete request.
        self._has_turn = False
        # Whether a part of the last response has not been sent yet.
        self._is_unsent = False
        # The timer that closes a connection which is idle, does not complete a request, or does not read a response.
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # `cast`, and no isinstance check, because the transports of uvloop are no subclasses of asyncio's transports.
        self._transport = transport = cast(asyncio.Transport, transport)
        # With this limit `pause_writing` is called as soon as a part of a response could not be sent at once.
        transport.set_write_buffer_limits(high=0)
        self._cut_after(_REQUEST_S)
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._connections.closed(self)
        self._cancel_idle()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if not self._buffer and self.has_asked:
            self._cut_after(_REQUEST_S)
        self._buffer += data
        self._go_on()

    def pause_writing(self) -> None:
        self._is_unsent = True
        self._cut_after(_SEND_S)
        self._go_on()

    def resume_writing(self) -> None:
        self._is_unsent = False
        self._cut_after(_REQUEST_S if self._buffer else _IDLE_S)
        self._go_on()

    def serve(self) -> None:
        """Answer the oldest request of this connection, which is now the first in the queue `Connections._waiting`."""
        self._has_turn = False
        if self._is_gone or self._is_unsent:
            return
        end = self._buffer.find(_END, 0, _REQUEST_BYTES + len(_END))
        if end < 0:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        head = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END)]
        self._serve(head)
        self._go_on()

    def cut(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _is_gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _go_on(self) -> None:
        """Join the queue `Connections._waiting` if a complete request has arrived; otherwise read more bytes.

        While a part of a response is unsent, the connection does neither.
        """
        if self._is_gone:
            return
        assert self._transport is not None
        is_whole = len(self._buffer) > _REQUEST_BYTES or _END in self._buffer
        if is_whole and not self._is_unsent and not self._has_turn:
            self._has_turn = True
            self._connections.wants_turn(self)
        reads = not is_whole and not self._is_unsent
        if reads and not self._is_reading:
            self._transport.resume_reading()
        elif self._is_reading and not reads:
            self._transport.pause_reading()
        self._is_reading = reads

    def _serve(self, head: bytes) -> None:
        try:
            request = parse(head)
        except BadRequest as error:
            self._refuse(error.status)
            return
        self.has_asked = True
        self._connections.asked(self)
        try:
            response = self._connections.answer(request)
        except Exception:
            log.exception("the metrics could not be collected")
            response = text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log has the details")
        self._send(response, with_body=request.method != "HEAD", is_kept_alive=request.is_kept_alive)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(text_response(status, status.phrase), is_kept_alive=False)

    def _send(self, response: Response, *, with_body: bool = True, is_kept_alive: bool) -> None:
        assert self._transport is not None
        self._cut_after(_REQUEST_S if self._buffer else _IDLE_S)
        self._transport.write(response.encoded(with_body=with_body, is_kept_alive=is_kept_alive))
        if not is_kept_alive:
            self._cut_after(_SEND_S)
            self._transport.close()

    def _cut_after(self, seconds: float) -> None:
        self._cancel_idle()
        self._idle = asyncio.get_running_loop().call_later(seconds, self.cut)

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
