"""A 64-bit gateway with 32-bit workers on the double of MXAccess, in Wine, and clients on this side."""

from __future__ import annotations

import functools

import pytest
from support.chaos import Kind, Plan, run
from support.windows_gateway import needs_windows, windows_restarts

pytestmark = [needs_windows, pytest.mark.asyncio, pytest.mark.timeout(900)]


async def test_a_gateway_that_is_killed_loses_no_event_of_mxaccess() -> None:
    plan = Plan({Kind.KILL: 2}, sessions=2, subscribers=2, rate=200, is_patient=True, is_mxaccess=True)

    outcome = await run(plan, functools.partial(windows_restarts, mxaccess=plan.rate_of_double))

    assert outcome.unexplained == 0, outcome.report()
    assert outcome.gaps == 0, outcome.report()
    assert outcome.adopted == plan.restarts * plan.sessions


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_twenty_five_kills_with_many_items_and_subscribers_lose_nothing() -> None:
    """8 sessions x 4 subscribers, 200 items of each session, each changing twice a second."""
    plan = Plan({Kind.KILL: 25}, sessions=8, subscribers=4, rate=8 * 400, is_patient=True, is_mxaccess=True)

    outcome = await run(plan, functools.partial(windows_restarts, mxaccess=plan.rate_of_double))

    assert outcome.unexplained == 0, outcome.report()
    assert outcome.adopted == plan.restarts * plan.sessions
