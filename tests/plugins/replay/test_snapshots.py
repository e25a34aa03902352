"""Snapshots: the last value of every advised item, in its exact place of the stream, and never an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.empty_pb2 import Empty
from support.clients import Client, client_of, read_events, read_to_the_end, refused
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw.v1.session_service_pb2 import GetSessionStateRequest, GetWorkerInfoRequest
from mxgw_core.api import EventFilter, Identity, ItemRecord, SessionInfo, hookimpl
from mxgw_core.api.types import Position
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_core.testing.checker import RoundRobin, StreamChecker, observed
from mxgw_worker.backends.sim.profiles.load import expected_value

pytestmark = pytest.mark.asyncio

SNAPSHOT = es.StartPosition(snapshot_then_live=Empty())


@asynccontextmanager
async def loaded(
    items: int, rate: float, **settings: object
) -> AsyncIterator[tuple[RunningGateway, Client, Any, list[int]]]:
    """Run a gateway with replay and a session that advises `items`; yield their handles too."""
    keys: dict[str, object] = {
        "plugins.enabled": ["replay"],
        "backends.sim.profile": "load",
        "backends.sim.rate": rate,
        "backends.sim.items": items,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    async with (
        running_gateway(keys) as gateway,
        client_of(gateway.target, options=[("grpc.max_receive_message_length", 8 << 20)]) as client,
    ):
        session = await client.open()
        handles = await client.subscribe(session.session_id, [f"Load.Item{n:05d}" for n in range(1, items + 1)])
        await every_item_has_a_value(client, session.session_id)
        yield gateway, client, session, list(handles)


async def every_item_has_a_value(client: Client, session_id: str) -> None:
    """Return once no item waits for its first value any more."""
    request = GetSessionStateRequest(session_id=session_id, page_size=10_000)
    async with asyncio.timeout(60):
        while True:
            state = await client.sessions.GetSessionState(request)
            if all(item.last_sequence for item in state.items):
                return
            await asyncio.sleep(0.02)


def head(gateway: RunningGateway, session: Any) -> int:
    info = gateway.api.session(session.session_id)

    assert info is not None

    return info.head_sequence


async def judged(stream: Any, checker: StreamChecker, enough: int) -> list[es.StreamEventsResponse]:
    """Feed a checker until the snapshot came and `enough` events behind it; return the frames."""
    frames: list[es.StreamEventsResponse] = []
    behind = None
    while behind is None or behind < enough:
        frame = await stream.read()

        assert frame is not grpc.aio.EOF

        frames.append(frame)
        for observation in observed(frame, lambda event: event.data_change.value.double):
            checker.observe(observation)
        if frame.HasField("snapshot_end"):
            behind = 0
        elif behind is not None:
            behind += len(frame.events.events)
    return frames


def shown(frames: list[es.StreamEventsResponse]) -> dict[int, e.SnapshotItem]:
    """Return the items of a snapshot by their handles; each must be there once."""
    items = [item for frame in frames for item in frame.snapshot.items]
    by_handle = {item.item_handle: item for item in items}

    assert len(by_handle) == len(items)

    return by_handle


async def test_ten_thousand_items_come_in_parts_while_events_flow_and_live_goes_on_strictly_behind() -> None:
    async with loaded(10_000, 4_000, events__batch_bytes=64 * 1024) as (_, client, session, handles):
        checker = StreamChecker()
        checker.attach()
        stream = client.stream(session.session_id, SNAPSHOT)
        frames = await judged(stream, checker, 5_000)
        stream.cancel()
        checker.end("CLIENT")

        assert not checker.violations, checker.report()
        assert checker.gaps == 0

        parts = [frame.snapshot for frame in frames if frame.HasField("snapshot")]
        end = next(frame.snapshot_end for frame in frames if frame.HasField("snapshot_end"))

        assert len(parts) > 5
        assert all(part.ByteSize() < 70_000 for part in parts)
        assert {part.position.sequence for part in parts} == {end.position.sequence}

        values = shown(frames)

        assert values.keys() == set(handles)
        for number, handle in enumerate(handles, 1):
            value = values[handle].value.value.double
            assert 0 < values[handle].sequence <= end.position.sequence
            assert value - expected_value(number, 0) < 1_000  # some k-th value of that very item

        # What follows of an item is its next value: nothing lies between snapshot and events, and nothing repeats.
        at_end = frames.index(next(frame for frame in frames if frame.HasField("snapshot_end")))
        seen: set[int] = set()
        for frame in frames[at_end:]:
            for event in frame.events.events:
                if event.item_handle not in seen:
                    seen.add(event.item_handle)
                    assert event.data_change.value.double == values[event.item_handle].value.value.double + 1


async def test_events_from_before_the_snapshot_come_first_and_it_stands_where_its_position_is() -> None:
    async with loaded(50, 3_000) as (gateway, client, session, handles):
        oracle = RoundRobin(session.epoch, [(1, h) for h in handles], lambda i, count: expected_value(i + 1, count))
        for _ in range(5):
            checker = StreamChecker(oracle)
            checker.attach()
            stream = client.stream(session.session_id, SNAPSHOT)
            frames = await judged(stream, checker, 200)
            stream.cancel()
            checker.end("CLIENT")
            await until(lambda: gateway.api.session(session.session_id).subscribers == 0)

            assert not checker.violations, checker.report()
            assert shown(frames).keys() == set(handles)


async def test_clients_that_page_through_the_values_themselves_do_not_break_a_snapshot() -> None:
    async with loaded(10_000, 0) as (_, client, session, handles):
        stop = asyncio.Event()

        async def page() -> None:
            request = GetSessionStateRequest(session_id=session.session_id, include_values=True, page_size=1)
            while not stop.is_set():
                await client.sessions.GetSessionState(request)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(page())
            for _ in range(2):
                stream = client.stream(session.session_id, SNAPSHOT)
                frames = await judged(stream, _attached(), 0)
                stream.cancel()

                assert shown(frames).keys() == set(handles)
            stop.set()


async def test_items_that_are_not_advised_or_have_no_value_yet_are_not_shown() -> None:
    async with loaded(3, 0) as (_, client, session, handles):
        from mxgw.v1 import commands_pb2 as c

        server = 1
        await client.invoke(
            session.session_id, un_advise=c.UnAdviseCommand(server_handle=server, item_handle=handles[1])
        )
        stream = client.stream(session.session_id, SNAPSHOT)
        frames = await judged(stream, _attached(), 0)
        stream.cancel()

        assert shown(frames).keys() == {handles[0], handles[2]}


def _attached(start: Position | None = None) -> StreamChecker:
    checker = StreamChecker()
    checker.attach(start)
    return checker


async def test_a_session_without_items_has_an_empty_snapshot() -> None:
    async with running_gateway({"plugins.enabled": ["replay"]}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        stream = client.stream(session.session_id, SNAPSHOT)
        frames = [await stream.read() for _ in range(2)]
        stream.cancel()

        assert [frame.WhichOneof("frame") for frame in frames] == ["opened", "snapshot_end"]


# After a gap


async def test_a_snapshot_after_a_gap_comes_behind_it_and_never_before() -> None:
    settings = {
        "events__queue_events": 500,
        "plugins__replay__events": 1_024,
        "plugins__replay__seconds": 0.2,
    }
    async with loaded(100, 3_000, **settings) as (gateway, client, session, handles):
        stream = client.stream(session.session_id)
        await read_events(stream, 10)
        stream.cancel()
        await until(lambda: gateway.api.session(session.session_id).oldest_sequence > 1_000, 60)
        start = es.StartPosition(after=e.Position(epoch=session.epoch, sequence=10))
        checker = _attached(Position(session.epoch, 10))
        stream = client.stream(session.session_id, start, on_gap=es.ON_GAP_SNAPSHOT)
        frames = await judged(stream, checker, 300)
        stream.cancel()
        checker.end("CLIENT")
        kinds = [frame.WhichOneof("frame") for frame in frames]

        assert not checker.violations, checker.report()
        assert kinds[:2] == ["opened", "gap"]
        assert kinds.index("snapshot") > kinds.index("gap")
        assert shown(frames).keys() == set(handles)


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [(9_999, e.GAP_REASON_CURSOR_AHEAD), (None, e.GAP_REASON_EPOCH_CHANGED)],
    ids=["ahead", "other epoch"],
)
async def test_on_a_quiet_session_too_the_gap_comes_before_the_snapshot(
    sequence: int | None, reason: e.GapReason.ValueType
) -> None:
    async with loaded(5, 0) as (gateway, client, session, handles):
        stream = client.stream(session.session_id)
        await read_events(stream, 5)
        stream.cancel()
        await until(lambda: gateway.api.session(session.session_id).subscribers == 0)
        position = e.Position(epoch=session.epoch if sequence else bytes(16), sequence=sequence or 3)
        stream = client.stream(session.session_id, es.StartPosition(after=position), on_gap=es.ON_GAP_SNAPSHOT)
        frames = await judged(stream, _attached(Position(position.epoch, position.sequence)), 0)
        stream.cancel()
        kinds = [frame.WhichOneof("frame") for frame in frames]

        assert kinds[1] == "gap"
        assert frames[1].gap.reason == reason
        assert kinds.index("snapshot_end") > 1
        assert shown(frames).keys() == set(handles)


async def test_a_complete_resume_has_no_snapshot_unless_it_is_asked_for() -> None:
    async with loaded(5, 0) as (gateway, client, session, handles):
        start = es.StartPosition(after=e.Position(epoch=session.epoch, sequence=2))
        for with_snapshot in (False, True):
            stream = client.stream(session.session_id, start, on_gap=es.ON_GAP_SNAPSHOT, with_snapshot=with_snapshot)
            frames, sequences = await read_events(stream, 3)

            assert sequences == [3, 4, 5]
            assert not any(frame.HasField("snapshot") for frame in frames)

            if with_snapshot:
                part, end = await stream.read(), await stream.read()

                assert {item.item_handle for item in part.snapshot.items} == set(handles)
                assert end.snapshot_end.position.sequence == 5
            stream.cancel()
            await until(lambda: gateway.api.session(session.session_id).subscribers == 0)


# What can go wrong


@pytest.mark.parametrize(
    ("settings", "hint"),
    [({"plugins__enabled": []}, "need the plugin replay"), ({"plugins__replay__snapshots": False}, "replay")],
    ids=["without the plugin", "switched off"],
)
async def test_where_there_are_no_snapshots_whoever_wants_one_is_refused_and_a_wish_is_passed_over(
    settings: dict[str, object], hint: str
) -> None:
    async with loaded(5, 0, **settings) as (_, client, session, _):
        for fields in ({"start": SNAPSHOT}, {"on_gap": es.ON_GAP_SNAPSHOT}):
            refusal = await refused(client.stream(session.session_id, **fields))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FEATURE_NOT_ENABLED")
            assert refusal.metadata["plugin"] == "replay"
            assert hint in refusal.text
        stream = client.stream(session.session_id, with_snapshot=True)
        _, sequences = await read_events(stream, 5)
        stream.cancel()

        assert sequences == [1, 2, 3, 4, 5]


class OddItems:
    """A filter that lets items with odd handles pass."""

    def keep(self, item: ItemRecord, kind: int) -> bool:
        return item.item_handle % 2 == 1


class Filtering:
    @hookimpl
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> EventFilter:
        return OddItems()


async def test_a_filter_applies_to_snapshots_too(install_plugin: InstallPlugin) -> None:
    install_plugin("odd", Filtering())
    async with loaded(50, 2_000, plugins__enabled=["odd", "replay"]) as (_, client, session, handles):
        oracle = RoundRobin(session.epoch, [(1, h) for h in handles], lambda i, count: expected_value(i + 1, count))
        checker = StreamChecker(oracle, visible=lambda item: item[1] % 2 == 1, permitted=lambda item: item[1] % 2 == 1)
        checker.attach()
        stream = client.stream(session.session_id, SNAPSHOT)
        frames = await judged(stream, checker, 100)
        stream.cancel()
        checker.end("CLIENT")

        assert not checker.violations, checker.report()
        assert checker.unjudged == 0
        assert shown(frames).keys() == {handle for handle in handles if handle % 2}


async def test_a_worker_that_dies_while_its_snapshot_is_fetched_ends_the_stream_with_what_was_unread() -> None:
    async with loaded(5_000, 0, workers__heartbeat_interval_s=60.0) as (_, client, session, _):
        info = await client.sessions.GetWorkerInfo(GetWorkerInfoRequest(session_id=session.session_id))
        psutil.Process(info.pid).suspend()
        start = es.StartPosition(after=e.Position(epoch=session.epoch, sequence=100))
        stream = client.stream(session.session_id, start, with_snapshot=True)

        assert (await stream.read()).HasField("opened")

        psutil.Process(info.pid).kill()
        frames, sequences, end = await read_to_the_end(stream)

        assert end.reason == "WORKER_EXITED"
        assert not any(frame.HasField("snapshot_end") for frame in frames)
        assert sequences == list(range(101, 5_001))
