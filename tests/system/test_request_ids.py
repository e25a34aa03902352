"""Calls with a request id: one session and one write, however often they are asked for, and whoever dies in between."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from support.adoption import LOAD, adopted
from support.clients import Client, client_of, refused
from support.keys import client_with, guarded_gateway
from support.restarts import restarts
from support.waiting import until

from mxgw.convert import to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.event_service_pb2 import StartPosition, StreamEventsRequest
from mxgw.v1.events_pb2 import EVENT_KIND_WRITE_COMPLETE
from mxgw_acl.keys import Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_core.api import CloseReason
from mxgw_core.api.errors import RequestIdLimitReached, SessionGone, WorkerStartFailed
from mxgw_core.api.types import ANONYMOUS, Identity
from mxgw_core.sessions import openings
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import SessionRequest
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

ONE, TWO, THREE, FOUR = (bytes([n]) * 16 for n in range(1, 5))


async def open_once(client: Client, request_id: bytes = ONE, **fields: Any) -> ss.Session:
    request = ss.OpenSessionRequest(request_id=request_id, **fields)
    return (await client.sessions.OpenSession(request, timeout=30, wait_for_ready=True)).session


async def write_once(client: Client, session_id: str, request_id: bytes, **command: Any) -> c.MxReply:
    request = InvokeRequest(session_id=session_id, command=c.MxCommand(**command), request_id=request_id)
    return (await client.commands.Invoke(request, timeout=30)).reply


def target(item: int, value: float) -> c.WriteCommand:
    return c.WriteCommand(server_handle=1, item_handle=item, value=to_value(value), wait_for_completion=True)


async def completions(client: Client, session_id: str, last: int) -> list[int]:
    """Return the write ids of all completions from the first event on, up to `last`."""
    request = StreamEventsRequest(session_id=session_id, start=StartPosition(oldest_retained={}))
    stream, seen = client.events.StreamEvents(request), []
    async with asyncio.timeout(30):
        while last not in seen:
            frame = await stream.read()
            seen += [e.write_complete.write_id for e in frame.events.events if e.kind == EVENT_KIND_WRITE_COMPLETE]
    stream.cancel()
    return seen


async def test_a_write_whose_answer_died_with_the_gateway_is_written_once() -> None:
    bulk_of = lambda item: c.WriteBulkCommand(  # noqa: E731
        server_handle=1, writes=[c.BulkWrite(item_handle=item, value=to_value(2.0))] * 2, wait_for_completion=True
    )
    async with restarts(LOAD) as gateway:
        await gateway.start(failpoint="write:before-answer:3")
        async with client_of(gateway.target) as client:
            session_id = (await client.open()).session_id
            (item,) = await client.subscribe(session_id, ["Load.Target"])
            told = await write_once(client, session_id, ONE, write=target(item, 1.0))
            told_bulk = await write_once(client, session_id, TWO, write_bulk=bulk_of(item))
            with pytest.raises(grpc.aio.AioRpcError):
                await write_once(client, session_id, THREE, write=target(item, 3.0))

        assert await gateway.ended() == -signal.SIGKILL

        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session_id)
            lost = await write_once(client, session_id, THREE, write=target(item, 3.0))

            assert lost.write.completed
            assert await write_once(client, session_id, ONE, write=target(item, 1.0)) == told
            assert await write_once(client, session_id, TWO, write_bulk=bulk_of(item)) == told_bulk

            other = InvokeRequest(session_id=session_id, command=c.MxCommand(write=target(item, 4.0)), request_id=THREE)
            refusal = await refused(client.commands.Invoke(other))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
            assert refusal.metadata["field"] == "request_id"

            last = await write_once(client, session_id, FOUR, write=target(item, 4.0))

            assert await completions(client, session_id, last.write.write_id) == [1, 2, 3, 4, 5]
            await client.close(session_id)
            await gateway.all_is_gone()


async def test_a_write_that_is_under_way_when_the_gateway_dies_is_waited_for_at_the_next() -> None:
    slow = LOAD.replace("rate = 500.0", "rate = 0.0\ncompletion_delay_s = 1.5")
    async with restarts(slow) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session_id = (await client.open()).session_id
            (item,) = await client.subscribe(session_id, ["Load.Target"])
            command = c.MxCommand(write=target(item, 1.0))
            first = client.commands.Invoke(InvokeRequest(session_id=session_id, command=command, request_id=ONE))
            state = ss.GetSessionStateRequest(session_id=session_id)
            while not (await client.sessions.GetSessionState(state)).items[0].writes_in_flight and not first.done():
                pass
            await gateway.kill()
            with suppress(grpc.aio.AioRpcError):  # where the machine was busy, it is not under way any more
                await first
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session_id)
            repeat = await write_once(client, session_id, ONE, write=target(item, 1.0))

            assert (repeat.write.write_id, repeat.write.completed) == (1, True)
            assert await completions(client, session_id, 1) == [1]
            await client.close(session_id)
            await gateway.all_is_gone()


async def test_an_opening_whose_answer_died_with_the_gateway_is_found_by_its_repeat() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start(failpoint="hello:after-ready")
        async with client_of(gateway.target) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await open_once(client, client_name="line 3")

        assert await gateway.ended() == -signal.SIGKILL

        ((session_id, _),) = gateway.rows()
        await gateway.start()
        async with client_of(gateway.target) as client:
            again = await open_once(client, client_name="line 3")  # perhaps while its worker is awaited

            assert (again.session_id, again.state) == (session_id, ss.SESSION_STATE_READY)

            other = await refused(client.sessions.OpenSession(ss.OpenSessionRequest(request_id=ONE)))

            assert (other.code, other.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")

            await client.close(session_id)
            over = await refused(open_once(client, client_name="line 3"))

            assert (over.code, over.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_GONE")
            assert (over.metadata["session_id"], over.metadata["close_reason"]) == (session_id, "CLIENT")
            assert "new request_id" in over.text
            listed = await client.sessions.ListSessions(ss.ListSessionsRequest(include_ended=True))
            assert [session.session_id for session in listed.sessions] == [session_id]
            await gateway.all_is_gone()
        await gateway.kill()
        await gateway.start()
        async with client_of(gateway.target) as client:
            over = await refused(open_once(client, client_name="line 3"))

            assert (over.reason, over.metadata["session_id"]) == ("SESSION_GONE", session_id)

            other = await refused(client.sessions.OpenSession(ss.OpenSessionRequest(request_id=ONE)))

            assert other.reason == "REQUEST_ID_REUSED"


async def test_an_opening_that_failed_with_the_gateway_is_tried_again() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start(failpoint="spawn:after-pid")
        async with client_of(gateway.target) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await open_once(client)
        await gateway.ended()
        ((never_opened, _),) = gateway.rows()
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await open_once(client)

            assert session.state == ss.SESSION_STATE_READY
            assert session.session_id != never_opened

            await client.close(session.session_id)
            await gateway.all_is_gone()


async def test_openings_at_once_with_one_id_are_one_session_whoever_gives_up() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        first = client.sessions.OpenSession(ss.OpenSessionRequest(request_id=ONE))
        await until(lambda: len(gateway.api.sessions()) == 1)
        first.cancel()
        calls = [client.sessions.OpenSession(ss.OpenSessionRequest(request_id=ONE)) for _ in range(4)]
        sessions = [(await call).session for call in calls]

        assert len({session.session_id for session in sessions}) == 1
        assert len(gateway.api.sessions()) == 1
        assert sessions[0].state == ss.SESSION_STATE_READY


async def test_a_session_whose_only_caller_gave_up_and_never_asks_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "UNCLAIMED_S", 0.1)
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        first = client.sessions.OpenSession(ss.OpenSessionRequest(request_id=ONE))
        await until(lambda: len(gateway.api.sessions()) == 1)
        first.cancel()
        await until(lambda: not gateway.api.sessions())


def registry_of(gateway: RunningGateway) -> SessionRegistry:
    registry = gateway.app.gateway._registry
    assert registry is not None
    return registry


def wish(backend: str = "sim", key: bytes = ONE) -> SessionRequest:
    return SessionRequest("", backend, "", 60.0, key=key, digest=ONE)


async def test_an_opening_that_failed_is_tried_again_under_its_id() -> None:
    async with running_gateway({"backends.sim.kind": "sim", "backends.broken.kind": "opcua"}) as gateway:
        registry = registry_of(gateway)
        for _ in range(2):
            # The second time the first one's worker is not gone yet.
            with pytest.raises(WorkerStartFailed):
                await registry.open(wish("broken"), ANONYMOUS)
        await until(lambda: not registry.live())

        assert len(list(registry.ended.all())) == 2


async def test_openings_are_remembered_for_their_time_and_no_more_than_there_is_room_for() -> None:
    now = 1000.0
    async with running_gateway() as gateway:
        registry = registry_of(gateway)
        registry._openings = openings.Openings(clock=lambda: now, limit=2)
        first = await registry.open(wish(), ANONYMOUS)
        first.close(CloseReason.CLIENT)
        await first.closed
        second = await registry.open(wish(key=TWO), ANONYMOUS)
        with pytest.raises(RequestIdLimitReached):
            await registry.open(wish(key=THREE), ANONYMOUS)

        # Nobody takes the room of others.
        assert (await registry.open(wish(key=FOUR), Identity("another", "key"))).owner.id == "another"
        assert await registry.open(wish(key=TWO), ANONYMOUS) is second

        now += openings.REMEMBERED_S - 1
        with pytest.raises(SessionGone, match="new request_id"):
            await registry.open(wish(), ANONYMOUS)
        now += 1
        again = await registry.open(wish(), ANONYMOUS)

        assert again.id not in (first.id, second.id)


async def test_another_identity_has_names_of_its_own(tmp_path: Path) -> None:
    settings = {"backends.sim.profile": "load", "plugins.enabled": ["acl", "replay"], "limits.sessions_per_owner": 1}
    async with guarded_gateway(tmp_path, settings) as guarded:
        _, mine = guarded.issue(maximum_sessions=1, maximum_detached=1)
        _, theirs = guarded.issue()
        async with client_with(guarded.target, mine) as client, client_with(guarded.target, theirs) as other:
            session = await open_once(client)

            # A repeat begins no other session, so the limits of the key and of all owners do not stand in its way.
            stream = client.stream(session.session_id)
            await stream.read()
            stream.cancel()
            await until(lambda: guarded.gateway.api.session(session.session_id).detached_s is not None)

            assert (await open_once(client)).session_id == session.session_id
            assert (await refused(client.open())).reason == "SESSION_LIMIT_REACHED"
            assert (await open_once(other)).session_id != session.session_id

            (item,) = await client.subscribe(session.session_id, ["Load.Target"])
            written = await write_once(client, session.session_id, ONE, write=target(item, 1.0))

            assert (await write_once(client, session.session_id, ONE, write=target(item, 1.0))) == written
        _, everybodys = guarded.issue(scopes=frozenset(Scope))
        async with client_with(guarded.target, everybodys) as shared:
            again = await write_once(shared, session.session_id, ONE, write=target(item, 1.0))

            assert again.write.write_id == written.write.write_id + 1


async def test_a_limited_key_is_told_an_outcome_only_while_it_is_judged_as_before(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, {"backends.sim.profile": "load"}) as guarded:
        _, text = guarded.issue(writable=ItemPatterns(subtrees=("Load.Target",)))
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            mine, other = await client.subscribe(session_id, ["Load.Target", "Load.Item00001"])
            writes = [c.BulkWrite(item_handle=item, value=to_value(1.0)) for item in (other, mine)]
            bulk = c.WriteBulkCommand(server_handle=1, writes=writes, wait_for_completion=True)
            first = await write_once(client, session_id, ONE, write_bulk=bulk)

            assert [item.reason for item in first.bulk.items] == ["ITEM_DENIED", ""]
            assert await write_once(client, session_id, ONE, write_bulk=bulk) == first

            await client.invoke(session_id, remove_item=c.RemoveItemCommand(server_handle=1, item_handle=mine))
            refusal = await refused(write_once(client, session_id, ONE, write_bulk=bulk))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
            assert "not reported" in refusal.text


async def test_a_key_that_was_revoked_learns_nothing(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, {"backends.sim.profile": "load"}) as guarded:
        key, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            session = await open_once(client)
            (item,) = await client.subscribe(session.session_id, ["Load.Target"])
            await write_once(client, session.session_id, ONE, write=target(item, 1.0))
            guarded.store.revoke(key.id)
            await until(lambda: not guarded.gateway.api.sessions())

            for call in (open_once(client), write_once(client, session.session_id, ONE, write=target(item, 1.0))):
                assert (await refused(call)).code in (
                    grpc.StatusCode.PERMISSION_DENIED,
                    grpc.StatusCode.UNAUTHENTICATED,
                )


@pytest.mark.parametrize("size", [1, 15, 65])
async def test_an_id_of_another_length_is_refused_by_name(size: int) -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        refusal = await refused(client.sessions.OpenSession(ss.OpenSessionRequest(request_id=bytes(size))))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "request_id")
        assert f"{size} bytes; 16 to 64" in refusal.text


async def test_an_id_goes_with_writes_only_and_is_refused_by_name_elsewhere() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await open_once(client, bytes(64))
        refusal = await refused(write_once(client, session.session_id, ONE, register=c.RegisterCommand()))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "request_id")
        assert "register" in refusal.text

        unknown = c.MxCommand(write=c.WriteCommand(value={"data_type": 77}))
        refusal = await refused(client.invoke(session.session_id, write=unknown.write))

        assert refusal.metadata["field"] == "command.write.value.data_type"
