"""Everybody is cut at once, and everybody is back before long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.proxy import fault_proxy
from support.replaying import Follower, follower, replay_settings, subscribe_load
from support.waiting import until

from mxgw_client import connect
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

SESSIONS = SUBSCRIBERS = 8
RATE = 200


async def test_eight_times_eight_subscribers_cut_at_once_are_back_within_two_seconds() -> None:
    settings = {**replay_settings(RATE), "plugins.backpressure.maximum_subscribers": SUBSCRIBERS}
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(settings))
        proxy = await stack.enter_async_context(fault_proxy(gateway.target))
        followers: list[Follower] = []
        healthy: list[Follower] = []
        direct = await stack.enter_async_context(connect(gateway.target))
        async with asyncio.TaskGroup() as opening:
            sessions = [await stack.enter_async_context(direct.open_session()) for _ in range(SESSIONS)]
            oracles = [opening.create_task(subscribe_load(session)) for session in sessions]
        for session, oracle in zip(sessions, oracles, strict=True):
            client = await stack.enter_async_context(connect(proxy.target))
            far = await stack.enter_async_context(client.attach_session(session.session_id))
            followers += [follower(oracle.result(), far.events(), may_lose=lambda _: False) for _ in range(SUBSCRIBERS)]
        spare = await stack.enter_async_context(direct.open_session())
        healthy.append(follower(await subscribe_load(spare), spare.events(), may_lose=lambda _: False))
        ends: list[bool] = []
        async with asyncio.TaskGroup() as following:
            for one in (*followers, *healthy):
                following.create_task(one.run(lambda: bool(ends)))
            await until(lambda: all(one.at > RATE // 4 for one in followers), 60)

            assert proxy.reset() == SESSIONS

            await until(lambda: all(one.recorder.cuts and not one.stream.is_cut for one in followers), 60)
            behind = {one: one.at for one in followers}
            await until(lambda: all(one.at > behind[one] for one in followers), 60)
            ends.append(True)
        for one in (*followers, *healthy):
            one.checker.finish()

        assert not [one.checker.report() for one in (*followers, *healthy) if one.checker.violations]
        assert not healthy[0].recorder.cuts
