"""Repeats a call with a request id until an answer comes. Gateway and worker carry out each request id only once."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from mxgw.v1.command_service_pb2 import InvokeRequest, InvokeResponse
from mxgw_client.errors import (
    CommandOutcomeUnknown,
    GatewayDraining,
    GatewayUnreachable,
    MxgwClientError,
    RequestIdLimitReached,
    RequestIdReused,
    SessionNotReady,
)
from mxgw_client.resume import RESUME

Answer = TypeVar("Answer")
WriteAttempt: TypeAlias = Callable[[float], Awaitable[InvokeResponse]]

# The commands for which the gateway accepts a request id.
WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})

# Errors after which the call is repeated: the answer was lost, the gateway is shutting down, or the session is not
# ready, for example because its worker is being adopted.
_LOST = (GatewayUnreachable, GatewayDraining, CommandOutcomeUnknown, SessionNotReady)


def new_request_id() -> bytes:
    """Return 16 random bytes, an id that no other call has. (The contract allows 16 to 64 bytes.)"""
    return secrets.token_bytes(16)


async def repeated(attempt: Callable[[float], Awaitable[Answer]], deadline_s: float) -> Answer:
    """Call `attempt` again and again until an answer comes or `deadline_s` seconds have passed; return the answer.

    `attempt` gets the number of seconds that are left. The delays between the attempts follow the default
    `ResumePolicy`. Only errors of the kinds in `_LOST` lead to another attempt.

    Raises:
        MxgwClientError: the error of the last attempt. It has a note when the call was perhaps carried out by an
            earlier attempt whose answer was lost.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + deadline_s
    attempts, lost = 0, False
    while True:
        try:
            return await attempt(max(until - clock(), 0.001))
        except MxgwClientError as error:
            delay_s = RESUME.delay_s(attempts, error.retry_after_s, random.random())  # noqa: S311  # jitter, no secret
            if not isinstance(error, _LOST) or clock() + delay_s >= until:
                if lost and not isinstance(error, RequestIdReused):
                    error.add_note("an earlier attempt got no answer: whether it was carried out is unknown")
                raise
            lost = lost or isinstance(error, GatewayUnreachable | CommandOutcomeUnknown)
        attempts += 1
        await asyncio.sleep(delay_s)


async def written_once(request: InvokeRequest, attempt: WriteAttempt, deadline_s: float) -> InvokeResponse:
    """Send a write, repeat it while its answer is lost, and return the answer. The write is carried out only once.

    `attempt` sends `request`. A random request id is put into `request` unless it already has one.

    Raises:
        MxgwClientError: the error of the last attempt, as in `repeated`.
    """
    if request.request_id:
        return await repeated(attempt, deadline_s)
    request.request_id = new_request_id()
    attempts = 0

    async def counted(left_s: float) -> InvokeResponse:
        nonlocal attempts
        attempts += 1
        return await attempt(left_s)

    try:
        return await repeated(counted, deadline_s)
    except RequestIdLimitReached:
        if attempts > 1:
            raise
    # The worker has no room for another request id, and has written nothing. The write is therefore sent without an id,
    # and is not repeated if its answer is lost.
    request.ClearField("request_id")
    return await attempt(deadline_s)
