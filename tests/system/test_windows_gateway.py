"""The gateway on Windows, in Wine, with clients on this side: gateways and workers killed, impostors refused."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.adoption import LOAD, adopted
from support.chaos import Kind, Outcome, Plan, run
from support.clients import client_of
from support.waiting import until
from support.windows_gateway import needs_windows, windows_restarts

from mxgw.v1 import session_service_pb2 as ss

log = logging.getLogger(__name__)

pytestmark = [*needs_windows, pytest.mark.asyncio, pytest.mark.timeout(600)]

# The worker is stopped for as long as a Python takes to start in Wine on a busy machine.
_PATIENT = f"{LOAD}\n[plugins.reattach]\nadopt_within_seconds = 100.0\nmax_orphan_lifetime_seconds = 600.0\n"


def _nothing_wrong(outcome: Outcome, plan: Plan) -> None:
    assert outcome.unexplained == 0, outcome.report()
    assert outcome.gaps == 0, outcome.report()
    assert outcome.adopted == plan.restarts * plan.sessions


async def test_a_gateway_that_is_killed_takes_its_workers_back_and_no_event_is_lost() -> None:
    plan = Plan({Kind.KILL: 2}, sessions=2, subscribers=2, rate=200, outbox_events=100_000, is_patient=True)

    _nothing_wrong(await run(plan, windows_restarts), plan)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_twenty_five_kills_of_a_gateway_with_many_subscribers_lose_nothing() -> None:
    plan = Plan({Kind.KILL: 25}, sessions=8, subscribers=4, rate=240, outbox_events=100_000, is_patient=True)
    outcome = await run(plan, windows_restarts)
    log.info("%s", outcome.line())

    _nothing_wrong(outcome, plan)


async def test_a_worker_that_is_killed_ends_its_session_and_no_other() -> None:
    async with windows_restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            first = await client.open()
            (worker,) = gateway.workers()
            second = await client.open()

            assert all("win32" in process.cmdline()[0] for process in gateway.workers())

            worker.kill()

            async def state(session_id: str) -> ss.Session:
                answer = await client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id), timeout=60)
                return answer.session

            async with asyncio.timeout(60):
                while True:
                    ended = await state(first.session_id)
                    if ended.state == ss.SESSION_STATE_FAULTED:
                        break
                    await asyncio.sleep(0.01)

            assert ended.close_reason == ss.CLOSE_REASON_WORKER_EXITED
            assert (await state(second.session_id)).state == ss.SESSION_STATE_READY

            await client.close(second.session_id)
        await gateway.terminate()
        await until(lambda: not gateway.workers())


async def test_impostors_at_the_pipe_of_a_worker_are_refused_and_the_worker_is_adopted() -> None:
    async with windows_restarts(_PATIENT) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()

        async with gateway.program(
            "Z:/clone/tests/support/windows_impostors.py", r"Z:\shared\d", session.session_id
        ) as ask:
            said = await ask()

            assert set(said) == {"silent", "empty", "hello", "garbage", "half a frame"}
            # The connection of one that writes can be lost before it has read why; the log below has all reasons.
            assert said.pop("silent") == ["WRONG_PROCESS"]
            assert all(reasons in ([], ["WRONG_PROCESS"]) for reasons in said.values())

            # That the access list of the pipe keeps another user out is not seen: Wine lets everybody open a pipe.
            # A worker of this user, for whom the gateway's pipe is another user's, does not connect to it.
            assert await ask("") == {"another user": ["WRONG_USER"], "its worker": "refuses"}

            worker.resume()
            async with client_of(gateway.target) as client:
                await adopted(client, session.session_id)
                seen = await ask()

                assert seen["late"] == ["WRONG_PROCESS"]

                # The secret of the worker is in the manifest, and in nothing that other processes can see.
                assert seen["secrets"]
                assert seen["workers"] == ["python.exe command line"]
                assert seen["environments"]
                assert seen["logs"] == 3  # of two gateways and of the worker
                assert seen["exposed"] == []

                await client.close(session.session_id)

        assert gateway.log.count(": WRONG_PROCESS: ") == 6
        assert gateway.log.count(": WRONG_USER: ") == 2

        await gateway.terminate()
