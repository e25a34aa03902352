"""Writes with a request key reach the backend only once. The gateway makes the key from the caller's identity and the
request id. A repeated call gets the outcome of the first call.

Only a write that reached the backend is remembered. A write that was refused, or that expired before it reached the
backend, is forgotten at once, so that a repeated call runs. No outcome is forgotten early: when there is no room, new
keys are refused. So a key that is not known here belongs to no write of the last ten minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from mxgw.worker.v1.worker_pb2 import CommandReply, CommandRequest, Failure
from mxgw_worker.calls import Call, CallExpired, CallFailed, report_bug

# How long an outcome is remembered, as the contract promises. A client repeats a call within seconds. A program or a
# gateway that was restarted repeats it within minutes.
REMEMBERED_S = 600.0
# Limits for the memory of one worker, which uses about 25 MiB without remembered writes. They are enough for 33 single
# writes per second during ten minutes.
REMEMBERED_REQUESTS = 20_000
REMEMBERED_BYTES = 16 * 1024 * 1024
# The bytes of memory of an entry with a short reply. tracemalloc reports 300 on CPython 3.11, without the overhead of
# the allocator.
_ENTRY_BYTES = 400

Run: TypeAlias = Callable[[], Awaitable[CommandReply | None]]


class _Request:
    """One request key, and the outcome of its write once the outcome is known."""

    __slots__ = ("digest", "reply", "settled", "settled_at", "withheld")

    def __init__(self, request: CommandRequest) -> None:
        self.digest = request.request_digest
        self.withheld = request.withheld_digest
        # Completed when the first run has ended. Then it is set to None, because the entry is kept for minutes and
        # should use little memory.
        self.settled: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self.settled_at = 0.0
        # The encoded reply, which is smaller than a message. Every repeated call gets a message of its own.
        self.reply = b""


class RememberedWrites:
    """The writes of a session that are running or remembered. `clock` returns monotonic seconds."""

    def __init__(
        self,
        *,
        limit: int = REMEMBERED_REQUESTS,
        limit_bytes: int = REMEMBERED_BYTES,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._clock = clock or asyncio.get_running_loop().time
        self._running: dict[bytes, _Request] = {}
        # Requests whose first run has ended, in the order of their ends.
        self._settled: dict[bytes, _Request] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._settled)

    async def once(self, call: Call, request: CommandRequest, run: Run) -> CommandReply:
        """Return the outcome of this request. `run` is called only if the same request is neither running nor
        remembered.

        Raises:
            CallExpired: the deadline of this call passed while the first run was running.
            CallFailed: the key was used for another command, the caller's rights have changed, or there is no room for
                a new key.
        """
        key = request.request_key
        while True:
            self._forget_old()
            known = self._running.get(key) or self._settled.get(key)
            if known is None:
                return await self._first(call, request, run)
            _check_same(known, request)
            if known.settled is None:
                return CommandReply.FromString(known.reply)
            try:
                async with asyncio.timeout_at(call.deadline):
                    # Shielded, because a caller that stops waiting must not cancel the first run.
                    await asyncio.shield(known.settled)
            except TimeoutError:
                raise CallExpired from None

    async def _first(self, call: Call, request: CommandRequest, run: Run) -> CommandReply:
        self._check_room()
        key = request.request_key
        known = self._running[key] = _Request(request)
        call.is_remembered = True
        expired: CallExpired | None = None
        try:
            reply = await run() or CommandReply()
        except CallExpired as error:
            expired = error
            reply = CommandReply(failure=Failure(reason="COMMAND_TIMED_OUT", detail=str(error)))
        except Exception as error:
            reply = CommandReply(failure=Failure(reason="INTERNAL", detail=report_bug(error)))
        finally:
            # This line also runs when the task is cancelled, because the worker ends.
            del self._running[key]
        if call.has_issued:
            known.reply = reply.SerializeToString()
            known.settled_at = self._clock()
            self._settled[key] = known
            self._bytes += _size(known)
        settled, known.settled = known.settled, None
        assert settled is not None
        settled.set_result(None)
        if expired is not None:
            raise expired
        return reply

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - REMEMBERED_S
        while self._settled:
            key, known = next(iter(self._settled.items()))
            if known.settled_at > oldest_kept:
                return
            del self._settled[key]
            self._bytes -= _size(known)

    def _check_room(self) -> None:
        if len(self) >= self._limit or self._bytes >= self._limit_bytes:
            raise CallFailed(
                "REQUEST_ID_LIMIT_REACHED",
                f"the outcomes of {len(self)} writes with a request_id are remembered, {self._bytes} bytes, and there "
                f"is no room for more until the oldest is {REMEMBERED_S / 60:g} minutes old; nothing was written. Put "
                "more writes into one WriteBulk, or send this one without request_id",
            )


def _check_same(known: _Request, request: CommandRequest) -> None:
    if known.digest != request.request_digest:
        raise CallFailed(
            "REQUEST_ID_REUSED",
            "this request_id was used for another command of the session; nothing was written. Use a new one for each "
            "write, and the same only to repeat a write as it was",
        )
    if known.withheld != request.withheld_digest:
        raise CallFailed(
            "REQUEST_JUDGED_OTHERWISE",
            "what the caller may write has changed since the first call of this request_id, so its outcome is not "
            "reported; nothing was written now",
        )


def _size(known: _Request) -> int:
    return _ENTRY_BYTES + len(known.reply)
