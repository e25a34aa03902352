"""Commands on their way: correlation ids, deadlines, and a bound on how many wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from mxgw.v1.commands_pb2 import MxCommand
from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest
from mxgw_core.api.errors import CommandTimedOut, GatewayError, PendingCommandsExceeded

# The worker gives up a little before the gateway does, so that its answer, which may say more, comes first.
_WORKER_HEAD_START_S = 0.05
# Smaller ones are not counted: `limits.pending_commands` bounds them.
_LARGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class EncodedCommand:
    """An MXAccess command as bytes, and its name in the contract.

    A command may be large: the message of it is let go once it is encoded, and the bytes once they are sent.
    """

    name: str
    data: bytes

    @classmethod
    def of(cls, command: MxCommand) -> EncodedCommand:
        """Return the encoded command."""
        return cls(command.WhichOneof("command") or "mx", command.SerializeToString())


class PendingCommands:
    """The commands of one worker that have no answer yet.

    A command that its caller gave up keeps its place until the worker answers: it still occupies the worker.
    """

    def __init__(self, limit: int, send: Callable[[int, bytes], None]) -> None:
        """`send` is given each command's id, and its `CommandRequest` encoded."""
        self._limit = limit
        self._send = send
        self._waiting: dict[int, asyncio.Future[CommandReply]] = {}
        # What each is and when it was sent (monotonic), for those who look.
        self._sent: dict[int, tuple[str, float]] = {}
        # What large ones took: it may not be sent yet, if the worker is busy.
        self._bytes: dict[int, int] = {}
        self.unanswered_bytes = 0
        self._next_id = 1
        self._end: GatewayError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def in_flight(self) -> Sequence[tuple[str, float]]:
        """Return the name and the age in seconds of each command that waits, oldest first."""
        now = time.monotonic()
        return [(name, now - sent_at) for name, sent_at in self._sent.values()]

    def call(
        self, request: CommandRequest, timeout_s: float, mx: EncodedCommand | None = None
    ) -> Coroutine[Any, Any, CommandReply]:
        """Send a command, and return what to await for its answer; that holds nothing of the command.

        `mx` is the command of the request, where it is encoded already.

        Raises:
            PendingCommandsExceeded: too many commands wait already.
            CommandTimedOut: no answer in time; the outcome is unknown.
            GatewayError: the session ended.
        """
        if self._end is not None:
            raise self._end
        if len(self._waiting) >= self._limit:
            raise PendingCommandsExceeded(
                f"{self._limit} commands of this session wait for their answers: await some before sending more, "
                "use the bulk calls, or raise limits.pending_commands",
                metadata={"limit": str(self._limit)},
                retry_after_s=0.1,
            )
        correlation_id = self._next_id
        self._next_id += 1
        future: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = future
        self._sent[correlation_id] = (_name_of(request) if mx is None else mx.name, time.monotonic())
        request.timeout_ms = max(1, int((timeout_s - _WORKER_HEAD_START_S) * 1000))
        data = request.SerializeToString()
        if mx is not None:
            data += field(CommandRequest.MX_FIELD_NUMBER, mx.data)
        if len(data) > _LARGE_BYTES:
            self._bytes[correlation_id] = len(data)
            self.unanswered_bytes += len(data)
        self._send(correlation_id, data)
        return self._answer(future, timeout_s)

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
        """Hand an answer to who waits; return False when the id was never used or is answered already."""
        future = self._waiting.pop(correlation_id, None)
        self._sent.pop(correlation_id, None)
        self.unanswered_bytes -= self._bytes.pop(correlation_id, 0)
        if future is None:
            # What failed with the session may still be answered while the worker leaves.
            return self._end is not None and 0 < correlation_id < self._next_id
        if not future.done():
            future.set_result(reply)
        return True

    def fail_all(self, error: GatewayError) -> None:
        """Let every waiting and later command fail with `error`."""
        if self._end is None:
            self._end = error
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # who gave up does not look; that is no unhandled error
        self._waiting.clear()
        self._sent.clear()
        self._bytes.clear()
        self.unanswered_bytes = 0


def field(number: int, data: bytes) -> bytes:
    """Return a message's field of bytes, text or a message, encoded: appended to the others it is part of the message.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    return b"".join((_varint(number << 3 | 2), _varint(len(data)), data))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _name_of(request: CommandRequest) -> str:
    """Return what a command is called in the contract: for example write, read or get_state."""
    kind = request.WhichOneof("request") or ""
    if kind == "mx":
        return request.mx.WhichOneof("command") or kind
    return kind
