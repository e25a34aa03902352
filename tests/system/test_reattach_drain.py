"""`mxgw drain` ends the right gateway in order, and leaves or ends its sessions as it is told."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from support.adoption import LOAD, adopted
from support.clients import Client, client_of, refused
from support.restarts import restarts

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss

pytestmark = pytest.mark.asyncio

# A gateway ends a worker that is silent for 2.5 intervals. These tests stop workers for as long as `mxgw drain` takes
# to start, which is seconds on a busy machine.
PATIENT = "\n[workers]\nheartbeat_interval_s = 60.0\n"


async def test_drain_leaves_the_sessions_to_the_next_gateway() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        assert gateway.process is not None
        pid = gateway.process.pid
        done = await gateway.drain("--json")

        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pid"] == pid
        assert await gateway.ended() == 0
        assert "1 sessions wait for the next gateway" in gateway.log

        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
        done = await gateway.drain("--end-sessions")

        assert done.returncode == 0, done.stderr
        assert "ended after" in done.stdout

        await gateway.ended()
        await gateway.all_is_gone()


async def test_to_end_sessions_is_asked_of_one_gateway_and_not_of_the_next() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        await gateway.kill()
        (gateway.data / "run" / "end-sessions").touch()
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.terminate()

        assert gateway.rows() == [(session.session_id, "ready")]


async def test_drain_of_a_gateway_whose_lock_file_was_replaced_signals_nobody() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        (gateway.data / "lock").unlink()
        (gateway.data / "lock").write_text("1\n")
        done = await gateway.drain("--end-sessions")

        assert done.returncode == 1
        assert "was removed or replaced" in done.stderr
        assert "Stop the gateway yourself" in done.stderr
        assert not (gateway.data / "run" / "end-sessions").exists()

        await gateway.terminate()


async def test_without_a_gateway_drain_says_so() -> None:
    async with restarts(LOAD) as gateway:
        never = await gateway.drain()
        await gateway.start()
        await gateway.kill()
        no_more = await gateway.drain()

        for done in (never, no_more):
            assert done.returncode == 3
            assert "no gateway runs on" in done.stderr


async def test_a_gateway_that_takes_longer_than_asked_for_is_named() -> None:
    slow = LOAD + PATIENT + "\n[gateway]\ndrain_timeout_s = 20\n"
    async with restarts(slow) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
            (worker,) = gateway.workers()
            worker.suspend()
            call = client.invoke(session.session_id, register=c.RegisterCommand(client_name="x"), timeout=60)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(_code(call))
                await _is_under_way(client, session.session_id)
                done = await gateway.drain("--timeout", "0.3")

                assert done.returncode == 1
                assert "has not ended within 0.3 s" in done.stderr

                worker.resume()
                await waiting
        await gateway.ended()


async def _is_under_way(client: Client, session_id: str) -> None:
    """Return once a command of the session is at its worker."""
    asked = ss.GetSessionRequest(session_id=session_id)
    while not (await client.sessions.GetSession(asked, timeout=60)).session.pending_commands:  # noqa: ASYNC110  of another process
        await asyncio.sleep(0.01)


async def _code(call: object) -> object:
    try:
        return await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_a_command_that_outlasts_the_drain_is_told_that_its_outcome_is_unknown() -> None:
    short = LOAD + PATIENT + "\n[gateway]\ndrain_timeout_s = 0.3\n"
    async with restarts(short) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
            (worker,) = gateway.workers()
            worker.suspend()
            call = client.invoke(session.session_id, register=c.RegisterCommand(client_name="x"), timeout=60)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(refused(call))
                await _is_under_way(client, session.session_id)
                await gateway.terminate()
                refusal = await waiting
            worker.resume()

            assert refusal.reason == "COMMAND_OUTCOME_UNKNOWN"
            assert refusal.code is grpc.StatusCode.UNKNOWN
            assert refusal.retry_after_s is None
        assert gateway.rows() == [(session.session_id, "ready")]
