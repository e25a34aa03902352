"""The event stream: order, frames, positions, and waits that are given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import grpc
import pytest
from client.scripted import (
    EPOCH,
    Refusal,
    Scripted,
    batch,
    change,
    changes,
    gap,
    heartbeat,
    opened,
    read_until,
)
from support.clock import advance

from mxgw import convert
from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_client import (
    BufferedDataChange,
    DataChange,
    Draining,
    EventBatch,
    Gap,
    GapReason,
    Heartbeat,
    OnGap,
    OperationComplete,
    Policy,
    Position,
    Progress,
    Quality,
    Session,
    Snapshot,
    SnapshotEnd,
    Start,
    StreamOpened,
    StreamStale,
    UnknownEvent,
    WriteComplete,
    after,
    errors,
)

pytestmark = pytest.mark.asyncio

CLOSED = Refusal(grpc.StatusCode.ABORTED, "SESSION_CLOSED", "closed", {"close_reason": "CLIENT"})


def script(scripted: Scripted, *frames: event_service_pb2.StreamEventsResponse, end: Refusal | None = CLOSED) -> None:
    """Send the frames, then end with a refusal; without one, stay silent until the client leaves."""

    async def stream(request, context):
        for frame in frames:
            yield frame
        if end is not None:
            raise end
        await asyncio.Event().wait()

    scripted.script.stream = stream


def sequence_or_type(item: object) -> object:
    return item.sequence if isinstance(item, DataChange) else type(item)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the scripted gateway has no event to await
            await asyncio.sleep(0.005)


async def test_what_was_sent_before_the_end_arrives_even_when_the_reader_is_slow(
    scripted: Scripted, session: Session
) -> None:
    script(scripted, opened(), *(changes(n * 10 + 1, n * 10 + 10) for n in range(100)))
    events = session.events()
    await anext(events)
    await until(lambda: scripted.script.streams_ended == 1)

    seen, _ = await read_until(errors.SessionClosed, events, sequence_or_type)

    assert seen == list(range(1, 1001))


async def test_a_data_change_shows_all_its_fields(scripted: Scripted, session: Session) -> None:
    item = await session.add_item("Tank01.Level")
    script(scripted, opened(), batch(change(1, 12.5, item=item.handle)))
    events = session.events()
    await anext(events)
    event = await anext(events)

    assert isinstance(event, DataChange)
    assert (event.sequence, event.item_handle, event.server_handle) == (1, item.handle, 1)
    assert (event.value, event.quality, event.raw_quality) == (12.5, Quality.GOOD, 192)
    assert event.reference == "Tank01.Level"
    assert event.source_time is not None
    assert event.source_time.isoformat() == "2023-11-14T22:13:20+00:00"
    assert event.worker_time.tzinfo is not None
    assert event.ok
    assert event.is_good
    assert event.position == Position(EPOCH, 1)
    assert repr(event) == "<DataChange 1 Tank01.Level>"


async def test_an_item_may_change_the_kind_of_its_value_at_any_time(scripted: Scripted, session: Session) -> None:
    values = [1.5, 0.0, 2.5, 7, 0, 7, "x", "", "y", None, 1.5, [1.0], 1.5, True, False, b"z", 2**40, 3.5, 0]
    # `change` replaces None by a number, so the value without a kind is made here.
    events = [change(n + 1, "" if value is None else value) for n, value in enumerate(values)]
    events[values.index(None)].data_change.value.Clear()
    script(scripted, opened(), batch(*events))
    seen, _ = await read_until(
        errors.SessionClosed, session.events(), lambda item: item.value if isinstance(item, DataChange) else item
    )

    assert seen[1:] == values
    assert [type(value) for value in seen[1:]] == [type(value) for value in values]


async def test_a_failure_status_is_forwarded_and_not_good(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), batch(change(1, 0.0, ok=False)))
    events = session.events()
    await anext(events)
    event = await anext(events)

    assert isinstance(event, DataChange)
    assert not event.ok
    assert not event.is_good
    assert event.statuses[0].detail == 1003
    assert event.statuses[0].detail_name == "INDEX_OUT_OF_RANGE"


async def test_the_other_events_are_told_apart(scripted: Scripted, session: Session) -> None:
    written = events_pb2.Event(
        sequence=1, item_handle=5, kind=2, write_complete=events_pb2.WriteComplete(write_id=3, missing=True)
    )
    operated = events_pb2.Event(
        sequence=2,
        item_handle=5,
        kind=3,
        operation_complete=events_pb2.OperationComplete(statuses=[convert.ok_status()]),
    )
    buffered = events_pb2.Event(
        sequence=3,
        item_handle=5,
        kind=4,
        buffered_data_change=events_pb2.BufferedDataChange(
            value=convert.to_value([1.0, 2.0]),
            raw_qualities=[192, 0],
            source_times=[convert.timestamp_from_ns(0), convert.timestamp_from_ns(1_000_000_000)],
            raw_data_type=4,
        ),
    )
    unknown = events_pb2.Event(sequence=4, item_handle=5, kind=events_pb2.EventKind.ValueType(77))
    script(scripted, opened(), batch(written, operated, buffered, unknown))
    events = session.events()
    await anext(events)
    first, second, third, fourth = [await anext(events) for _ in range(4)]

    assert isinstance(first, WriteComplete)
    assert (first.write_id, first.missing, first.ok) == (3, True, False)
    assert isinstance(second, OperationComplete)
    assert second.ok
    assert isinstance(third, BufferedDataChange)
    assert third.values == [1.0, 2.0]
    assert third.raw_qualities == [192, 0]
    assert [stamp.timestamp() for stamp in third.source_times] == [0, 1]
    assert isinstance(fourth, UnknownEvent)
    assert fourth.raw.kind == 77


async def test_snapshots_progress_and_draining_are_frames_of_their_own(scripted: Scripted, session: Session) -> None:
    item = await session.add_item("Tank01.Level")
    position = events_pb2.Position(epoch=EPOCH, sequence=9)
    frame = event_service_pb2.StreamEventsResponse
    snapshot = events_pb2.Snapshot(
        position=position,
        items=[
            events_pb2.SnapshotItem(
                server_handle=1,
                item_handle=item.handle,
                sequence=4,
                value=change(4, 3.5).data_change,
                item_serial=item.serial,
            )
        ],
    )
    script(
        scripted,
        opened(),
        frame(snapshot=snapshot),
        frame(snapshot_end=events_pb2.SnapshotEnd(position=position)),
        frame(progress=events_pb2.Progress(position=events_pb2.Position(epoch=EPOCH, sequence=20))),
        frame(draining=events_pb2.Draining(retry_after=convert.duration_from_seconds(1.5))),
        end=Refusal(grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING", "draining", retry_after_s=1.5),
    )
    events = session.events(start=Start.SNAPSHOT, resume=None)
    pairs, ended = await read_until(errors.GatewayDraining, events, lambda item: (item, events.position.sequence))
    items, positions = zip(*pairs, strict=True)

    assert isinstance(items[1], Snapshot)
    assert items[1].items[0].value == 3.5
    assert items[1].items[0].reference == "Tank01.Level"
    assert isinstance(items[2], SnapshotEnd)
    assert isinstance(items[3], Progress)
    assert items[4] == Draining(1.5, 0.0)
    assert positions == (0, 0, 9, 20, 20)
    assert ended.retry_after_s == 1.5
    assert ended.resumable


async def test_the_position_is_never_ahead_of_what_was_handed_out(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(10), changes(11, 13), heartbeat(13), changes(14, 15))
    events = session.events()

    assert events.position is None

    positions, _ = await read_until(errors.SessionClosed, events, lambda _: events.position.sequence)

    assert positions == [10, 11, 12, 13, 13, 14, 15]
    assert events.position == Position(EPOCH, 15)


async def test_a_gap_moves_the_position_only_when_nothing_of_its_range_follows(
    scripted: Scripted, session: Session
) -> None:
    script(scripted, opened(), gap(1, 10, count=10), gap(11, 20, reason=3), changes(15, 15))
    events = session.events()
    await anext(events)
    lost = await anext(events)

    assert isinstance(lost, Gap)
    assert lost.reason is GapReason.RING_EVICTED
    assert events.position == Position(EPOCH, 10)

    await anext(events)

    assert events.position == Position(EPOCH, 10)

    await anext(events)

    assert events.position == Position(EPOCH, 15)


async def test_a_part_of_a_range_that_is_still_to_come_does_not_move_the_position(
    scripted: Scripted, session: Session
) -> None:
    script(scripted, opened(), gap(1, 10, count=4, reason=2), changes(5, 5))
    events = session.events()
    positions, _ = await read_until(errors.SessionClosed, events, lambda _: events.position.sequence)

    assert positions == [0, 0, 5]


async def test_a_frame_never_moves_the_position_back_or_into_another_epoch(
    scripted: Scripted, session: Session
) -> None:
    foreign = heartbeat(99)
    foreign.heartbeat.position.epoch = bytes(16)
    script(scripted, opened(), changes(1, 5), heartbeat(3), foreign, changes(6, 6))
    events = session.events()
    positions, _ = await read_until(errors.SessionClosed, events, lambda _: events.position)

    assert positions[5:] == [Position(EPOCH, 5), Position(EPOCH, 5), Position(EPOCH, 5), Position(EPOCH, 6)]


async def test_leaving_the_loop_and_coming_back_loses_nothing(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), changes(1, 6))
    events = session.events()
    seen = []
    async for item in events:
        if isinstance(item, DataChange):
            seen.append(item.sequence)
            if item.sequence == 3:
                break
    rest, _ = await read_until(errors.SessionClosed, events, sequence_or_type)

    assert seen + rest == [1, 2, 3, 4, 5, 6]


async def test_giving_up_waiting_loses_nothing_and_keeps_the_stream(scripted: Scripted, session: Session) -> None:
    go_on = asyncio.Event()

    async def stream(request, context):
        yield opened()
        await go_on.wait()
        yield changes(1, 3)
        raise CLOSED

    scripted.script.stream = stream
    events = session.events()
    await anext(events)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(events)
    go_on.set()

    assert [(await anext(events)).sequence for _ in range(3)] == [1, 2, 3]
    with pytest.raises(errors.SessionClosed):
        await anext(events)


async def test_batches_come_whole_and_begin_with_the_rest_of_one_that_was_begun(
    scripted: Scripted, session: Session
) -> None:
    script(scripted, opened(), changes(1, 5), heartbeat(5), changes(6, 9))
    events = session.events()
    assert isinstance(await anext(events), StreamOpened)
    assert [(await anext(events)).sequence for _ in range(2)] == [1, 2]

    def note(frame: object) -> object:
        if not isinstance(frame, EventBatch):
            return type(frame)
        assert events.position == frame.position
        assert (frame.first_sequence, frame.last_sequence) == (frame[0].sequence, frame[-1].sequence)
        return [event.sequence for event in frame]

    frames, _ = await read_until(errors.SessionClosed, events.batches(), note)

    assert frames == [[3, 4, 5], Heartbeat, [6, 7, 8, 9]]


async def test_entering_the_stream_waits_for_its_first_frame_and_still_yields_it(
    scripted: Scripted, session: Session
) -> None:
    script(scripted, opened(3, heartbeat_s=2), end=None)
    async with session.events() as events:
        assert events.opened is not None
        assert events.opened.position.sequence == 3
        assert events.stale_after_s == 5
        assert events.position is None
        assert isinstance(await anext(events), StreamOpened)
    await until(lambda: scripted.script.streams_ended == 1)


async def test_closing_a_stream_stops_its_reader_in_another_task(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), end=None)
    events = session.events()
    await anext(events)
    async with asyncio.TaskGroup() as tasks:

        async def read() -> list[object]:
            return [item async for item in events]

        reader = tasks.create_task(read())
        await asyncio.sleep(0)
        await events.close()

    assert reader.result() == []
    assert [item async for item in events] == []


async def test_a_dropped_stream_ends_at_the_gateway(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), end=None)
    events = session.events()
    await anext(events)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(events)
    del events
    gc.collect()

    await until(lambda: scripted.script.streams_ended == 1)


async def test_closing_the_session_ends_its_streams(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), end=None)
    events = session.events()
    await anext(events)
    await session.close()

    assert [item async for item in events] == []
    await until(lambda: scripted.script.streams_ended == 1)


async def test_two_tasks_cannot_read_one_stream(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), end=None)
    events = session.events()
    await anext(events)
    async with asyncio.TaskGroup() as tasks:

        async def read() -> None:
            async for _ in events:
                pass

        tasks.create_task(read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task reads this stream"):
            await anext(events)
        await events.close()


async def test_silence_of_two_and_a_half_heartbeats_is_a_stale_stream(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(heartbeat_s=0.5), changes(1, 1), end=None)
    events = session.events(resume=None)
    loop = asyncio.get_running_loop()
    await anext(events)
    await anext(events)
    began = loop.time()
    with pytest.raises(StreamStale, match="no event and no heartbeat") as stale:
        await anext(events)

    assert loop.time() - began >= 1.2
    assert stale.value.resumable
    await until(lambda: scripted.script.streams_ended == 1)
    with pytest.raises(StreamStale):
        await anext(events)


async def test_a_reader_that_waits_in_short_turns_sees_the_silence_too(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(heartbeat_s=0.5), end=None)
    events = session.events(resume=None)
    await anext(events)

    async def read_in_turns() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.4):
                    await anext(events)

    async with asyncio.timeout(60):
        with pytest.raises(StreamStale):
            await read_in_turns()


async def test_heartbeats_keep_a_quiet_stream_alive(scripted: Scripted, session: Session) -> None:
    goes_on = asyncio.Event()

    async def stream(request, context):
        yield opened(heartbeat_s=40)
        for _ in range(4):
            await goes_on.wait()
            goes_on.clear()
            yield heartbeat(0)
        await goes_on.wait()
        raise CLOSED

    def a_while_later(item: object) -> type:
        advance(70)  # of the 100 s of silence that are allowed
        goes_on.set()
        return type(item)

    scripted.script.stream = stream
    seen, _ = await read_until(errors.SessionClosed, session.events(), a_while_later)

    assert seen == [StreamOpened, *[Heartbeat] * 4]


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((changes(1, 1),), "instead of StreamOpened"),
        ((opened(), opened()), "second StreamOpened"),
        ((opened(5), changes(5, 6)), "event 5 came after everything up to 5"),
        ((opened(), changes(1, 4), changes(3, 6)), "event 3 came after everything up to 4"),
        ((opened(), batch(change(1), change(1), change(2))), "some came twice or back"),
    ],
)
async def test_a_stream_that_breaks_the_contract_is_refused(
    scripted: Scripted, session: Session, frames, text: str
) -> None:
    script(scripted, *frames)
    with pytest.raises(errors.ProtocolViolation, match=text):
        async for _ in session.events():
            pass
    await until(lambda: scripted.script.streams_ended == 1)


async def test_frames_of_a_later_contract_are_passed_over(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), event_service_pb2.StreamEventsResponse(), batch(), changes(1, 1))
    seen, _ = await read_until(errors.SessionClosed, session.events(), type)

    assert seen == [StreamOpened, DataChange]


async def test_the_request_says_where_to_start_and_what_is_wanted(scripted: Scripted, session: Session) -> None:
    script(scripted, opened())
    place = Position(EPOCH, 17)
    for start in (Start.OLDEST, Start.NOW, Start.SNAPSHOT, after(place)):
        async with session.events(
            start=start, policy=Policy("sample", {"interval_ms": "500"}), on_gap=OnGap.REFUSE, heartbeat_interval_s=2
        ):
            pass
    requests = scripted.script.called("StreamEvents")

    assert [request.start.WhichOneof("start") for request in requests] == [
        "oldest_retained",
        "now",
        "snapshot_then_live",
        "after",
    ]
    assert Position.from_message(requests[3].start.after) == place
    assert requests[0].session_id == session.session_id
    assert requests[0].policy.name == "sample"
    assert requests[0].policy.parameters == {"interval_ms": "500"}
    assert requests[0].on_gap == event_service_pb2.ON_GAP_REFUSE
    assert requests[0].heartbeat_interval.seconds == 2


async def test_a_stalled_reader_does_not_hold_up_commands(scripted: Scripted, session: Session) -> None:
    script(scripted, opened(), *(changes(n * 500 + 1, n * 500 + 500) for n in range(100)), end=None)
    events = session.events()
    await anext(events)
    async with asyncio.timeout(60):
        for _ in range(20):
            await session.ping()
