"""Connections that break under load: every event reaches the application once and in order, or a Gap says which not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from support.proxy import FaultProxy, fault_proxy
from support.replaying import (
    Follower,
    cut_again_and_again,
    follower,
    replay_settings,
    subscribe_load,
)

from mxgw_client import connect
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio
log = logging.getLogger(__name__)

Fault = Callable[[FaultProxy], int]

FAULTS: dict[str, Fault] = {
    "reset": lambda proxy: proxy.reset(),
    "inside a message": lambda proxy: proxy.cut_inside_a_message(3_001),
    "slow close": lambda proxy: proxy.close_slowly(0.1),
    "half open": lambda proxy: proxy.half_open(),
}


async def judged_through_cuts(plan: Sequence[tuple[str, int]]) -> list[Follower]:
    """Follow one session's 5,000 events/s once per entry of the plan, each cut so many times in that way."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(replay_settings(5_000)))
        owner = await stack.enter_async_context(connect(gateway.target))
        session = await stack.enter_async_context(owner.open_session())
        oracle = await subscribe_load(session)
        followers: list[Follower] = []
        proxies: list[FaultProxy] = []
        for _ in plan:
            proxy = await stack.enter_async_context(fault_proxy(gateway.target))
            client = await stack.enter_async_context(connect(proxy.target))
            far = await stack.enter_async_context(client.attach_session(session.session_id))
            followers.append(follower(oracle, far.events(heartbeat_interval_s=1), may_lose=lambda _: False))
            proxies.append(proxy)
        # Where all of them stop, once the last cut is over.
        end: list[int] = []
        async with asyncio.TaskGroup() as following:
            for one in followers:
                following.create_task(one.run(lambda one=one: bool(end) and one.at >= end[0]))
            async with asyncio.TaskGroup() as cutting:
                for proxy, one, (fault, cuts) in zip(proxies, followers, plan, strict=True):
                    cutting.create_task(cut_again_and_again(proxy, one, cuts, [FAULTS[fault]]))
            end.append((await session.state()).position.sequence)
        for one in followers:
            one.checker.finish(end[0])
    return followers


async def test_thirty_cuts_under_load_lose_repeat_and_reorder_nothing() -> None:
    plan = [("reset", 10), ("inside a message", 10), ("slow close", 8), ("half open", 2)]
    followers = await judged_through_cuts(plan)

    for (fault, cuts), one in zip(plan, followers, strict=True):
        assert not one.checker.violations, f"{fault}: {one.checker.report()}"
        assert one.checker.resumes == len(one.recorder.cuts) >= cuts
        assert one.checker.gaps == 0
        assert one.checker.events > 5_000


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_five_hundred_cuts_under_load_lose_repeat_and_reorder_nothing() -> None:
    # Half-open connections take longest, so they are shared out.
    plan = [("reset", 125), ("inside a message", 125), ("slow close", 125), *[("half open", 25)] * 5]
    began = time.monotonic()
    followers = await judged_through_cuts(plan)
    for (fault, cuts), one in zip(plan, followers, strict=True):
        log.info("%s, %d cuts: %s", fault, cuts, one.checker.report())
    total = sum(one.checker.events for one in followers)
    log.info("%d cuts, %d events at the applications, %.0f s", sum(n for _, n in plan), total, time.monotonic() - began)

    assert not [one.checker.report() for one in followers if one.checker.violations]
    assert sum(len(one.recorder.cuts) for one in followers) >= 500
    assert not any(one.checker.gaps for one in followers)
