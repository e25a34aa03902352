"""Event streams over a real gateway, worker and channel: nothing is lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from support.clients import client_of, read_events, read_to_the_end, refused
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw_core.testing import running_gateway
from mxgw_worker.backends.sim.profiles.load import expected_value

pytestmark = pytest.mark.asyncio

# With the transport's own windows kept small a slow reader is seen at once: 93 KiB instead of 4 MiB
# (docs/reference/streams.md#transport-buffers).
SMALL_WINDOWS = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 * 1024))


def load(items: int, rate: float, **settings: object) -> dict[str, object]:
    """Return settings for the sim's load profile."""
    return {
        "backends.sim.profile": "load",
        "backends.sim.items": items,
        "backends.sim.rate": rate,
        **settings,
    }


def names(count: int) -> list[str]:
    return [f"Load.Item{number:05d}" for number in range(1, count + 1)]


def after(epoch: bytes, sequence: int) -> es.StartPosition:
    return es.StartPosition(after=e.Position(epoch=epoch, sequence=sequence))


NOW = es.StartPosition(now=Empty())


async def opened(stream: Any) -> e.StreamOpened:
    """Return the first frame, which must be StreamOpened."""
    frame = await stream.read()

    assert frame.WhichOneof("frame") == "opened"

    return frame.opened  # type: ignore[no-any-return]


def gaps_in(frames: Sequence[es.StreamEventsResponse]) -> list[e.Gap]:
    return [frame.gap for frame in frames if frame.HasField("gap")]


async def test_ten_thousand_items_subscribed_before_the_stream_opens_bring_ten_thousand_first_values() -> None:
    async with running_gateway(load(10_000, 0)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        handles = await client.subscribe(session.session_id, names(10_000))
        stream = client.stream(session.session_id)
        begin = await opened(stream)
        frames, sequences = await read_events(stream, 10_000)
        events = [event for frame in frames for event in frame.events.events]
        stream.cancel()

        assert (begin.epoch, begin.from_sequence, begin.was_resuming) == (session.epoch, 0, False)
        assert sequences == list(range(1, 10_001))
        assert gaps_in(frames) == []
        assert [event.item_handle for event in events] == handles
        assert [event.data_change.value.double for event in events] == [expected_value(n, 0) for n in range(1, 10_001)]


async def test_a_stream_opens_with_what_is_in_force() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        stream = client.stream(session.session_id, heartbeat_interval=Duration(seconds=7))
        begin = await opened(stream)
        stream.cancel()

        assert (begin.head_sequence, begin.oldest_sequence, begin.policy) == (0, 1, "disconnect")
        assert begin.heartbeat_interval.seconds == 7
        assert begin.subscriber_id


async def test_a_quiet_stream_carries_heartbeats_with_a_position() -> None:
    async with running_gateway({"backends.sim.profile": "load"}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        stream = client.stream(session.session_id, heartbeat_interval=Duration(seconds=1))
        await opened(stream)
        async with asyncio.timeout(60):
            frame = await stream.read()
        stream.cancel()

        assert frame.WhichOneof("frame") == "heartbeat"
        assert (frame.heartbeat.position.epoch, frame.heartbeat.position.sequence) == (session.epoch, 0)
        assert frame.heartbeat.worker_state == e.WORKER_STATE_READY
        assert frame.heartbeat.source_health == e.SOURCE_HEALTH_GOOD


async def test_events_come_at_once_one_by_one_when_there_are_few() -> None:
    async with running_gateway(load(1, 20)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        stream = client.stream(session.session_id)
        await opened(stream)
        await client.subscribe(session.session_id, names(1))
        frames, sequences = await read_events(stream, 5)
        stream.cancel()

        assert sequences == [1, 2, 3, 4, 5]
        assert len(frames) >= 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"heartbeat_interval": Duration(seconds=61)}, "heartbeat_interval"),
        ({"heartbeat_interval": Duration(nanos=1)}, "heartbeat_interval"),
        ({"heartbeat_interval": Duration(seconds=-5)}, "heartbeat_interval"),
        ({"start": after(b"short", 1)}, "start.after.epoch"),
        ({"policy": es.OverflowPolicyChoice(name="teleport")}, "policy"),
        ({"client_name": "x" * 129}, "client_name"),
    ],
)
async def test_a_stream_request_that_cannot_be_meant_is_refused(fields: dict[str, Any], field: str) -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        refusal = await refused(client.stream(session.session_id, **fields))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert refusal.metadata["field"] == field
        assert gateway.api.sessions()[0].subscribers == 0


@pytest.mark.parametrize(
    "fields", [{"start": es.StartPosition(snapshot_then_live=Empty())}, {"on_gap": es.ON_GAP_SNAPSHOT}]
)
async def test_what_needs_a_plugin_says_which(fields: dict[str, Any]) -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        refusal = await refused(client.stream(session.session_id, **fields))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FEATURE_NOT_ENABLED")
        assert refusal.metadata == {"plugin": "replay"}


# one subscriber


async def test_a_second_subscriber_is_refused_until_the_first_is_gone() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        first = client.stream(session.session_id)
        await opened(first)
        refusal = await refused(client.stream(session.session_id))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SUBSCRIBER_EXISTS")
        assert "backpressure" in refusal.text

        first.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        second = client.stream(session.session_id)
        await opened(second)
        second.cancel()


# resuming


async def test_a_cut_stream_resumes_behind_what_was_received_without_loss_or_repetition() -> None:
    async with running_gateway(load(100, 2000)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, names(100))
        stream = client.stream(session.session_id)
        await opened(stream)
        _, seen = await read_events(stream, 300)
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        stream = client.stream(session.session_id, after(session.epoch, seen[-1]))
        begin = await opened(stream)
        frames, more = await read_events(stream, 100)
        stream.cancel()

        assert begin.was_resuming
        gaps = gaps_in(frames)
        if begin.recovered:
            assert gaps == []
            assert more[0] == seen[-1] + 1
        else:  # without the replay plugin nothing is retained after delivery: then the loss is named exactly
            assert len(gaps) == 1
            assert (gaps[0].first_lost, gaps[0].last_lost) == (seen[-1] + 1, more[0] - 1)
            assert gaps[0].reason == e.GAP_REASON_RING_EVICTED
        assert more == list(range(more[0], more[0] + len(more)))


async def test_a_resume_that_would_lose_something_is_refused_if_asked_to() -> None:
    async with running_gateway(load(1, 0)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        refusal = await refused(client.stream(session.session_id, after(bytes(16), 0), on_gap=es.ON_GAP_REFUSE))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "POSITION_LOST")
        assert refusal.metadata["epoch"] == session.epoch.hex()
        assert gateway.api.sessions()[0].subscribers == 0


@pytest.mark.parametrize(
    ("epoch", "sequence", "reason"),
    [(None, 10_000, e.GAP_REASON_CURSOR_AHEAD), (bytes(16), 1, e.GAP_REASON_EPOCH_CHANGED)],
)
async def test_a_position_of_another_time_is_answered_with_a_gap_and_never_taken_as_caught_up(
    epoch: bytes | None, sequence: int, reason: int
) -> None:
    async with running_gateway(load(3, 0)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, names(3))
        await until(lambda: gateway.api.sessions()[0].head_sequence == 3)
        stream = client.stream(session.session_id, after(session.epoch if epoch is None else epoch, sequence))
        begin = await opened(stream)
        frame = await stream.read()
        stream.cancel()

        assert (begin.was_resuming, begin.recovered) == (True, False)
        assert (frame.gap.reason, frame.gap.first_lost, frame.gap.count) == (reason, 0, 0)


# overflow


async def test_a_slow_reader_gets_what_was_queued_and_then_a_typed_end_with_the_place_of_the_loss() -> None:
    settings = load(200, 20_000, **{"events.queue_events": 2_000, "backends.sim.text_bytes": 100})
    async with running_gateway(settings) as gateway, client_of(gateway.target, options=SMALL_WINDOWS) as client:
        session = await client.open()
        await client.subscribe(session.session_id, names(200))
        stream = client.stream(session.session_id)
        await opened(stream)
        subscriber = _subscriber(gateway, session.session_id)
        await until(lambda: subscriber.end_error is not None, 60)  # nobody reads
        frames, sequences, refusal = await read_to_the_end(stream)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_OVERFLOW")
        assert refusal.metadata["limit_events"] == "2000"
        assert int(refusal.metadata["lag_events"]) > 2000
        assert refusal.metadata["policy"] == "disconnect"
        assert "events.queue_events" in refusal.text
        # Nothing queued is lost, and the loss begins right behind.
        assert gaps_in(frames) == []
        assert sequences == list(range(1, len(sequences) + 1))
        assert int(refusal.metadata["lost_from"]) == len(sequences) + 1

        assert gateway.api.sessions()[0].state.name == "READY"


def _subscriber(gateway: Any, session_id: str) -> Any:
    (subscriber,) = gateway.app.gateway._registry.get(session_id).distributor.subscribers.values()
    return subscriber


async def test_a_reader_that_stopped_altogether_is_cut_though_its_transport_buffered_megabytes() -> None:
    settings = load(
        200,
        60_000,
        **{
            "events.queue_events": 3_000,
            "events.overflow_drain_s": 0.5,
            "backends.sim.text_bytes": 300,
            # Room for a moment in which client and gateway, one process here, are not given the processor.
            "workers.outbox_events": 300_000,
            "workers.outbox_bytes": 200_000_000,
        },
    )
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, names(200))
        stream = client.stream(session.session_id)
        await opened(stream)
        subscriber = _subscriber(gateway, session.session_id)
        await until(lambda: subscriber.end_error is not None, 60)

        assert subscriber.counts.delivered_bytes > 1_000_000  # that much the transport took although nobody read

        await until(lambda: gateway.api.sessions()[0].subscribers == 0, 60)

        # What the transport had is still there to be read, in order, and then the reason.
        _, sequences, refusal = await read_to_the_end(stream)

        assert sequences == list(range(1, len(sequences) + 1))
        assert refusal.reason == "SUBSCRIBER_OVERFLOW"

        # The session goes on for whoever comes next.
        again = client.stream(session.session_id, NOW)
        await opened(again)
        again.cancel()


async def test_a_reader_that_is_cut_does_not_disturb_another_session() -> None:
    settings = load(50, 5_000, **{"events.queue_events": 1_000, "events.overflow_drain_s": 0.3})
    async with running_gateway(settings) as gateway, client_of(gateway.target, options=SMALL_WINDOWS) as client:
        stalled, healthy = await client.open(name="stalled"), await client.open(name="healthy")
        for session in (stalled, healthy):
            await client.subscribe(session.session_id, names(50))
        stuck = client.stream(stalled.session_id)
        await opened(stuck)
        stream = client.stream(healthy.session_id)
        await opened(stream)
        _, sequences = await read_events(stream, 4_000)
        stream.cancel()

        assert sequences == list(range(1, len(sequences) + 1))

        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        stuck.cancel()


# the end


async def test_closing_a_session_ends_its_stream_after_everything_with_the_reason() -> None:
    async with running_gateway(load(10, 0)) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, names(10))
        await until(lambda: gateway.api.sessions()[0].head_sequence == 10)
        stream = client.stream(session.session_id)
        await opened(stream)
        await client.close(session.session_id)
        _, sequences, refusal = await read_to_the_end(stream)

        assert sequences == list(range(1, 11))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "SESSION_CLOSED")
        assert refusal.metadata["close_reason"] == "CLIENT"
        assert refusal.metadata["head_sequence"] == "10"
