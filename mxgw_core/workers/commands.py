"""Commands on their way: correlation ids, deadlines, and a bound on how many wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest
from mxgw_core.api.errors import CommandTimedOut, GatewayError, PendingCommandsExceeded

# The worker gives up a little before the gateway does, so that its answer, which may say more, comes first.
_WORKER_HEAD_START_S = 0.05


class PendingCommands:
    """The commands of one worker that have no answer yet.

    A command that its caller gave up keeps its place until the worker answers: it still occupies the worker.
    """

    def __init__(self, limit: int, send: Callable[[int, CommandRequest], None]) -> None:
        self._limit = limit
        self._send = send
        self._waiting: dict[int, asyncio.Future[CommandReply]] = {}
        # What each is and when it was sent (monotonic), for those who look.
        self._sent: dict[int, tuple[str, float]] = {}
        self._next_id = 1
        self._end: GatewayError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def in_flight(self) -> Sequence[tuple[str, float]]:
        """Return the name and the age in seconds of each command that waits, oldest first."""
        now = time.monotonic()
        return [(name, now - sent_at) for name, sent_at in self._sent.values()]

    async def call(self, request: CommandRequest, timeout_s: float) -> CommandReply:
        """Send a command and return its answer.

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
        self._sent[correlation_id] = (_name_of(request), time.monotonic())
        request.timeout_ms = max(1, int((timeout_s - _WORKER_HEAD_START_S) * 1000))
        self._send(correlation_id, request)
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


def _name_of(request: CommandRequest) -> str:
    """Return what a command is called in the contract: for example write, read or get_state."""
    kind = request.WhichOneof("request") or ""
    if kind == "mx":
        return request.mx.WhichOneof("command") or kind
    return kind
