"""One running command: its deadline, its single answer, and the errors that are turned into answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from mxgw.v1.commands_pb2 import BulkItemResult, MxReply
from mxgw.worker.v1.worker_pb2 import CommandReply, Failure
from mxgw_worker.backends.base import E_FAIL, MxError

log = logging.getLogger(__name__)

# A function that hands one write to the backend.
Issue: TypeAlias = Callable[[], Awaitable[None]]


class CallExpired(Exception):
    """The deadline has passed and the gateway has its answer, so no more backend calls are made for this command."""


class CallFailed(Exception):
    """The worker cannot run the command. The gateway gets a `Failure`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Refused(MxError):
    """The worker itself refuses a command. The client gets an ordinary reply, in which `reason` names the cause."""

    def __init__(self, reason: str, message: str, hresult: int = E_FAIL) -> None:
        super().__init__(hresult, message)
        self.reason = reason


class Call:
    """A command between its arrival and its answer.

    When the deadline passes, the answer is COMMAND_TIMED_OUT, or the reply that `last_words` returns. A backend call
    that is running at that time is not cancelled, because MXAccess cannot cancel a call either. The backend call runs
    to its end, its effect is noted, and no further backend call is made.
    """

    def __init__(
        self, answer: Callable[[CommandReply], None], timeout_ms: int, item_serials: Sequence[int] = ()
    ) -> None:
        """Start the timer of the deadline, if the command has a deadline. `CommandRequest` in worker.proto explains
        `item_serials`.
        """
        self._loop = asyncio.get_running_loop()
        self._answer = answer
        self._timer: asyncio.TimerHandle | None = None
        self.answered = False
        self.expired = False
        # True once a write of this command was handed to the backend.
        self.has_issued = False
        # True when the outcome is kept for a repeated call. Then completions are awaited after the deadline as well.
        self.is_remembered = False
        self.timeout_ms = timeout_ms
        self.item_serials = item_serials
        # Called when the deadline passes; returns the answer. Only a command that can answer with a partial result sets
        # this function.
        self.last_words: Callable[[], CommandReply] | None = None
        # The deadline in the event loop's time; None without a deadline.
        self.deadline: float | None = None
        if timeout_ms:
            self.deadline = self._loop.time() + timeout_ms / 1000
            self._timer = self._loop.call_at(self.deadline, self._expire)

    def answer(self, reply: CommandReply) -> None:
        """Send the answer, unless one was sent already."""
        if not self.answered:
            self.answered = True
            if self._timer is not None:
                self._timer.cancel()
            self._answer(reply)

    def fail(self, reason: str, detail: str) -> None:
        """Answer with a Failure, unless an answer was sent already."""
        self.answer(CommandReply(failure=Failure(reason=reason, detail=detail)))

    def noting(self, issue: Issue) -> Issue:
        """Return a backend call that sets `has_issued` and then calls `issue`."""

        async def noted() -> None:
            self.has_issued = True
            await issue()

        return noted

    def check(self) -> None:
        """Check the deadline. This must be called before every backend call.

        Raises:
            CallExpired: the deadline passed.
        """
        if self.expired:
            raise CallExpired

    def _expire(self) -> None:
        self.expired = True
        if self.last_words is not None:
            self.answer(self.last_words())
            return
        self.fail(
            "COMMAND_TIMED_OUT",
            f"the backend did not answer within {self.timeout_ms / 1000:g} s; what was under way may still happen",
        )


def failed_reply(error: MxError) -> MxReply:
    """Return the ordinary reply to a method that has failed."""
    reason = error.reason if isinstance(error, Refused) else ""
    return MxReply(hresult=error.hresult, message=error.message, reason=reason)


def failed_item(error: Exception, item_handle: int = 0) -> BulkItemResult:
    """Return the result of one item that failed. An unexpected error is logged, and makes only this item fail.

    Raises:
        CallExpired: `error` is a CallExpired, which ends the whole command.
    """
    if isinstance(error, CallExpired):
        raise error
    if not isinstance(error, MxError):
        error = Refused("INTERNAL", report_bug(error))
    reason = error.reason if isinstance(error, Refused) else ""
    return BulkItemResult(item_handle=item_handle, hresult=error.hresult, message=error.message, reason=reason)


def report_bug(error: Exception) -> str:
    """Log an unexpected error, and return a text for the client. The text only says where to find the error in the
    log.
    """
    correlation = secrets.token_hex(4)
    log.error("a command failed in a way the worker does not know, correlation %s", correlation, exc_info=error)
    return f"the worker or its backend has a bug; the worker's log tells more under correlation {correlation}"
