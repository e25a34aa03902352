"""Calls with a request id: repeated while no answer comes. Gateway and worker carry out each request id only once."""

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

# The commands that may have a request id.
WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})

# Errors after which the call is repeated: the answer was lost, or the gateway shuts down or is not ready again yet.
_LOST = (GatewayUnreachable, GatewayDraining, CommandOutcomeUnknown, SessionNotReady)


def new_request_id() -> bytes:
    """Return an id that no other call has. (The contract allows 16 to 64 bytes.)"""
    return secrets.token_bytes(16)


async def repeated(attempt: Callable[[float], Awaitable[Answer]], deadline_s: float) -> Answer:
    """Call `attempt` until an answer comes, and return it; each time it is passed the seconds left until the deadline.

    The delays between attempts are those of a stream that resumes.

    Raises:
        MxgwClientError: the error of the last attempt, with a note when an earlier one may have been carried out.
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
    """Return the answer to a write. `attempt` sends `request`, to which a request id is added unless it has one.

    Raises:
        MxgwClientError: as `repeated`.
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
    # The worker can remember no more request ids, and wrote nothing. Write without one, and therefore only once.
    request.ClearField("request_id")
    return await attempt(deadline_s)
