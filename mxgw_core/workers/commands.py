"""Commands sent to one worker: encoded once, with correlation ids and deadlines, and only so many unanswered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mxgw.v1.commands_pb2 import MxCommand
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest, WorkerEnvelope
from mxgw_core.api.errors import CommandTimedOut, GatewayError, InvalidRequest, PendingCommandsExceeded

# The worker's deadline is this much earlier than the gateway's. So the worker's own answer, which says more, comes
# first.
_WORKER_HEAD_START_S = 0.05
# Only commands larger than this are counted in `unanswered_bytes`; `limits.pending_commands` bounds smaller ones.
_LARGE_BYTES = 16 * 1024
# The most that the envelope adds to a command: a correlation id, and a tag with a length.
_ENVELOPE_BYTES = 32


def _varint(value: int) -> bytes:
    """Return an encoded number. Source: https://protobuf.dev/programming-guides/encoding/"""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# Tags of fields that are messages. A field that is appended to an encoded message is part of that message.
_MX_TAG = _varint(CommandRequest.MX_FIELD_NUMBER << 3 | 2)
_COMMAND_TAG = _varint(WorkerEnvelope.COMMAND_FIELD_NUMBER << 3 | 2)


class Connection(Protocol):
    """The connection that commands are sent on."""

    def send_encoded(self, *parts: bytes) -> None:
        """Queue one `WorkerEnvelope` that is encoded already, in parts."""


@dataclass(frozen=True, slots=True)
class EncodedCommand:
    """An MXAccess command as bytes, and its name in the contract.

    A command may be large: its message is released as soon as it is encoded, and its bytes as soon as they are sent.
    """

    name: str
    data: bytes

    @classmethod
    def of(cls, command: MxCommand) -> EncodedCommand:
        """Return the encoded command."""
        return cls(command.WhichOneof("command") or "mx", command.SerializeToString())


class PendingCommands:
    """Sends commands to one worker, and keeps those that have no answer yet.

    A command whose caller stopped waiting keeps its place until the worker answers, because it still occupies the
    worker.

    Args:
        limit: how many commands may be unanswered, `limits.pending_commands`.
        frame_bytes: the largest message to the worker, `workers.frame_bytes`.

    Attributes:
        connection: where commands are sent; None until the worker has connected.
        unanswered_bytes: bytes of the large commands that have no answer yet.
    """

    def __init__(self, limit: int, frame_bytes: int) -> None:
        self.connection: Connection | None = None
        self._limit = limit
        self._frame_bytes = frame_bytes
        self._waiting: dict[int, asyncio.Future[CommandReply]] = {}
        # Name of each command and when it was sent (monotonic), for observers.
        self._sent: dict[int, tuple[str, float]] = {}
        # Bytes of each large command: while the worker is busy they may still be waiting in the socket.
        self._bytes: dict[int, int] = {}
        self.unanswered_bytes = 0
        self._next_id = 1
        self._end: GatewayError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def in_flight(self) -> Sequence[tuple[str, float]]:
        """Return the name and the age in seconds of each command without an answer, oldest first."""
        now = time.monotonic()
        return [(name, now - sent_at) for name, sent_at in self._sent.values()]

    def call(
        self, request: CommandRequest, timeout_s: float, mx: EncodedCommand | None = None
    ) -> Coroutine[Any, Any, CommandReply]:
        """Send a command, and return a coroutine that waits for the answer; the coroutine holds no part of the command.

        `mx` is the MXAccess command of the request where it is encoded already.

        Raises:
            InvalidRequest: the command is larger than a frame may be.
            PendingCommandsExceeded: too many commands have no answer yet.
            CommandTimedOut: no answer in time; the outcome is unknown.
            GatewayError: the session ended.
        """
        request.timeout_ms = max(1, int((timeout_s - _WORKER_HEAD_START_S) * 1000))
        fields = [request.SerializeToString()]
        if mx is not None:
            fields += (_MX_TAG, _varint(len(mx.data)), mx.data)
        size = sum(map(len, fields))
        self._check(size + _ENVELOPE_BYTES)
        correlation_id = self._next_id
        self._next_id += 1
        future: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = future
        self._sent[correlation_id] = (_name_of(request) if mx is None else mx.name, time.monotonic())
        if size > _LARGE_BYTES:
            self._bytes[correlation_id] = size
            self.unanswered_bytes += size
        if self.connection is not None:
            envelope = WorkerEnvelope(correlation_id=correlation_id).SerializeToString()
            self.connection.send_encoded(envelope, _COMMAND_TAG, _varint(size), *fields)
        return self._answer(future, timeout_s)

    def _check(self, size: int) -> None:
        if size > self._frame_bytes:
            raise InvalidRequest(
                f"the command takes {size} bytes and a worker is sent {self._frame_bytes} at most: split it, or raise "
                "workers.frame_bytes",
                metadata={"limit": str(self._frame_bytes)},
            )
        if self._end is not None:
            raise self._end
        if len(self._waiting) >= self._limit:
            raise PendingCommandsExceeded(
                f"{self._limit} commands of this session wait for their answers: await some before sending more, "
                "use the bulk calls, or raise limits.pending_commands",
                metadata={"limit": str(self._limit)},
                retry_after_s=0.1,
            )

    @staticmethod
    async def _answer(future: asyncio.Future[CommandReply], timeout_s: float) -> CommandReply:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise CommandTimedOut(
                f"the worker did not answer within {timeout_s:g} s; the outcome is unknown: do not blindly repeat a "
                "write that had no request_id. A longer timeout may be asked for up to limits.command_timeout_s",
                metadata={"timeout_s": f"{timeout_s:g}"},
            ) from None

    def answered(self, correlation_id: int, reply: CommandReply) -> bool:
        """Hand an answer to its waiting caller; return False for an id that was never used or is answered already."""
        future = self._waiting.pop(correlation_id, None)
        self._sent.pop(correlation_id, None)
        self.unanswered_bytes -= self._bytes.pop(correlation_id, 0)
        if future is None:
            # After `fail_all` the worker may still answer, while it is shutting down.
            return self._end is not None and 0 < correlation_id < self._next_id
        if not future.done():
            future.set_result(reply)
        return True

    def fail_all(self, error: GatewayError) -> None:
        """Fail every waiting command with `error`, and every later one with the error of the first call."""
        if self._end is None:
            self._end = error
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as seen: its caller may have stopped waiting
        self._waiting.clear()
        self._sent.clear()
        self._bytes.clear()
        self.unanswered_bytes = 0


def _name_of(request: CommandRequest) -> str:
    """Return the name of a command in the contract: for example write, read_bulk or get_state."""
    kind = request.WhichOneof("request") or ""
    if kind == "mx":
        return request.mx.WhichOneof("command") or kind
    return kind
