"""Calls that bear a request id, repeated while their answer is lost: the gateway and the worker see to it that once is
enough."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mxgw_client.errors import (
    CommandOutcomeUnknown,
    GatewayDraining,
    GatewayUnreachable,
    MxgwClientError,
    RequestIdReused,
    SessionNotReady,
)
from mxgw_client.resume import RESUME

Answer = TypeVar("Answer")

# The answer was lost, or the gateway is going or not back yet.
_LOST = (GatewayUnreachable, GatewayDraining, CommandOutcomeUnknown, SessionNotReady)


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
