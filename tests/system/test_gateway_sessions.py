"""Sessions over a real gateway with real workers: opening, listing, leases, limits, and what ended."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.clients import client_of, refused
from support.waiting import until

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.gateway_service_pb2 import PingRequest
from mxgw_core.events.log import EventLog
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

READY, CLOSED, FAULTED = ss.SESSION_STATE_READY, ss.SESSION_STATE_CLOSED, ss.SESSION_STATE_FAULTED


async def test_a_session_is_opened_described_and_closed() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        opened = await client.open(name="line 3", tag="north", lease_s=60)

        assert opened.state == READY
        assert (opened.client_name, opened.tag, opened.backend, opened.owner) == ("line 3", "north", "sim", "anonymous")
        assert len(opened.epoch) == 16
        assert opened.worker_pid > 0
        assert opened.lease.seconds == 60
        assert 0 < opened.lease_expires_at.seconds - time.time() <= 61

        request = ss.GetSessionRequest(session_id=opened.session_id)
        described = (await client.sessions.GetSession(request)).session

        assert (described.session_id, described.epoch, described.state) == (opened.session_id, opened.epoch, READY)

        closed = await client.close(opened.session_id)

        assert (closed.state, closed.close_reason) == (CLOSED, ss.CLOSE_REASON_CLIENT)
        assert closed.closed_at.seconds > 0
        assert (await client.sessions.GetSession(request)).session == closed
        assert await client.close(opened.session_id) == closed  # closing twice is no error


async def test_session_ids_cannot_be_guessed() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        ids = [(await client.open()).session_id for _ in range(3)]

        assert len(set(ids)) == 3
        assert min(map(len, ids)) >= 24


async def test_closing_works_even_if_no_ended_session_is_remembered() -> None:
    async with running_gateway({"limits.remembered_sessions": 0}) as gateway, client_of(gateway.target) as client:
        session = await client.open()

        assert (await client.close(session.session_id)).state == CLOSED

        again = client.sessions.CloseSession(ss.CloseSessionRequest(session_id=session.session_id))

        assert (await refused(again)).reason == "SESSION_NOT_FOUND"


async def test_the_events_of_a_closed_session_do_not_wait_for_the_collector() -> None:
    def logs() -> list[EventLog]:
        return [found for found in gc.get_objects() if type(found) is EventLog]

    others = logs()  # of earlier tests

    def held_bytes() -> int:
        return sum(log.bytes for log in logs() if not any(log is other for other in others))

    async with running_gateway() as gateway, client_of(gateway.target) as client:
        gc.disable()
        try:
            session = await client.open()
            await client.subscribe(session.session_id, ["Tank_001.Level"])
            await until(held_bytes)
            await client.close(session.session_id)

            assert held_bytes() == 0
        finally:
            gc.enable()


async def test_sessions_are_listed_in_pages_in_the_order_of_their_opening() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        opened = [(await client.open(name=str(number))).session_id for number in range(5)]
        await client.close(opened[1])

        async def listed(**fields: object) -> list[str]:
            ids: list[str] = []
            token = ""
            while True:
                request = ss.ListSessionsRequest(page_size=2, page_token=token, **fields)  # type: ignore[arg-type]
                page = await client.sessions.ListSessions(request)

                assert len(page.sessions) <= 2

                ids += [session.session_id for session in page.sessions]
                token = page.next_page_token
                if not token:
                    return ids

        assert await listed() == [opened[0], *opened[2:]]
        assert await listed(include_ended=True) == opened


async def test_the_session_limit_is_told_and_a_closed_session_makes_room() -> None:
    async with running_gateway({"limits.sessions": 2}) as gateway, client_of(gateway.target) as client:
        first, _ = await client.open(), await client.open()
        refusal = await refused(client.open())

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED")
        assert refusal.metadata == {"limit": "2", "setting": "limits.sessions"}
        assert refusal.retry_after_s is not None

        await client.close(first.session_id)
        await client.open()


async def test_a_session_that_may_not_fit_into_memory_is_refused_and_growth_past_the_limit_is_given_up() -> None:
    mib = 1 << 20
    settings = {"limits.memory_bytes": 64 * mib, "events.unattached_bytes": 32 * mib}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        registry, seen = gateway.app.gateway._registry, gateway.api.observation

        def held_by(session_id: str) -> EventLog:
            """Let the session hold all that it may before somebody reads it."""
            log = registry.get(session_id).distributor.log
            for sequence in range(log.head + 1, log.head + 34):
                log.append(sequence, sequence, b"x" * mib)  # nobody reads these
            return log

        first = await client.open()
        second = await client.open()

        assert seen.memory_bytes < mib

        held_by(first.session_id)
        refusal = await refused(client.open())

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_LIMIT_REACHED")
        assert refusal.metadata["setting"] == "limits.memory_bytes"
        assert (refusal.metadata["limit"], refusal.metadata["needed"]) == (str(64 * mib), str(32 * mib))
        assert 32 * mib < int(refusal.metadata["used"]) < 34 * mib
        assert refusal.retry_after_s is not None

        log = held_by(second.session_id)

        assert seen.memory_bytes > seen.memory_limit_bytes == 64 * mib

        # A little is given up in a turn.
        await until(lambda: seen.memory_bytes <= 60 * mib, 60)

        assert registry.memory.relieved_bytes > 0
        assert log.oldest > 1

        await client.close(first.session_id)
        await client.close(second.session_id)
        await client.open()


async def test_an_unknown_backend_is_refused_and_the_known_ones_are_named() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        refusal = await refused(client.open(backend="nope"))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_BACKEND")
        assert refusal.metadata == {"backends": "sim"}


async def test_a_backend_that_cannot_start_refuses_the_opening_with_its_own_words() -> None:
    settings = {"backends.broken.kind": "sim", "backends.broken.profile": "nope", "backends.sim.kind": "sim"}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        refusal = await refused(client.open(backend="broken"))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_START_FAILED")
        assert "profile" in refusal.text
        await until(lambda: not gateway.api.sessions())
        await client.open(backend="sim")


async def test_a_caller_that_gives_up_while_its_session_starts_takes_it_along() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        call = client.sessions.OpenSession(ss.OpenSessionRequest())
        await until(gateway.api.sessions)
        call.cancel()
        await until(lambda: not gateway.api.sessions())


# leases


async def test_an_idle_session_ends_with_its_lease_and_says_so() -> None:
    async with running_gateway({"limits.sweep_interval_s": 0.05}) as gateway, client_of(gateway.target) as client:
        session = await client.open(lease_s=0.2)
        await until(lambda: not gateway.api.sessions())
        ended = (await client.sessions.GetSession(ss.GetSessionRequest(session_id=session.session_id))).session

        assert (ended.state, ended.close_reason) == (CLOSED, ss.CLOSE_REASON_LEASE_EXPIRED)


class Clock:
    """The clock of one session, moved by the test."""

    def __init__(self, gateway: RunningGateway, session_id: str) -> None:
        self.now = time.monotonic()
        gateway.app.gateway._registry.get(session_id)._clock = lambda: self.now


async def test_calls_extend_the_lease() -> None:
    async with running_gateway({"limits.sweep_interval_s": 0.05}) as gateway, client_of(gateway.target) as client:
        session = await client.open(lease_s=100)
        clock = Clock(gateway, session.session_id)
        for _ in range(3):
            clock.now += 60
            await client.gateway.Ping(PingRequest(session_id=session.session_id))
            gateway.app.gateway._registry.sweep()

            assert gateway.api.session(session.session_id) is not None

        clock.now += 101
        await until(lambda: not gateway.api.sessions())


async def test_an_attached_stream_extends_the_lease_and_its_end_begins_it_anew() -> None:
    async with running_gateway({"limits.sweep_interval_s": 0.05}) as gateway, client_of(gateway.target) as client:
        session = await client.open(lease_s=100)
        clock = Clock(gateway, session.session_id)
        stream = client.stream(session.session_id)
        await stream.read()
        clock.now += 101
        gateway.app.gateway._registry.sweep()

        assert gateway.api.session(session.session_id) is not None

        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        clock.now += 99
        gateway.app.gateway._registry.sweep()

        assert gateway.api.session(session.session_id) is not None

        clock.now += 2
        await until(lambda: not gateway.api.sessions())


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_lease_of_no_time_is_refused(seconds: int) -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        request = ss.OpenSessionRequest(lease=Duration(seconds=seconds))
        refusal = await refused(client.sessions.OpenSession(request))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "lease")


async def test_a_lease_is_capped() -> None:
    settings = {"limits.maximum_lease_s": 100, "limits.lease_s": 50}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        assert (await client.open(lease_s=10_000)).lease.seconds == 100
        assert (await client.open()).lease.seconds == 50


# unknown and ended


def _calls(client: object, session_id: str) -> dict[str, object]:
    sessions, commands = client.sessions, client.commands  # type: ignore[attr-defined]
    register = c.MxCommand(register=c.RegisterCommand(client_name="x"))
    return {
        "Invoke": commands.Invoke(cs.InvokeRequest(session_id=session_id, command=register)),
        "Browse": commands.Browse(cs.BrowseRequest(session_id=session_id)),
        "GetSessionState": sessions.GetSessionState(ss.GetSessionStateRequest(session_id=session_id)),
        "GetWorkerInfo": sessions.GetWorkerInfo(ss.GetWorkerInfoRequest(session_id=session_id)),
        "ListSubscribers": sessions.ListSubscribers(ss.ListSubscribersRequest(session_id=session_id)),
        "Ping": client.gateway.Ping(PingRequest(session_id=session_id)),  # type: ignore[attr-defined]
        "StreamEvents": client.events.StreamEvents(  # type: ignore[attr-defined]
            es.StreamEventsRequest(session_id=session_id)
        ),
    }


@pytest.mark.parametrize("session_id", ["", "nobody", "../../etc/passwd", "x" * 128])
async def test_an_unknown_session_is_not_found_by_any_call(session_id: str) -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        calls = _calls(client, session_id)
        if not session_id:
            del calls["Ping"]  # without a session it pings the gateway
            await client.gateway.Ping(PingRequest())
        calls["GetSession"] = client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id))
        calls["CloseSession"] = client.sessions.CloseSession(ss.CloseSessionRequest(session_id=session_id))
        for name, call in calls.items():
            refusal = await refused(call)

            assert (name, refusal.code, refusal.reason) == (name, grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_an_ended_session_is_gone_for_every_call_and_says_why_it_ended() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.close(session.session_id)
        for name, call in _calls(client, session.session_id).items():
            refusal = await refused(call)

            assert (name, refusal.code, refusal.reason) == (name, grpc.StatusCode.NOT_FOUND, "SESSION_GONE")
            assert refusal.metadata["close_reason"] == "CLIENT"


async def test_only_so_many_ended_sessions_are_remembered() -> None:
    async with running_gateway({"limits.remembered_sessions": 1}) as gateway, client_of(gateway.target) as client:
        first, second = await client.open(), await client.open()
        await client.close(first.session_id)
        await client.close(second.session_id)
        get = client.sessions.GetSession

        assert (await refused(get(ss.GetSessionRequest(session_id=first.session_id)))).reason == "SESSION_NOT_FOUND"
        assert (await get(ss.GetSessionRequest(session_id=second.session_id))).session.state == CLOSED


# commands


def _pending(gateway: RunningGateway, session: ss.Session) -> int:
    registry = gateway.app.gateway._registry
    assert registry is not None
    return len(registry.get(session.session_id).worker.commands)


async def test_more_pending_commands_than_allowed_are_refused_and_none_is_lost() -> None:
    settings = {"limits.pending_commands": 4, "backends.sim.resolve_delay_s": 2.0}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        handle = await client.register(session.session_id)
        slow = c.ReadBulkCommand(
            server_handle=handle,
            items=[c.ItemReference(item_definition="Boiler_001.Steam.Pressure")],
            timeout=Duration(nanos=700_000_000),
        )
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(client.invoke(session.session_id, read_bulk=slow)) for _ in range(4)]
            await until(lambda: _pending(gateway, session) == 4)
            refusal = await refused(client.invoke(session.session_id, read_bulk=slow))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PENDING_COMMANDS_EXCEEDED")
        assert refusal.metadata == {"limit": "4"}
        assert [call.result().hresult for call in calls] == [0, 0, 0, 0]
        assert await client.register(session.session_id) > 0


async def test_a_command_may_ask_for_less_time_and_is_told_that_its_outcome_is_unknown() -> None:
    settings = {"limits.command_timeout_s": 600, "workers.heartbeat_interval_s": 60.0}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        register = c.MxCommand(register=c.RegisterCommand(client_name="x"))
        request = cs.InvokeRequest(session_id=session.session_id, command=register, timeout=Duration(nanos=200_000_000))
        os.kill(session.worker_pid, signal.SIGSTOP)
        began = time.monotonic()
        refusal = await refused(client.commands.Invoke(request))
        took = time.monotonic() - began
        os.kill(session.worker_pid, signal.SIGCONT)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "COMMAND_TIMED_OUT")
        assert "unknown" in refusal.text
        assert 0.2 <= took < 60

        assert await client.register(session.session_id) > 0


async def test_a_request_without_a_command_is_refused() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        refusal = await refused(client.commands.Invoke(cs.InvokeRequest(session_id=session.session_id)))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "command")


async def test_commands_that_wait_when_the_session_ends_are_told_so() -> None:
    async with running_gateway({"backends.sim.resolve_delay_s": 5.0}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        handle = await client.register(session.session_id)
        read = c.ReadBulkCommand(server_handle=handle, items=[c.ItemReference(item_definition="Boiler_001.X")])
        command = cs.InvokeRequest(session_id=session.session_id, command=c.MxCommand(read_bulk=read))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(refused(client.commands.Invoke(command)))
            await until(lambda: _pending(gateway, session) == 1)
            closed = await client.close(session.session_id)

        assert waiting.result().reason == "SESSION_CLOSED"
        assert closed.close_reason == ss.CLOSE_REASON_CLIENT
        assert not list((gateway.directory / "data" / "logs").iterdir())  # it left in order
