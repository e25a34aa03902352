"""Workers come home: the gateway dies or is restarted, and its clients go on where they were."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc
import grpc.aio
import pytest
from support.adoption import LOAD, adopted, after, follow
from support.clients import Refusal, client_of, refusal_of, refused
from support.restarts import restarts
from support.waiting import until

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.testing.checker import StreamChecker, observed

pytestmark = pytest.mark.asyncio


async def read_to_the_end(stream: Any, frames: list[Any]) -> Refusal:
    """Append every frame that comes, and return how the stream ended."""
    try:
        while (frame := await stream.read()) is not grpc.aio.EOF:
            frames.append(frame)
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the stream ended without a reason")


async def test_after_a_kill_the_session_is_the_same_and_no_event_is_missing() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(gateway.target) as client:
            before = await client.open(name="historian", tag="line4", lease_s=900)
            await client.subscribe(before.session_id, [f"Load.Item{n:05d}" for n in range(1, 11)])
            await follow(client, before.session_id, checker, 300)
            (worker,) = gateway.workers()
            await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await adopted(client, before.session_id)
            await follow(client, before.session_id, checker, 300)
            state = await client.sessions.GetSessionState(ss.GetSessionStateRequest(session_id=before.session_id))
            await client.close(before.session_id)

            assert checker.gaps == 0, checker.report()
            assert not checker.violations, checker.report()
            assert session.epoch == before.epoch
            assert session.worker_pid == worker.pid
            kept = ("owner", "client_name", "tag", "backend", "opened_at", "lease")
            assert all(getattr(session, name) == getattr(before, name) for name in kept)
            assert len(state.items) == 10
        await gateway.all_is_gone()


async def test_an_orderly_restart_leaves_workers_running_and_tells_clients_when_to_come_back() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(gateway.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, ["Load.Item00001"])
            await follow(client, session.session_id, checker, 50)
            checker.attach(checker.position)
            stream = client.stream(session.session_id, after(checker))
            frames = [await stream.read()]
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            refusal = await read_to_the_end(stream, frames)
            for frame in frames:
                for observation in observed(frame):
                    checker.observe(observation)
            checker.end(refusal.reason)
            assert await gateway.ended() == 0

            assert refusal.reason == "GATEWAY_DRAINING"
            assert refusal.retry_after_s
            assert any(frame.HasField("draining") for frame in frames)
        assert len(gateway.workers()) == 1
        assert gateway.rows() == [(session.session_id, "ready")]
        assert "1 left to the next gateway" in gateway.log

        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await follow(client, session.session_id, checker, 50)
            await client.close(session.session_id)

            assert checker.gaps == 0, checker.report()
            assert not checker.violations, checker.report()
        await gateway.all_is_gone()


async def test_a_session_that_waits_for_its_worker_is_unavailable_and_says_when_to_ask_again() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            stream = await refused(client.stream(session.session_id))
            command = await refused(client.invoke(session.session_id, register=c.RegisterCommand(client_name="x")))
            shown = await client.sessions.GetSession(ss.GetSessionRequest(session_id=session.session_id))
            worker.resume()
            back = await adopted(client, session.session_id)
            await client.close(session.session_id)

            for refusal in (stream, command):
                assert refusal.code is grpc.StatusCode.UNAVAILABLE
                assert refusal.reason == "SESSION_ADOPTING"
                assert refusal.retry_after_s
            assert shown.session.state == ss.SESSION_STATE_ADOPTING
            assert back.worker_pid == worker.pid
        await gateway.all_is_gone()


async def test_a_worker_that_ended_meanwhile_ends_its_session_with_that_reason() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        await gateway.kill()
        worker.kill()
        await until(lambda: not gateway.workers())
        await gateway.start()
        async with client_of(gateway.target) as client:
            refusal = await refused(client.stream(session.session_id))

            assert refusal.code is grpc.StatusCode.NOT_FOUND
            assert refusal.reason == "SESSION_GONE"
            assert refusal.metadata["close_reason"] == "WORKER_EXITED"
        await gateway.all_is_gone()


async def test_a_worker_that_never_comes_back_is_ended() -> None:
    async with restarts(
        LOAD + "\n[plugins.reattach]\nadopt_within_seconds = 0.5\n[workers]\nstop_grace_s = 0.5\n"
    ) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            await gateway.all_is_gone()
            await until(lambda: "WORKER_SILENT" in gateway.log)
            refusal = await refused(client.stream(session.session_id))

            assert refusal.metadata["close_reason"] == "WORKER_SILENT"


async def test_what_the_outbox_could_not_hold_is_told_exactly() -> None:
    settings = LOAD.replace("rate = 500.0", "rate = 2000.0") + "\n[workers]\noutbox_events = 400\n"
    async with restarts(settings) as gateway:
        await gateway.start()
        checker = StreamChecker()
        async with client_of(gateway.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, [f"Load.Item{n:05d}" for n in range(1, 11)])
            await follow(client, session.session_id, checker, 500)
        await gateway.kill()
        await asyncio.sleep(0.5)  # the outage itself: a thousand events, of which the outbox holds 400
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await follow(client, session.session_id, checker, 500)
            await client.close(session.session_id)

            # One for what was gone when the worker came back; at times a second for what went while it shook hands.
            assert checker.gaps in (1, 2), checker.report()
            assert not checker.violations, checker.report()
        await gateway.all_is_gone()


async def test_without_the_plugin_workers_leave_with_their_gateway() -> None:
    async with restarts(LOAD.replace('"replay", "reattach"', '"replay"')) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.kill()
        await until(lambda: not gateway.workers())
        await gateway.start()
        async with client_of(gateway.target) as client:
            refusal = await refused(client.stream(session.session_id))

            assert refusal.reason == "SESSION_NOT_FOUND"
        await gateway.all_is_gone()


async def test_a_session_can_be_closed_while_it_waits_for_its_worker() -> None:
    async with restarts(LOAD + "\n[workers]\nstop_grace_s = 0.3\n") as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            closed = await client.close(session.session_id)

            assert ss.CloseReason.Name(closed.close_reason) == "CLOSE_REASON_CLIENT"

            await gateway.all_is_gone()


async def test_an_orderly_end_while_it_waits_leaves_the_worker_to_the_gateway_after_that() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()
        await gateway.terminate()

        assert gateway.rows() == [(session.session_id, "ready")]

        worker.resume()
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await client.close(session.session_id)
        await gateway.all_is_gone()


async def test_a_gateway_that_cannot_start_leaves_the_workers_alone() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.kill()

        assert await gateway.started("--listen", "192.0.2.1:1") == ""
        assert await gateway.ended() == 1
        assert len(gateway.workers()) == 1
        assert gateway.rows() == [(session.session_id, "ready")]

        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await client.close(session.session_id)
        await gateway.all_is_gone()
