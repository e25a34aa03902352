"""The library's session, with what it lacks: errors that say whether a request was sent, and the server's limits of
messages.

The library sends whatever it can encode. A server closes the connection when a message is larger than it allows, and
the same message would then be sent again on the next connection, for ever. The library raises an error of any class,
for example `struct.error`, when it cannot encode a request or decode an answer. And it waits on for an answer that the
server has broken off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from asyncua import ua
from asyncua.client.ua_client import UaClient
from asyncua.client.ua_session import UaSession
from asyncua.common.connection import MessageChunk
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

# The largest answer of a server that is kept in memory, and the number of its parts.
MAX_ANSWER_BYTES = 256 * 2**20
_MAX_ANSWER_PARTS = 2**16
# The smallest chunk that a server must be able to receive. Source: OPC 10000-6, 7.1.2.3.
_SMALLEST_CHUNK_BYTES = 8192

_codes = ua.StatusCodes
_TOO_LARGE = frozenset({_codes.BadTcpMessageTooLarge, _codes.BadRequestTooLarge})

_T = TypeVar("_T")


class NotSent(ua.UaError):  # type: ignore[misc]  # the library counts as untyped
    """A request was not sent, because it cannot be encoded or is too large for the server. `code` is the StatusCode."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{ua.StatusCode(code).name}: {why}")
        self.code = code


class UnreadableAnswer(ua.UaError):  # type: ignore[misc]  # the library counts as untyped
    """The server answered, but its answer cannot be decoded."""


def _telling_of_aborts(receive: Callable[[Any], Any], waiting: dict[int, Any]) -> Callable[[Any], Any]:
    """Return the library's method that takes a chunk; it lets a request fail whose answer the server broke off. The
    library only forgets such an answer, so that its request would end by its timeout, and a publish request never.

    `waiting` has the future of each request by its id. Source: OPC 10000-6, 6.7.3 (abort chunks).
    """

    def take(chunk: Any) -> Any:
        message = receive(chunk)
        if chunk.MessageHeader.ChunkType == ua.ChunkType.Abort:
            code = struct_from_binary(ua.ErrorMessage, ua.utils.Buffer(chunk.Body)).Error.value
            request = waiting.pop(chunk.SequenceHeader.RequestId, None)
            if request is not None and not request.done():
                # The answer is meant by these codes, and not the request.
                request.set_exception(ua.UaStatusCodeError(_codes.BadResponseTooLarge if code in _TOO_LARGE else code))
        return message

    return take


def _readable(method: Callable[..., Awaitable[_T]]) -> Callable[..., Awaitable[_T]]:
    """Return the method of the library; it raises `UnreadableAnswer` when it cannot decode the answer."""

    async def call(self: Session, *arguments: Any) -> _T:
        try:
            return await method(self, *arguments)
        except (ua.UaStatusCodeError, ua.uaerrors.UaStructParsingError, NotSent, OSError, TimeoutError):
            raise
        except Exception as error:  # The decoder raises errors of many classes.
            raise UnreadableAnswer(f"{method.__name__}: {type(error).__name__}") from error

    return call


class Session(UaSession):  # type: ignore[misc]  # the library counts as untyped
    """A session without the library's publish loop: `Publisher` publishes in order, after missed messages were fetched.

    Every request raises `NotSent` when nothing was sent, and `UnreadableAnswer` when the server did answer.
    """

    def __init__(self, client: UaClient) -> None:
        super().__init__(client)
        self._max_message_bytes = 0
        self._max_chunks = 0
        self._chunk_bytes = _SMALLEST_CHUNK_BYTES
        # What a server that declares no limit was found to refuse. This outlives the connection, which such a server
        # closes.
        self._refused_bytes = 0
        # The sizes of the requests that wait for their answers.
        self._waiting: dict[object, int] = {}
        # When the server answered last, in seconds of the monotonic clock.
        self.last_answer = 0.0

    def ensure_publish_loop(self) -> None:
        """Publish nothing."""
        return

    async def hello(self, url: str) -> None:
        """Exchange the limits of messages with the server on a new socket.

        Raises:
            ConnectionError, TimeoutError, ua.UaError: the server does not answer as an OPC UA server.
        """
        acknowledge = await self._client.send_hello(url)
        # 0 means that there is no limit. Source: OPC 10000-6, 7.1.2.4.
        self._max_message_bytes = acknowledge.MaxMessageSize
        self._max_chunks = acknowledge.MaxChunkCount
        # What the server can receive is `ReceiveBufferSize`. Some servers, asyncua's among them, mix up the two sizes.
        self._chunk_bytes = min(acknowledge.ReceiveBufferSize, acknowledge.SendBufferSize)
        # The library applies the limits of requests to answers, and sends chunks as large as those that the server
        # sends. Its limits can only be corrected in its connection, which has no public name.
        connection = self._client.protocol._connection
        limits = connection._limits
        limits.max_send_buffer = self._chunk_bytes
        limits.max_recv_buffer = max(acknowledge.ReceiveBufferSize, acknowledge.SendBufferSize)
        limits.max_message_size = MAX_ANSWER_BYTES
        limits.max_chunk_count = _MAX_ANSWER_PARTS
        connection._receive = _telling_of_aborts(connection._receive, self._client.protocol._callbackmap)

    async def _send_request(
        self, request: Any, timeout: float | None = None, message_type: Any = ua.MessageType.SecureMessage
    ) -> Any:
        # The library looks its connection up only when the request has its turn, which can be after a reconnect. The
        # node ids in this request belong to the connection that there is now.
        protocol = self._client.protocol
        if protocol is None:
            raise ConnectionError("the OPC UA server is not connected")
        request.RequestHeader.AuthenticationToken = protocol.authentication_token
        turn = object()
        self._waiting[turn] = self._checked_size(request)
        try:
            answer = await protocol.send_request(request, timeout, message_type)
            self.last_answer = time.perf_counter()
            return answer
        except ua.UaStatusCodeError as error:
            self.last_answer = time.perf_counter()
            if error.code in _TOO_LARGE:
                # Every request that waits for its answer gets this error. The largest of them is the cause.
                largest = max(self._waiting.values())
                if largest > _SMALLEST_CHUNK_BYTES:
                    self._refused_bytes = min(self._refused_bytes or largest, largest)
            raise
        finally:
            del self._waiting[turn]

    def _checked_size(self, request: Any) -> int:
        """Return the number of bytes of the request.

        Raises:
            NotSent: the request cannot be encoded, or is larger than the server allows.
        """
        try:
            size = len(struct_to_binary(request))
        except Exception as error:  # The encoder raises errors of many classes.
            raise NotSent(_codes.BadEncodingError, type(error).__name__) from error
        room = MessageChunk.max_body_size(self._client.security_policy.symmetric_cryptography, self._chunk_bytes)
        if (
            room <= 0
            or (self._max_message_bytes and size > self._max_message_bytes)
            or (self._max_chunks and math.ceil(size / room) > self._max_chunks)
            or (self._refused_bytes and size >= self._refused_bytes)
        ):
            raise NotSent(_codes.BadRequestTooLarge, f"{size} bytes are too many for the server")
        return size

    browse = _readable(UaSession.browse)
    browse_next = _readable(UaSession.browse_next)
    translate_browsepaths_to_nodeids = _readable(UaSession.translate_browsepaths_to_nodeids)
    read = _readable(UaSession.read)
    read_attributes = _readable(UaSession.read_attributes)
    write = _readable(UaSession.write)
    call = _readable(UaSession.call)
    create_session = _readable(UaSession.create_session)
    activate_session = _readable(UaSession.activate_session)
    create_subscription = _readable(UaSession.create_subscription)
    delete_subscriptions = _readable(UaSession.delete_subscriptions)
    transfer_subscriptions = _readable(UaSession.transfer_subscriptions)
    republish = _readable(UaSession.republish)
    publish = _readable(UaSession.publish)
    create_monitored_items = _readable(UaSession.create_monitored_items)
    delete_monitored_items = _readable(UaSession.delete_monitored_items)
    set_monitoring_mode = _readable(UaSession.set_monitoring_mode)
