"""Sends commands to one worker and passes the answers to the callers.

A command is encoded only once. It has a correlation id and a deadline, and the number of unanswered commands is
limited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mxgw.v1.commands_pb2 import MxCommand
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest, WorkerEnvelope
from mxgw_core.api.errors import CommandTimedOut, GatewayError, InvalidRequest, PendingCommandsExceeded
from mxgw_core.events.encoding import varint

# The worker's deadline for a command is this much earlier than the gateway's deadline. So when time runs out, the
# answer of the worker arrives first; it says more than the gateway could say.
_WORKER_HEAD_START_S = 0.05
# Only commands larger than this are counted in `unanswered_bytes`. For smaller commands the limit
# `limits.pending_commands` is sufficient.
_LARGE_BYTES = 16 * 1024
# The most bytes that the `WorkerEnvelope` adds to an encoded command: a correlation id, and a tag with a length.
_ENVELOPE_BYTES = 32

# Encoded tags of two fields that hold messages. In protobuf, bytes of a field that are appended to an encoded message
# become part of this message, so the command inside need not be encoded again.
_MX_TAG = varint(CommandRequest.MX_FIELD_NUMBER << 3 | 2)
_COMMAND_TAG = varint(WorkerEnvelope.COMMAND_FIELD_NUMBER << 3 | 2)


class Connection(Protocol):
    """The connection to the worker, as far as commands need it."""

    def send_encoded(self, *parts: bytes) -> None:
        """Queue an encoded `WorkerEnvelope` message for sending. The parts, one after the other, are its bytes."""


@dataclass(frozen=True, slots=True)
class EncodedCommand:
    """An encoded MXAccess command, and its name in the contract.

    A command can be large, so no memory is kept longer than necessary: the decoded message can be released as soon as
    the command is encoded, and the bytes as soon as they are sent.
    """

    name: str
    data: bytes

    @classmethod
    def of(cls, command: MxCommand) -> EncodedCommand:
        """Encode an MXAccess command."""
        return cls(command.WhichOneof("command") or "mx", command.SerializeToString())


class PendingCommands:
    """Sends commands to one worker, and remembers the commands that have no answer yet.

    A command whose caller has stopped waiting still counts as unanswered until the worker answers, because the worker
    is still busy with it.

    Args:
        limit: the largest number of unanswered commands, `limits.pending_commands`.
        frame_bytes: the size of the largest message to the worker, `workers.frame_bytes`.

    Attributes:
        connection: the connection to the worker; None until the worker has connected.
        unanswered_bytes: the size of all large commands without an answer.
    """

    def __init__(self, limit: int, frame_bytes: int) -> None:
        self.connection: Connection | None = None
        self._limit = limit
        self._frame_bytes = frame_bytes
        self._waiting: dict[int, asyncio.Future[CommandReply]] = {}
        # Key: the correlation id. Value: the name of the command, and when it was sent (monotonic seconds).
        self._sent: dict[int, tuple[str, float]] = {}
        # Key: the correlation id. Value: the size of a large command. It counts as used memory until the answer comes,
        # because while the worker is busy the bytes perhaps still wait in the socket.
        self._bytes: dict[int, int] = {}
        self.unanswered_bytes = 0
        self._next_id = 1
        self._end: GatewayError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def in_flight(self) -> Sequence[tuple[str, float]]:
        """Return name and age in seconds of each unanswered command, oldest first."""
        now = time.perf_counter()
        return [(name, now - sent_at) for name, sent_at in self._sent.values()]

    def call(
        self, request: CommandRequest, timeout_s: float, mx: EncodedCommand | None = None
    ) -> Coroutine[Any, Any, CommandReply]:
        """Send a command, and return a coroutine that waits for the answer. The coroutine keeps no part of the command
        in memory.

        `mx` is the encoded MXAccess command of this request; None when `request` itself contains the whole command.

        Raises:
            InvalidRequest: the command is larger than `workers.frame_bytes`.
            PendingCommandsExceeded: too many commands are unanswered.
            CommandTimedOut: the answer did not arrive in time, so the outcome is unknown.
            GatewayError: the session has ended.
        """
        request.timeout_ms = max(1, int((timeout_s - _WORKER_HEAD_START_S) * 1000))
        fields = [request.SerializeToString()]
        if mx is not None:
            fields += (_MX_TAG, varint(len(mx.data)), mx.data)
        size = sum(map(len, fields))
        self._check(size + _ENVELOPE_BYTES)
        correlation_id = self._next_id
        self._next_id += 1
        future: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = future
        self._sent[correlation_id] = (_name_of(request) if mx is None else mx.name, time.perf_counter())
        if size > _LARGE_BYTES:
            self._bytes[correlation_id] = size
            self.unanswered_bytes += size
        if self.connection is not None:
            envelope = WorkerEnvelope(correlation_id=correlation_id).SerializeToString()
            self.connection.send_encoded(envelope, _COMMAND_TAG, varint(size), *fields)
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
        """Pass an answer of the worker to the caller that waits for it.

        Return False when no command with this id is unanswered: the worker must not send such an answer.
        """
        future = self._waiting.pop(correlation_id, None)
        self._sent.pop(correlation_id, None)
        self.unanswered_bytes -= self._bytes.pop(correlation_id, 0)
        if future is None:
            # After `fail_all` the commands are forgotten, but a worker that is shutting down can still answer them.
            return self._end is not None and 0 < correlation_id < self._next_id
        if not future.done():
            future.set_result(reply)
        return True

    def fail_all(self, error: GatewayError) -> None:
        """End all unanswered commands with `error`. Later commands fail with the error of the first `fail_all`."""
        if self._end is None:
            self._end = error
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # without this, asyncio logs an error when no caller waits for the future any more
        self._waiting.clear()
        self._sent.clear()
        self._bytes.clear()
        self.unanswered_bytes = 0


def _name_of(request: CommandRequest) -> str:
    """Return the name that a command has in the contract, for example write, read_bulk or get_state."""
    kind = request.WhichOneof("request") or ""
    if kind == "mx":
        return request.mx.WhichOneof("command") or kind
    return kind
