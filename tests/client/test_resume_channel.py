"""A connection that is dead without an error is replaced; calls that still work on it are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from client.scripted import Scripted, opened, scripted_gateway
from support.clock import advance
from support.proxy import FaultProxy, fault_proxy

from mxgw.v1 import event_service_pb2
from mxgw_client import EventStream, Gateway, ResumePolicy, StreamCut, StreamOpened, connect, errors
from mxgw_client._calls import Calls

pytestmark = pytest.mark.asyncio

QUICK = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.05, attempt_timeout_s=30.0)
# For attempts that are meant to fail.
HASTY = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.05, attempt_timeout_s=1.0)
# A little more than two and a half of the heartbeat intervals that the streams here announce.
STALE_AFTER_S = 10.1


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Scripted, FaultProxy, Gateway]]:
    """Yield a scripted gateway whose streams send nothing and soon count as stale, its proxy, and a client."""
    async with scripted_gateway() as scripted, fault_proxy(scripted.target) as proxy:

        async def stream(request, context) -> AsyncIterator[event_service_pb2.StreamEventsResponse]:
            yield opened(
                heartbeat_s=4, resuming=request.start.HasField("after"), recovered=request.start.HasField("after")
            )
            await asyncio.Event().wait()

        scripted.script.stream = stream
        async with connect(proxy.target, timeout_s=5) as gateway:
            yield scripted, proxy, gateway


async def pass_silence() -> None:
    """Move the clock on until streams that are being read count as stale: their wait begins with the read."""
    for _ in range(5):
        await asyncio.sleep(0)
    advance(STALE_AFTER_S)


async def next_after_silence(events: EventStream) -> object:
    """Return what a stream yields when nothing came for so long that it counts as stale."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pass_silence())
        return await anext(events)


def calls_of(gateway: Gateway) -> Calls:
    calls = gateway._open_calls
    assert calls is not None
    return calls


async def test_a_stream_leaves_a_half_open_connection_for_a_new_one() -> None:
    async with proxied() as (_, proxy, gateway), gateway.open_session() as session:
        events = session.events(resume=QUICK)
        assert isinstance(await anext(events), StreamOpened)
        proxy.half_open()
        cut = await next_after_silence(events)

        assert isinstance(cut, StreamCut)
        assert isinstance(cut.error, errors.StreamStale)

        back = await anext(events)

        assert isinstance(back, StreamOpened)
        assert back.recovered
        assert proxy.accepted == 2

        # Commands take the new connection too.
        async with asyncio.timeout(60):
            await session.ping()


async def test_streams_that_go_stale_together_share_one_new_connection() -> None:
    async with proxied() as (_, proxy, gateway), gateway.open_session() as session:
        streams = [session.events(resume=QUICK) for _ in range(4)]
        for events in streams:
            await anext(events)
        proxy.half_open()

        async def back(number: int) -> None:
            while not isinstance(await anext(streams[number]), StreamOpened):
                pass

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(back(number))
            await pass_silence()

        assert proxy.accepted == 2
        assert calls_of(gateway).generation == 1


async def test_an_attempt_that_hangs_leaves_its_connection_too() -> None:
    async with proxied() as (_, proxy, gateway), gateway.open_session() as session:
        events = session.events(resume=HASTY)
        await anext(events)
        proxy.half_open()
        assert isinstance(await next_after_silence(events), StreamCut)
        proxy.hangs = True

        async def hang_for_a_while() -> None:
            while proxy.accepted < 3:  # noqa: ASYNC110 - the proxy announces nothing
                await asyncio.sleep(0.01)
            proxy.hangs = False

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(hang_for_a_while())
            assert isinstance(await anext(events), StreamOpened)

        assert calls_of(gateway).generation >= 2


async def test_a_call_under_way_on_the_old_connection_is_left_alone_and_the_connection_goes_when_it_is_over() -> None:
    async with proxied() as (scripted, _, gateway), gateway.open_session() as session:
        calls = calls_of(gateway)
        events = session.events(resume=None)
        await anext(events)
        await calls.renew(0)
        await calls.renew(0)  # as another stream on the same channel would

        assert calls.generation == 1
        assert len(calls._retired) == 1
        assert scripted.script.streams_ended == 0

        await session.ping()
        await events.close()
        await calls.renew(1)

        assert calls.generation == 2
        assert len(calls._retired) <= 1

        await session.ping()
        await calls.renew(2)

        assert not [line for line in calls._retired if line.calls]


async def test_after_a_reset_the_next_attempt_is_not_held_back_by_the_transport() -> None:
    async with proxied() as (_, proxy, gateway), gateway.open_session() as session:
        events = session.events(resume=QUICK)
        await anext(events)
        for _ in range(5):
            proxy.reset()
            assert isinstance(await anext(events), StreamCut)
            assert isinstance(await anext(events), StreamOpened)


async def test_after_an_outage_the_transport_tries_to_connect_within_a_second_or_so() -> None:
    async with proxied() as (_, proxy, gateway), gateway.open_session() as session:
        events = session.events(resume=QUICK)
        await anext(events)
        proxy.is_down = True
        proxy.reset()
        assert isinstance(await anext(events), StreamCut)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await anext(events)
        proxy.is_down = False
        async with asyncio.timeout(60):
            assert isinstance(await anext(events), StreamOpened)
