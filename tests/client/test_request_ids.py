"""Openings and writes are repeated with one request id when their answer is lost; no other call is repeated."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from client.scripted import Refusal, Scripted
from support.adoption import LOAD
from support.restarts import restarts

from mxgw.v1 import commands_pb2
from mxgw_client import BulkWrite, Gateway, Session, connect, errors
from mxgw_client.sync import connect as connect_sync

LOST = Refusal(grpc.StatusCode.UNAVAILABLE, text="the connection broke")
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING", retry_after_s=0.01)
ADOPTING = Refusal(grpc.StatusCode.UNAVAILABLE, "SESSION_ADOPTING", retry_after_s=0.01)
UNKNOWN = Refusal(grpc.StatusCode.UNKNOWN, "COMMAND_OUTCOME_UNKNOWN")
GONE = Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_GONE", metadata={"close_reason": "WORKER_EXITED"})
FULL = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_ID_LIMIT_REACHED")


def ids(requests: list[Any]) -> list[bytes]:
    return [request.request_id for request in requests]


@pytest.mark.asyncio
async def test_every_opening_has_an_id_of_its_own_unless_one_is_given(scripted: Scripted, gateway: Gateway) -> None:
    session = gateway.open_session()
    for _ in range(2):
        async with session:
            pass
    async with gateway.open_session(request_id=b"this program's one"):
        pass
    first, second, given = ids(scripted.script.called("OpenSession"))

    assert first != second
    assert given == b"this program's one"


@pytest.mark.asyncio
async def test_an_opening_that_is_refused_is_not_repeated_and_a_later_try_keeps_its_id(
    scripted: Scripted, gateway: Gateway
) -> None:
    scripted.script.first["OpenSession"] = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED")]
    session = gateway.open_session()
    with pytest.raises(errors.SessionLimitReached) as refused:
        await session.open()

    assert not getattr(refused.value, "__notes__", [])

    await session.open()
    first, second = ids(scripted.script.called("OpenSession"))

    assert first == second


@pytest.mark.asyncio
async def test_a_session_that_was_opened_unheard_and_is_over_is_opened_anew(
    scripted: Scripted, gateway: Gateway
) -> None:
    scripted.script.first["OpenSession"] = [LOST, GONE]
    async with gateway.open_session():
        pass
    first, second, third = ids(scripted.script.called("OpenSession"))

    assert first == second != third


@pytest.mark.asyncio
async def test_the_opening_after_one_that_is_over_keeps_its_own_id_for_a_later_try(
    scripted: Scripted, gateway: Gateway
) -> None:
    limit = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED")
    scripted.script.first["OpenSession"] = [LOST, GONE, limit]
    session = gateway.open_session()
    with pytest.raises(errors.SessionLimitReached):
        await session.open()
    await session.open()
    *_, third, fourth = ids(scripted.script.called("OpenSession"))

    assert third == fourth


@pytest.mark.asyncio
async def test_repeats_end_with_the_deadline_and_the_error_says_what_is_unknown(scripted: Scripted) -> None:
    scripted.script.refusals["OpenSession"] = LOST
    async with connect(scripted.target, timeout_s=0.5) as gateway:
        with pytest.raises(errors.GatewayUnreachable) as failed:
            await gateway.open_session().open()

    assert len(scripted.script.called("OpenSession")) > 1
    assert "whether it was carried out is unknown" in failed.value.__notes__[0]


async def write_each_way(session: Session) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    await session.write(1, 2.5)
    await session.write2(1, 2.5, moment)
    await session.write_secured(1, 2.5, user_id=1, verifier_id=2)
    await session.write_secured2(1, 2.5, moment, user_id=1, verifier_id=2)
    await session.write_bulk([BulkWrite(1, 2.5)])


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", [LOST, DRAINING, ADOPTING, UNKNOWN])
async def test_a_write_of_any_kind_is_repeated_under_its_id(
    scripted: Scripted, session: Session, lost: Refusal
) -> None:
    kinds = ["write", "write2", "write_secured", "write_secured2", "write_bulk"]
    scripted.script.replies["write_bulk"] = lambda _: commands_pb2.MxReply(
        bulk=commands_pb2.BulkResult(items=[commands_pb2.BulkItemResult()])
    )
    for kind in kinds:
        scripted.script.first[kind] = [lost]
    await write_each_way(session)
    seen = []
    for kind in kinds:
        first, second = scripted.script.called(kind)

        assert (first.command, first.request_id) == (second.command, second.request_id)

        seen.append(first.request_id)

    assert len(set(seen)) == len(kinds)
    assert {len(request_id) for request_id in seen} == {16}


@pytest.mark.asyncio
async def test_what_is_no_write_is_not_repeated_and_has_no_id(scripted: Scripted, session: Session) -> None:
    scripted.script.first["add_item"] = [LOST]
    with pytest.raises(errors.GatewayUnreachable):
        await session.add_item("A")
    (asked,) = scripted.script.called("add_item")

    assert asked.request_id == b""


@pytest.mark.asyncio
async def test_where_no_id_can_be_remembered_a_write_goes_without_and_once(
    scripted: Scripted, session: Session
) -> None:
    scripted.script.first["write"] = [FULL]
    await session.write(1, 2.5)
    first, second = ids(scripted.script.called("write"))

    assert (len(first), second) == (16, b"")


@pytest.mark.asyncio
async def test_a_write_that_may_have_been_carried_out_never_goes_without_its_id(
    scripted: Scripted, session: Session
) -> None:
    scripted.script.first["write"] = [LOST, FULL]
    with pytest.raises(errors.RequestIdLimitReached) as failed:
        await session.write(1, 2.5)

    assert "whether it was carried out is unknown" in failed.value.__notes__[0]
    assert len(scripted.script.called("write")) == 2


@pytest.mark.asyncio
async def test_a_write_takes_the_id_it_is_given(scripted: Scripted, session: Session) -> None:
    await session.invoke(commands_pb2.MxCommand(write=commands_pb2.WriteCommand()), request_id=b"x" * 16)

    assert ids(scripted.script.called("write")) == [b"x" * 16]


@pytest.mark.asyncio
async def test_without_await_it_is_the_same(scripted: Scripted) -> None:
    scripted.script.first["OpenSession"] = [LOST]
    scripted.script.first["write"] = [LOST]

    def work() -> None:
        with connect_sync(scripted.target, timeout_s=10) as gateway, gateway.open_session() as session:
            session.write(1, 2.5)

    await asyncio.to_thread(work)
    for name in ("OpenSession", "write"):
        first, second = ids(scripted.script.called(name))

        assert first == second != b""


@pytest.mark.asyncio
async def test_a_program_goes_on_when_the_gateway_is_killed_between_its_write_and_the_answer() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start(failpoint="write:before-answer")
        async with connect(gateway.target) as client, client.open_session() as session:
            subscription = await session.subscribe("Load.Target")
            item = subscription["Load.Target"]

            async with asyncio.TaskGroup() as tasks:
                write = tasks.create_task(session.write(item, 1.0, wait=True))

                assert await gateway.ended() == -signal.SIGKILL

                await gateway.start()

            assert (write.result().write_id, write.result().completed) == (1, True)
            assert (await session.write(item, 2.0)).write_id == 2
        await gateway.all_is_gone()
