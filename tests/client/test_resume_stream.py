"""A stream that was cut comes back by itself, right after the last event that the application was handed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from client.scripted import EPOCH, Refusal, Scripted, changes, opened, read_until

from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_client import (
    DataChange,
    EventBatch,
    OnGap,
    Position,
    ResumePolicy,
    Session,
    StreamCut,
    StreamOpened,
    errors,
)

pytestmark = pytest.mark.asyncio

Code = grpc.StatusCode
Response = event_service_pb2.StreamEventsResponse
Request = event_service_pb2.StreamEventsRequest

CUT = Refusal(Code.UNAVAILABLE, text="connection reset")
CLOSED = Refusal(Code.ABORTED, "SESSION_CLOSED", "closed", {"close_reason": "CLIENT"})
QUICK = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.05)


def streams(scripted: Scripted, *scripts: list[Response | Refusal]) -> list[Request]:
    """Answer the n-th StreamEvents with the n-th script. Return a list to which each request is added."""
    requests: list[Request] = []

    async def stream(request: Request, context: object) -> AsyncIterator[Response]:
        requests.append(request)
        for step in scripts[len(requests) - 1]:
            if isinstance(step, Refusal):
                raise step
            yield step
        await asyncio.Event().wait()

    scripted.script.stream = stream
    return requests


def place(sequence: int, epoch: bytes = EPOCH) -> events_pb2.Position:
    return events_pb2.Position(epoch=epoch, sequence=sequence)


def snapshot(sequence: int) -> Response:
    return Response(snapshot=events_pb2.Snapshot(position=place(sequence)))


def snapshot_end(sequence: int) -> Response:
    return Response(snapshot_end=events_pb2.SnapshotEnd(position=place(sequence)))


def short(item: object) -> object:
    return item.sequence if isinstance(item, DataChange) else type(item)


def resumed(at: int) -> Response:
    return opened(at, resuming=True, recovered=True)


async def test_a_cut_stream_goes_on_behind_the_last_event_and_shows_both_ends(
    scripted: Scripted, session: Session
) -> None:
    requests = streams(scripted, [opened(), changes(1, 5), CUT], [resumed(5), changes(6, 7), CLOSED])
    events = session.events(resume=QUICK)
    cuts: list[StreamCut] = []

    def note(item: object) -> object:
        if isinstance(item, StreamCut):
            cuts.append(item)
            assert events.is_cut
        return short(item)

    seen, _ = await read_until(errors.SessionClosed, events, note)

    assert seen == [StreamOpened, 1, 2, 3, 4, 5, StreamCut, StreamOpened, 6, 7]
    assert requests[0].start.WhichOneof("start") == "oldest_retained"
    assert requests[1].start.after == place(5)
    assert isinstance(cuts[0].error, errors.ConnectionLost)
    assert cuts[0].position == Position(EPOCH, 5)
    assert cuts[0].retry_in_s <= 0.01
    assert events.opened is not None
    assert events.opened.recovered


async def test_everything_else_that_was_asked_for_is_asked_for_again(scripted: Scripted, session: Session) -> None:
    requests = streams(scripted, [opened(), CUT], [resumed(0), CLOSED])
    events = session.events(
        resume=QUICK, policy="sample", on_gap=OnGap.SNAPSHOT, heartbeat_interval_s=2, client_name="again"
    )
    await read_until(errors.SessionClosed, events, type)
    first, second = requests
    second.start.CopyFrom(first.start)

    assert first == second


async def test_batches_come_back_too(scripted: Scripted, session: Session) -> None:
    requests = streams(scripted, [opened(), changes(1, 5), CUT], [resumed(5), changes(6, 7), CLOSED])
    frames, _ = await read_until(errors.SessionClosed, session.events(resume=QUICK).batches(), type)

    assert frames == [StreamOpened, EventBatch, StreamCut, StreamOpened, EventBatch]
    assert requests[1].start.after == place(5)


@pytest.mark.parametrize(
    "end",
    [
        CUT,
        Refusal(Code.INTERNAL, text="Received RST_STREAM with error code 2"),
        Refusal(Code.CANCELLED, text="RST_STREAM with code 8"),
        Refusal(Code.UNKNOWN, text="Stream removed"),
        Refusal(Code.RESOURCE_EXHAUSTED, "SUBSCRIBER_OVERFLOW", "slow"),
        Refusal(Code.UNAVAILABLE, "GATEWAY_DRAINING", "draining"),
        Refusal(Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", "the rights are read again"),
    ],
    ids=lambda end: f"{end.code.name} {end.reason or end.text}",
)
async def test_a_stream_comes_back_from_every_end_that_leaves_the_session_alive(
    scripted: Scripted, session: Session, end: Refusal
) -> None:
    requests = streams(scripted, [opened(), changes(1, 1), end], [resumed(1), changes(2, 2), CLOSED])
    seen, _ = await read_until(errors.SessionClosed, session.events(resume=QUICK), short)

    assert seen == [StreamOpened, 1, StreamCut, StreamOpened, 2]
    assert len(requests) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(Code.ALREADY_EXISTS, "SUBSCRIBER_EXISTS"),
        Refusal(Code.RESOURCE_EXHAUSTED, "EVENT_SUBSCRIBER_LIMIT_REACHED"),
        Refusal(Code.UNAVAILABLE, "SESSION_NOT_READY"),
        Refusal(Code.UNAVAILABLE, "GATEWAY_DRAINING"),
        Refusal(Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
        Refusal(Code.UNAVAILABLE, text="connection refused"),
        Refusal(Code.RESOURCE_EXHAUSTED, text="too many calls"),
    ],
    ids=lambda refusal: f"{refusal.code.name} {refusal.reason}",
)
async def test_an_attempt_that_fails_for_a_passing_reason_is_repeated(
    scripted: Scripted, session: Session, refusal: Refusal
) -> None:
    requests = streams(scripted, [opened(), changes(1, 1), CUT], [refusal], [refusal], [resumed(1), CLOSED])
    seen, _ = await read_until(errors.SessionClosed, session.events(resume=QUICK), short)

    assert seen == [StreamOpened, 1, StreamCut, StreamOpened]
    assert [request.start.after.sequence for request in requests] == [0, 1, 1, 1]


ENDS = [
    (Refusal(Code.NOT_FOUND, "SESSION_GONE", metadata={"close_reason": "LEASE_EXPIRED"}), errors.SessionGone),
    (Refusal(Code.NOT_FOUND, "SESSION_NOT_FOUND"), errors.SessionNotFound),
    (CLOSED, errors.SessionClosed),
    (Refusal(Code.ABORTED, "WORKER_EXITED"), errors.WorkerExited),
    (Refusal(Code.ABORTED, "WORKER_SILENT"), errors.WorkerSilent),
    (Refusal(Code.ABORTED, "DETACH_GRACE_EXPIRED"), errors.DetachGraceExpired),
    (Refusal(Code.PERMISSION_DENIED, "ACCESS_DENIED"), errors.AccessDenied),
    (Refusal(Code.UNAUTHENTICATED, "UNAUTHENTICATED"), errors.Unauthenticated),
    (Refusal(Code.PERMISSION_DENIED, "OWNER_REVOKED"), errors.AccessRevoked),
    (Refusal(Code.DATA_LOSS, "POSITION_LOST"), errors.PositionLost),
    (Refusal(Code.INVALID_ARGUMENT, "POSITION_FOREIGN"), errors.PositionForeign),
    (Refusal(Code.INTERNAL, "INTERNAL"), errors.InternalError),
]


@pytest.mark.parametrize(("end", "kind"), ENDS, ids=lambda end: getattr(end, "reason", None))
@pytest.mark.parametrize("when", ["in the stream", "in an attempt"])
async def test_an_end_that_no_attempt_can_mend_is_raised_and_never_tried_again(
    scripted: Scripted, session: Session, end: Refusal, kind: type[errors.MxgwClientError], when: str
) -> None:
    cut: list[list[Response | Refusal]] = [[opened(), CUT], [end]] if when == "in an attempt" else [[opened(), end]]
    requests = streams(scripted, *cut)
    events = session.events(resume=QUICK)
    with pytest.raises(kind) as raised:
        async for _ in events:
            pass

    assert type(raised.value) is kind
    assert len(requests) == len(cut)
    with pytest.raises(kind):
        await anext(events)


async def test_streams_come_back_by_default(scripted: Scripted, session: Session) -> None:
    streams(scripted, [opened(), CUT], [resumed(0), CLOSED])
    seen, _ = await read_until(errors.SessionClosed, session.events(), short)

    assert seen == [StreamOpened, StreamCut, StreamOpened]


async def test_attempts_end_with_the_error_of_the_last_one_when_their_number_is_reached(
    scripted: Scripted, session: Session
) -> None:
    refusal = Refusal(Code.ALREADY_EXISTS, "SUBSCRIBER_EXISTS")
    requests = streams(scripted, [opened(), CUT], *[[refusal]] * 3)
    limited = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.01, maximum_attempts=3)
    _, ended = await read_until(errors.SubscriberExists, session.events(resume=limited), type)

    assert len(requests) == 4
    assert "gave up after 3 attempts" in ended.__notes__[0]


async def test_attempts_end_when_the_outage_lasts_too_long(scripted: Scripted, session: Session) -> None:
    streams(scripted, [opened(), CUT], *[[Refusal(Code.UNAVAILABLE, text="refused")]] * 1000)
    limited = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.02, maximum_outage_s=0.3)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await read_until(errors.GatewayUnreachable, session.events(resume=limited), type)

    assert loop.time() - began > 0.2


async def test_the_gateways_own_delay_is_honoured(scripted: Scripted, session: Session) -> None:
    draining = Refusal(Code.UNAVAILABLE, "GATEWAY_DRAINING", retry_after_s=0.4)
    requests = streams(scripted, [opened(), draining], [resumed(0), CLOSED])
    loop = asyncio.get_running_loop()
    events = session.events(resume=QUICK)
    began = loop.time()
    seen, _ = await read_until(
        errors.SessionClosed, events, lambda item: (type(item), loop.time() - began, len(requests))
    )

    assert [kind for kind, _, _ in seen] == [StreamOpened, StreamCut, StreamOpened]
    assert seen[1][2] == 1  # the cut was reported before the next attempt was made
    assert seen[2][1] >= 0.4


# Waiting for the next attempt


SLOW = Refusal(Code.UNAVAILABLE, "GATEWAY_DRAINING", retry_after_s=30)


async def cut_stream(scripted: Scripted, session: Session, end: Refusal = SLOW, *more: list[Response | Refusal]):
    """Return a stream that waits for its next attempt."""
    streams(scripted, [opened(), end], *more)
    events = session.events(resume=QUICK)
    assert isinstance(await anext(events), StreamOpened)
    assert isinstance(await anext(events), StreamCut)
    return events


async def test_closing_a_stream_that_waits_stops_its_reader_at_once(scripted: Scripted, session: Session) -> None:
    events = await cut_stream(scripted, session)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:

        async def read() -> list[object]:
            return [item async for item in events]

        reader = tasks.create_task(read())
        await asyncio.sleep(0.01)
        await events.close()

    assert reader.result() == []


async def test_closing_the_session_closes_a_stream_that_waits(scripted: Scripted, session: Session) -> None:
    events = await cut_stream(scripted, session)
    async with asyncio.timeout(60):
        await session.close()

        assert [item async for item in events] == []


async def test_giving_up_waiting_for_an_attempt_loses_nothing(scripted: Scripted, session: Session) -> None:
    soon = Refusal(Code.UNAVAILABLE, "GATEWAY_DRAINING", retry_after_s=0.15)
    events = await cut_stream(scripted, session, soon, [resumed(0), changes(1, 2), CLOSED])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(events)
    seen, _ = await read_until(errors.SessionClosed, events, short)

    assert seen == [StreamOpened, 1, 2]


async def test_two_tasks_cannot_wait_for_the_same_attempt(scripted: Scripted, session: Session) -> None:
    events = await cut_stream(scripted, session)
    async with asyncio.TaskGroup() as tasks:

        async def read() -> None:
            async for _ in events:
                pass

        tasks.create_task(read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task reads this stream"):
            await anext(events)
        await events.close()


async def test_an_attempt_that_is_not_answered_is_given_up(scripted: Scripted, session: Session) -> None:
    requests = streams(scripted, [opened(), CUT], [], [resumed(0), CLOSED])
    impatient = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.01, attempt_timeout_s=2.0)
    seen, _ = await read_until(errors.SessionClosed, session.events(resume=impatient), short)

    assert seen == [StreamOpened, StreamCut, StreamOpened]
    assert len(requests) == 3
