"""Calls that bear a request id, repeated while their answer is lost: the gateway and the worker see to it that once is
enough."""

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

# What the gateway takes a request id with.
WRITES = frozenset({"write", "write2", "write_secured", "write_secured2", "write_bulk"})

# The answer was lost, or the gateway is going or not back yet.
_LOST = (GatewayUnreachable, GatewayDraining, CommandOutcomeUnknown, SessionNotReady)


def new_request_id() -> bytes:
    """Return an id that nobody else has; 16 to 64 bytes are allowed."""
    return secrets.token_bytes(16)


async def repeated(attempt: Callable[[float], Awaitable[Answer]], deadline_s: float) -> Answer:
    """Return the answer; `attempt` gets the seconds that are left. Between attempts it waits as a stream that resumes.

    Raises:
        MxgwClientError: of the last attempt. When an earlier one may have been carried out, a note says so.
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
    """Return the answer to a write; `attempt` sends `request`, which gets a request id unless it has one.

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
    # The worker remembers as many as it can, and wrote nothing: then without, and without repeats.
    request.ClearField("request_id")
    return await attempt(deadline_s)
