"""Every failure of a call becomes the exception that says what happened and what would help."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket

import grpc
import pytest
from client.scripted import Refusal, Scripted, opened, scripted_gateway

from mxgw.v1 import commands_pb2
from mxgw_client import Gateway, Session, connect, errors

Code = grpc.StatusCode

REFUSALS = [
    (Code.INVALID_ARGUMENT, "INVALID_REQUEST", errors.InvalidRequest),
    (Code.INVALID_ARGUMENT, "UNKNOWN_BACKEND", errors.UnknownBackend),
    (Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED", errors.RequestIdReused),
    (Code.RESOURCE_EXHAUSTED, "CALL_LIMIT_REACHED", errors.CallLimitReached),
    (Code.RESOURCE_EXHAUSTED, "REQUEST_ID_LIMIT_REACHED", errors.RequestIdLimitReached),
    (Code.UNAUTHENTICATED, "UNAUTHENTICATED", errors.Unauthenticated),
    (Code.PERMISSION_DENIED, "ACCESS_DENIED", errors.AccessDenied),
    (Code.NOT_FOUND, "SESSION_NOT_FOUND", errors.SessionNotFound),
    (Code.NOT_FOUND, "SESSION_GONE", errors.SessionGone),
    (Code.FAILED_PRECONDITION, "SESSION_NOT_READY", errors.SessionNotReady),
    (Code.UNAVAILABLE, "SESSION_ADOPTING", errors.SessionNotReady),
    (Code.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED", errors.SessionLimitReached),
    (Code.RESOURCE_EXHAUSTED, "MEMORY_LIMIT_REACHED", errors.MemoryLimitReached),
    (Code.RESOURCE_EXHAUSTED, "PENDING_COMMANDS_EXCEEDED", errors.PendingCommandsExceeded),
    (Code.RESOURCE_EXHAUSTED, "EVENT_SUBSCRIBER_LIMIT_REACHED", errors.SubscriberLimitReached),
    (Code.RESOURCE_EXHAUSTED, "SUBSCRIBER_OVERFLOW", errors.SubscriberOverflow),
    (Code.UNAVAILABLE, "WORKER_START_FAILED", errors.WorkerStartFailed),
    (Code.DEADLINE_EXCEEDED, "COMMAND_TIMED_OUT", errors.CommandTimedOut),
    (Code.UNKNOWN, "COMMAND_FAILED", errors.CommandFailed),
    (Code.UNKNOWN, "COMMAND_OUTCOME_UNKNOWN", errors.CommandOutcomeUnknown),
    (Code.ALREADY_EXISTS, "SUBSCRIBER_EXISTS", errors.SubscriberExists),
    (Code.DATA_LOSS, "POSITION_LOST", errors.PositionLost),
    (Code.FAILED_PRECONDITION, "FEATURE_NOT_ENABLED", errors.FeatureNotEnabled),
    (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", errors.DependencyUnavailable),
    (Code.UNAVAILABLE, "GATEWAY_DRAINING", errors.GatewayDraining),
    (Code.UNAVAILABLE, "HISTORY_UNAVAILABLE", errors.HistoryUnavailable),
    (Code.INTERNAL, "INTERNAL", errors.InternalError),
]

ENDS = [
    ("CLIENT", errors.SessionClosed),
    ("LEASE_EXPIRED", errors.LeaseExpired),
    ("DETACH_GRACE_EXPIRED", errors.DetachGraceExpired),
    ("WORKER_EXITED", errors.WorkerExited),
    ("WORKER_SILENT", errors.WorkerSilent),
    ("WORKER_PROTOCOL_ERROR", errors.WorkerBroken),
    ("OVERFLOW_FAIL_FAST", errors.OverflowFailFast),
    ("KILLED_BY_OPERATOR", errors.KilledByOperator),
    ("OWNER_REVOKED", errors.AccessRevoked),
    ("GATEWAY_SHUTDOWN", errors.GatewayShutdown),
    ("WORKER_START_FAILED", errors.SessionEnded),
    ("NEW_REASON", errors.SessionEnded),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("code", "reason", "kind"), REFUSALS)
async def test_a_refusal_becomes_the_exception_of_its_reason(
    scripted: Scripted, session: Session, code: Code, reason: str, kind: type[errors.MxgwClientError]
) -> None:
    scripted.script.refusals["GetSession"] = Refusal(code, reason, "set limits.x", {"a": "b"}, retry_after_s=2.5)
    with pytest.raises(kind) as raised:
        await session.info()
    error = raised.value

    assert type(error) is kind
    assert (error.reason, error.code, error.metadata, error.retry_after_s) == (reason, code, {"a": "b"}, 2.5)
    assert error.hint == "set limits.x"
    assert str(error) == f"set limits.x [{reason}]"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reason", "close_reason", "kind"),
    [("SESSION_CLOSED", name, kind) for name, kind in ENDS]
    + [(name, name, kind) for name, kind in ENDS if kind is not errors.SessionEnded],
)
async def test_the_end_of_a_stream_becomes_the_exception_of_its_close_reason(
    scripted: Scripted, session: Session, reason: str, close_reason: str, kind: type[errors.StreamEnded]
) -> None:
    async def stream(request, context):
        yield opened()
        raise Refusal(Code.ABORTED, reason, "over", {"close_reason": close_reason.lower()})

    scripted.script.stream = stream
    with pytest.raises(errors.StreamEnded) as raised:
        async for _ in session.events():
            pass

    assert type(raised.value) is kind
    assert not raised.value.resumable


@pytest.mark.asyncio
async def test_an_overflow_ends_the_stream_and_can_be_resumed(scripted: Scripted, session: Session) -> None:
    async def stream(request, context):
        yield opened()
        raise Refusal(Code.RESOURCE_EXHAUSTED, "SUBSCRIBER_OVERFLOW", "raise events.queue_events")

    scripted.script.stream = stream
    with pytest.raises(errors.SubscriberOverflow, match=r"raise events\.queue_events") as raised:
        async for _ in session.events(resume=None):
            pass

    assert raised.value.resumable


@pytest.mark.asyncio
async def test_an_unknown_reason_is_still_usable(scripted: Scripted, session: Session) -> None:
    scripted.script.refusals["GetSession"] = Refusal(Code.FAILED_PRECONDITION, "FROM_THE_FUTURE", "do this")
    with pytest.raises(errors.GatewayRefusal, match="do this") as raised:
        await session.info()
    assert raised.value.reason == "FROM_THE_FUTURE"

    async def stream(request, context):
        yield opened()
        raise Refusal(Code.ABORTED, "FROM_THE_FUTURE")

    scripted.script.stream = stream
    with pytest.raises(errors.StreamEnded) as ended:
        async for _ in session.events():
            pass
    assert ended.value.reason == "FROM_THE_FUTURE"


@pytest.mark.asyncio
async def test_a_reason_of_another_domain_is_not_taken_for_ours(scripted: Scripted, session: Session) -> None:
    scripted.script.refusals["GetSession"] = Refusal(Code.ABORTED, "SESSION_CLOSED", domain="example.com")
    with pytest.raises(errors.CallFailed, match="ABORTED") as raised:
        await session.info()

    assert raised.value.reason == ""


@pytest.mark.asyncio
async def test_garbage_in_the_details_leaves_the_status_readable(scripted: Scripted, session: Session) -> None:
    scripted.script.refusals["GetSession"] = Refusal(Code.INTERNAL, text="broken", raw_details=b"\xff\xff\xff")
    with pytest.raises(errors.CallFailed, match="INTERNAL: broken"):
        await session.info()


@pytest.mark.asyncio
async def test_a_refused_stream_raises_at_the_first_read(scripted: Scripted, session: Session) -> None:
    scripted.script.refusals["StreamEvents"] = Refusal(Code.ALREADY_EXISTS, "SUBSCRIBER_EXISTS", "one only")
    with pytest.raises(errors.SubscriberExists):
        await anext(session.events())
    with pytest.raises(errors.SubscriberExists):
        async with session.events():
            pass


@pytest.mark.asyncio
async def test_a_stream_that_ends_without_a_reason_is_not_a_normal_end(scripted: Scripted, session: Session) -> None:
    async def stream(request, context):
        yield opened()

    scripted.script.stream = stream
    with pytest.raises(errors.StreamEnded, match="without a reason"):
        async for _ in session.events():
            pass


@pytest.mark.asyncio
async def test_a_broken_connection_ends_the_stream_and_can_be_resumed() -> None:
    async with scripted_gateway() as scripted:

        async def stream(request, context):
            yield opened()
            await asyncio.Event().wait()

        scripted.script.stream = stream
        async with connect(scripted.target, timeout_s=5) as gateway, gateway.open_session() as session:
            events = session.events(resume=None)
            await anext(events)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(scripted.server.stop(None))
                with pytest.raises((errors.ConnectionLost, errors.StreamEnded)) as raised:
                    await anext(events)
    assert isinstance(raised.value, errors.ConnectionLost)
    assert raised.value.resumable


@pytest.mark.asyncio
async def test_nobody_there_says_what_was_tried() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.GatewayUnreachable) as raised:
            async with connect(target):
                pass

    assert target in str(raised.value)
    assert "Is it running there" in str(raised.value)


@pytest.mark.asyncio
async def test_a_server_that_is_no_gateway_is_named_as_such() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(errors.NotAGateway, match="does not serve GetGatewayInfo"):
            async with connect(f"127.0.0.1:{port}"):
                pass
    finally:
        await server.stop(None)


@pytest.mark.asyncio
async def test_a_gateway_of_another_contract_is_refused(scripted: Scripted) -> None:
    scripted.script.contract = "mxgw.v2"
    with pytest.raises(errors.NotAGateway, match=r"'mxgw\.v2', this client speaks 'mxgw\.v1'"):
        async with connect(scripted.target):
            pass


@pytest.mark.asyncio
async def test_a_call_without_an_answer_ends_at_its_deadline(scripted: Scripted, session: Session) -> None:
    async def never(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        await asyncio.Event().wait()
        raise AssertionError

    scripted.script.replies["advise"] = never
    with pytest.raises(errors.CallTimedOut, match="outcome is unknown"):
        await session.advise(1, timeout_s=0.2)

    invoke = scripted.script.called("advise")[0]
    assert invoke.timeout.ToMilliseconds() == 200


@pytest.mark.asyncio
async def test_a_deadline_of_nothing_is_refused(gateway: Gateway) -> None:
    with pytest.raises(errors.ConnectionOptionError, match="greater than 0"):
        await gateway.info(timeout_s=0)


@pytest.mark.asyncio
async def test_cancelling_a_call_cancels_it_at_the_gateway(scripted: Scripted, session: Session) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def never(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    scripted.script.replies["advise"] = never
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(session.advise(1))
        await begun.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    async with asyncio.timeout(60):
        await cancelled.wait()


@pytest.mark.asyncio
async def test_a_reply_that_is_too_large_says_which_limit(scripted: Scripted) -> None:
    scripted.script.replies["advise"] = lambda command: commands_pb2.MxReply(message="x" * 200_000)
    async with connect(scripted.target, max_message_bytes=64_000) as gateway, gateway.open_session() as session:
        with pytest.raises(errors.CallFailed, match=r"max_message_bytes.*limits\.message_bytes"):
            await session.advise(1)


def test_the_tree_at_the_top_of_the_module_names_every_class() -> None:
    classes = [
        kind.__name__
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.MxgwClientError)
    ]
    tree = errors.__doc__ or ""

    assert [name for name in classes if name not in tree] == []
