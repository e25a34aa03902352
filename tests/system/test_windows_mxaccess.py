"""A 64-bit gateway with 32-bit workers on the double of MXAccess, in Wine, and clients on this side."""

from __future__ import annotations

import asyncio
import functools

import pytest
from support import wine
from support.chaos import Kind, Plan, run
from support.windows_gateway import needs_windows, windows_restarts

from mxgw_client import Gateway, MxAccessError, Session, SessionState, SourceHealth, connect
from mxgw_client.errors import GatewayRefusal, WorkerExited

pytestmark = [*needs_windows, pytest.mark.asyncio, pytest.mark.timeout(900)]


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


_SETTINGS = """
[backends]
default = "galaxy"
[backends.galaxy]
kind = "mxaccess"
probe = "AppEngine_001.ScanCount"
probe_timeout_s = 10.0
slow_call_s = 1.0
call_limit_s = 5.0
start_limit_s = 300.0
[workers]
start_timeout_s = 300.0
"""


async def test_what_goes_wrong_in_mxaccess_is_told_and_stays_in_its_session() -> None:
    async with windows_restarts(_SETTINGS, {"LMXDOUBLE_RECOVER_MS": "100"}) as gateway:
        await gateway.start()
        async with connect(gateway.target, timeout_s=60) as client, client.open_session(lease_s=600) as session:
            await session.register()
            with pytest.raises(MxAccessError, match="run-time licence is missing") as refused:
                await session.add_item("Denied.Count")
            assert refused.value.hresult & 0xFFFFFFFF == 0x80070005

            await _a_lost_platform_is_told(session)
            await _a_call_that_hangs_ends_its_session(client)

            assert (await session.read("Bench_001.Constant", wait_s=60)).value == 42
        await gateway.terminate(300)


async def _a_lost_platform_is_told(session: Session) -> None:
    await session.subscribe("Sim.PlatformDown")
    await session.write_once("Sim.PlatformDown", True)
    detail = await _health(session, SourceHealth.LOST)
    assert "the platform is probably lost" in detail

    await session.write_once("Sim.PlatformDown", False)
    await _health(session, SourceHealth.GOOD)


async def _a_call_that_hangs_ends_its_session(client: Gateway) -> None:
    async with client.open_session(lease_s=600) as session:
        await session.register()
        # The worker ends 5 s after the call began, long before the call's own deadline.
        with pytest.raises(WorkerExited, match="has not returned from AddItem for 5 s"):
            await session.add_item("Hang.Forever", timeout_s=300)
        async with asyncio.timeout(300):
            while True:
                info = await session.info()
                if info.state is SessionState.FAULTED:
                    break
                await asyncio.sleep(0.1)

        assert "has not returned from AddItem for 5 s" in info.close_detail


async def _health(session: Session, wanted: SourceHealth) -> str:
    """Wait until the source has this health, and return the sentence about it."""
    async with asyncio.timeout(300):
        while True:
            info = await session.worker_info()
            if info.source_health is wanted:
                return info.source_detail
            await asyncio.sleep(0.1)


async def test_a_worker_with_64_bits_is_told_what_it_needs() -> None:
    async with windows_restarts(_SETTINGS) as gateway:
        workers = f"workers.python=Z:{wine.Interpreter.BITS_64.program}"
        await gateway.start("--set", workers)
        async with connect(gateway.target, timeout_s=60) as client:
            with pytest.raises(GatewayRefusal, match="needs a 32-bit Python") as refused:
                async with client.open_session(lease_s=600):
                    pass
        assert "Set workers.python to a 32-bit Python" in str(refused.value)
        await gateway.terminate(300)
