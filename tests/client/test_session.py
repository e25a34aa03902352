"""Opening, closing and attaching to sessions; what gateway and worker report about themselves."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import grpc
import pytest
from client.scripted import EPOCH, SESSION_ID, Refusal, Scripted, opened, scripted_gateway

from mxgw.v1 import events_pb2, session_service_pb2
from mxgw_client import Gateway, Position, Session, connect, errors

pytestmark = pytest.mark.asyncio


async def test_a_session_is_opened_as_asked_and_closed_at_the_end(scripted: Scripted, gateway: Gateway) -> None:
    async with gateway.open_session(client_name="hist", backend="sim", tag="line 1", lease_s=90) as session:
        assert session.session_id == SESSION_ID
        assert session.is_open
    request = scripted.script.called("OpenSession")[0]

    assert (request.client_name, request.backend, request.tag, request.lease.seconds) == ("hist", "sim", "line 1", 90)
    assert [r.session_id for r in scripted.script.called("CloseSession")] == [SESSION_ID]
    assert not session.is_open

    await session.close()

    assert len(scripted.script.called("CloseSession")) == 1


async def test_a_cancelled_block_still_closes_its_session(scripted: Scripted, gateway: Gateway) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with gateway.open_session():
            inside.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(work())
        await inside.wait()
        worker.cancel()

    assert worker.cancelled()
    assert len(scripted.script.called("CloseSession")) == 1


async def test_an_error_in_the_block_comes_out_as_it_is(scripted: Scripted) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connect(scripted.target) as gateway, gateway.open_session():
            1 / 0  # noqa: B018

    assert len(scripted.script.called("CloseSession")) == 1


async def test_leaving_the_gateway_closes_sessions_that_were_left_open(scripted: Scripted) -> None:
    async with connect(scripted.target) as gateway:
        session = gateway.open_session()
        await session.open()

    assert len(scripted.script.called("CloseSession")) == 1
    with pytest.raises(RuntimeError, match="not connected"):
        gateway.open_session()


async def test_a_session_that_is_kept_is_not_closed(scripted: Scripted) -> None:
    async with connect(scripted.target) as gateway, gateway.open_session(keep=True):
        pass

    assert scripted.script.called("CloseSession") == []


async def test_closing_a_session_that_ended_already_is_no_error(
    scripted: Scripted, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mxgw_client"):
        async with gateway.open_session():
            scripted.script.refusals["CloseSession"] = Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_GONE")

    assert caplog.text == ""


async def test_a_session_that_cannot_be_closed_is_left_to_its_lease_with_a_warning(
    scripted: Scripted, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mxgw_client"):
        async with gateway.open_session():
            scripted.script.refusals["CloseSession"] = Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "id 77")

    assert "its lease will end it: id 77" in caplog.text


async def test_a_session_that_cannot_be_opened_raises(scripted: Scripted, gateway: Gateway) -> None:
    scripted.script.refusals["OpenSession"] = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED")
    with pytest.raises(errors.SessionLimitReached):
        async with gateway.open_session():
            raise AssertionError
    assert scripted.script.called("CloseSession") == []


async def test_attaching_learns_the_items_and_leaves_the_session_open(scripted: Scripted, gateway: Gateway) -> None:
    item, page = session_service_pb2.ItemState, session_service_pb2.GetSessionStateResponse
    scripted.script.pages = [
        page(
            position=events_pb2.Position(epoch=EPOCH, sequence=8),
            registrations=[session_service_pb2.Registration(server_handle=3, client_name="x")],
            items=[item(server_handle=3, item_handle=1, item_definition="A.B")],
            next_page_token="1",
        ),
        page(items=[item(server_handle=3, item_handle=2, item_definition="A.C", advise=2)]),
    ]
    async with gateway.attach_session(SESSION_ID) as session:
        state = await session.state()

        assert session.server_handle == 3
        assert [entry.item.reference for entry in state.items] == ["A.B", "A.C"]
        assert state.position == Position(EPOCH, 8)
        assert state.registrations == {3: "x"}

    assert scripted.script.called("OpenSession") == []
    assert scripted.script.called("CloseSession") == []


async def test_gateway_session_and_worker_describe_themselves(
    scripted: Scripted, gateway: Gateway, session: Session
) -> None:
    assert (await gateway.info()).backends == ("sim",)
    assert [s.session_id async for s in gateway.sessions()] == [SESSION_ID, "session-2"]
    assert (await session.info()).state.name == "READY"
    assert (await session.worker_info()).pid == 99
    assert (await gateway.ping()).worker_round_trip_s is None
    assert (await session.ping()).worker_round_trip_s == 0.002
    assert (await gateway.close_session("session-2")).session_id == SESSION_ID
    assert repr(gateway) == f"<Gateway {scripted.target}, connected>"


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'gateway.sock'}"
    async with scripted_gateway(address), connect(address) as gateway, gateway.open_session() as session:
        assert (await session.info()).session_id == SESSION_ID


async def test_nothing_is_left_when_everything_is_closed(scripted: Scripted) -> None:
    before = asyncio.all_tasks()

    async def stream(request, context):
        yield opened()
        await asyncio.Event().wait()

    scripted.script.stream = stream
    async with connect(scripted.target) as gateway, gateway.open_session() as session:
        events = session.events()
        await anext(events)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(events)
    async with asyncio.timeout(60):
        while [  # noqa: ASYNC110 - the server ends its side of the stream a little later
            t for t in asyncio.all_tasks() - before if "client" in t.get_name()
        ] or not scripted.script.streams_ended:
            await asyncio.sleep(0.01)
