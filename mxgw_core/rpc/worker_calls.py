"""Sends a command to a session's worker, and turns the worker's refusals into errors."""

from __future__ import annotations

from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.errors import (
    AccessDenied,
    CommandFailed,
    CommandTimedOut,
    GatewayError,
    InvalidRequest,
    RequestIdLimitReached,
    RequestIdReused,
)
from mxgw_core.printable import printable
from mxgw_core.sessions.session import Session
from mxgw_core.workers.commands import EncodedCommand


async def call_worker(
    session: Session,
    request: w.CommandRequest,
    timeout_s: float,
    *,
    mx: EncodedCommand | None = None,
    is_use: bool = True,
) -> w.CommandReply:
    """Send a command to the worker and return the worker's answer.

    `mx` is the encoded MXAccess command; None when `request` contains the whole command.

    The call starts the session's lease again. The gateway's own calls must not do this, so they use `is_use=False`.

    Raises:
        InvalidRequest: the worker found the arguments wrong.
        CommandTimedOut: no answer came in time.
        CommandFailed: the worker could not run the command.
        GatewayError: the session is not ready, or it has ended.
    """
    session.require_ready()
    if is_use:
        session.touch()
    try:
        answer = session.worker.commands.call(request, timeout_s, mx)
        del request, mx  # both are handed over to be sent, and can be large, so they are freed here
        reply = await answer
    finally:
        if is_use:
            session.touch()
    if reply.WhichOneof("reply") == "failure":
        raise _error_of(reply.failure, timeout_s)
    return reply


def _error_of(failure: w.Failure, timeout_s: float) -> GatewayError:
    """Return the error for a command that the worker refused, or could not run."""
    reason, detail = printable(failure.reason, 64), printable(failure.detail, 500)
    match reason:
        case "COMMAND_TIMED_OUT":
            return CommandTimedOut(
                f"the command was not finished within {timeout_s:g} s; its outcome is unknown: {detail}",
                metadata={"timeout_s": f"{timeout_s:g}"},
            )
        case "BAD_PAGE_TOKEN":
            return InvalidRequest(detail, metadata={"field": "page_token"})
        case "BROWSE_NODE_NOT_FOUND":
            return InvalidRequest(detail, metadata={"field": "parent"})
        case "REQUEST_ID_REUSED":
            return RequestIdReused(detail, metadata={"field": "request_id"})
        case "REQUEST_ID_LIMIT_REACHED":
            return RequestIdLimitReached(detail)
        case "REQUEST_JUDGED_OTHERWISE":
            return AccessDenied(detail)
        case _:
            return CommandFailed(f"the worker could not run the command: {detail}", metadata={"worker_reason": reason})
