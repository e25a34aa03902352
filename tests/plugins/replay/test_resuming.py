"""Resuming at a gateway with replay: start places, refusals, and what retention keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.clients import Client, client_of, read_events, refused
from support.waiting import until

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw_core.api.types import Position
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_core.testing.checker import StreamChecker, observed

pytestmark = pytest.mark.asyncio

ITEMS = 100
MIB = 1024 * 1024


@asynccontextmanager
async def loaded(
    rate: float = 0, items: int = ITEMS, **settings: object
) -> AsyncIterator[tuple[RunningGateway, Client, Any]]:
    """Run a gateway with a small log, and a session that has `items` first values in it."""
    keys: dict[str, object] = {
        "plugins.enabled": ["replay"],
        "events.queue_events": 500,
        "events.queue_bytes": MIB,
        "plugins.replay.events": 1_024,
        "plugins.replay.bytes": 2 * MIB,
        "backends.sim.profile": "load",
        "backends.sim.rate": rate,
        "backends.sim.items": 20_000,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    async with running_gateway(keys) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, [f"Load.Item{number:05d}" for number in range(1, items + 1)])
        await until(lambda: head(gateway, session) >= items)
        yield gateway, client, session


def head(gateway: RunningGateway, session: Any) -> int:
    info = gateway.api.session(session.session_id)

    assert info is not None

    return info.head_sequence


def after(sequence: int, epoch: bytes) -> es.StartPosition:
    return es.StartPosition(after=e.Position(epoch=epoch, sequence=sequence))


async def more(client: Client, session: Any, first: int, last: int) -> None:
    """Make one event of each further item."""
    names = [f"Load.Item{number:05d}" for number in range(first, last + 1)]
    for start in range(0, len(names), 200):
        await client.subscribe(session.session_id, names[start : start + 200], 1)


async def begun(client: Client, session: Any, start: es.StartPosition | None = None, **fields: Any) -> tuple[Any, Any]:
    """Return a stream and its StreamOpened."""
    stream = client.stream(session.session_id, start, **fields)
    frame = await stream.read()

    assert frame.HasField("opened")

    return stream, frame.opened


async def left(gateway: RunningGateway, session: Any, stream: Any) -> None:
    """Leave a stream, and return once the gateway knows."""
    stream.cancel()
    await until(lambda: gateway.api.session(session.session_id).subscribers == 0)


@pytest.mark.parametrize("position", [0, 1, 57, 99, 100])
async def test_what_is_after_a_position_comes_whole(position: int) -> None:
    async with loaded() as (gateway, client, session):
        stream, _ = await begun(client, session)
        await read_events(stream, ITEMS)
        await left(gateway, session, stream)
        stream, opened = await begun(client, session, after(position, session.epoch))
        frames, sequences = await read_events(stream, ITEMS - position)
        stream.cancel()

        assert (opened.was_resuming, opened.recovered) == (True, True)
        assert (opened.from_sequence, opened.head_sequence, opened.oldest_sequence) == (position, 100, 1)
        assert sequences == list(range(position + 1, ITEMS + 1))
        assert all(frame.HasField("events") for frame in frames)


async def test_a_log_that_holds_too_little_says_exactly_what_is_lost_first() -> None:
    async with loaded() as (gateway, client, session):
        stream, _ = await begun(client, session)
        await read_events(stream, 50)
        await left(gateway, session, stream)
        await more(client, session, 101, 3_000)
        await until(lambda: head(gateway, session) == 3_000)
        checker = StreamChecker()
        checker.attach(Position(session.epoch, 50))
        stream = client.stream(session.session_id, after(50, session.epoch))
        while checker.position is None or checker.position.sequence < 3_000:
            for observation in observed(await stream.read()):
                checker.observe(observation)
        stream.cancel()
        checker.end("CLIENT")
        checker.finish(3_000)
        oldest = gateway.api.session(session.session_id).oldest_sequence

        assert not checker.violations, checker.report()
        assert checker.gaps == 1
        assert checker.lost_events == oldest - 1 - 50
        # At least what is set is kept; an entry goes only whole.
        assert 1_024 <= 3_000 - oldest + 1 <= 1_024 + 1_024


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"plugins__replay__events": 1_500}, range(1_500, 2_525)),
        ({"plugins__replay__events": 10_000, "plugins__replay__bytes": 2 * MIB}, range(2_500, 10_001)),
    ],
    ids=["events", "all of it"],
)
async def test_retention_keeps_at_least_what_is_set(settings: dict[str, object], kept: range) -> None:
    async with loaded(**settings) as (gateway, client, session):
        stream, _ = await begun(client, session)
        await left(gateway, session, stream)
        await more(client, session, 101, 3_000)
        await until(lambda: head(gateway, session) == 3_000)
        info = gateway.api.session(session.session_id)

        assert info.head_sequence - info.oldest_sequence + 1 in kept


async def test_retention_forgets_what_is_older_than_its_seconds() -> None:
    async with loaded(plugins__replay__seconds=300) as (gateway, client, session):
        stream, _ = await begun(client, session)
        await left(gateway, session, stream)
        # What is forgotten goes in pieces of about a thousand events.
        await more(client, session, 101, 1_100)
        await until(lambda: head(gateway, session) == 1_100)

        assert gateway.api.session(session.session_id).oldest_sequence == 1

        kept = gateway.app.gateway._registry.get(session.session_id).distributor.log
        now = kept.clock
        kept.clock = lambda: now() + 301
        await more(client, session, 1_101, 1_101)
        await until(lambda: gateway.api.session(session.session_id).oldest_sequence > 500)
        stream, opened = await begun(client, session, after(40, session.epoch))
        gap = (await stream.read()).gap
        stream.cancel()

        assert not opened.recovered
        assert (gap.first_lost, gap.last_lost) == (41, opened.oldest_sequence - 1)
        assert gap.reason == e.GAP_REASON_RING_EVICTED


# Each bad position has its own reason


async def test_a_position_ahead_of_the_head_is_never_caught_up() -> None:
    async with loaded() as (_, client, session):
        stream, opened = await begun(client, session, after(5_000, session.epoch))
        gap = (await stream.read()).gap
        await more(client, session, 101, 103)
        _, sequences = await read_events(stream, 3)
        stream.cancel()

        assert (opened.was_resuming, opened.recovered, opened.from_sequence) == (True, False, 100)
        assert (gap.reason, gap.first_lost, gap.last_lost, gap.count) == (e.GAP_REASON_CURSOR_AHEAD, 0, 0, 0)
        assert "ahead of the newest event (100)" in gap.detail
        assert sequences == [101, 102, 103]


async def test_a_position_of_an_epoch_nobody_knows_is_a_gap_and_then_all_that_is_held() -> None:
    async with loaded() as (_, client, session):
        stream, opened = await begun(client, session, after(70, bytes(16)))
        gap = (await stream.read()).gap
        _, sequences = await read_events(stream, ITEMS)
        stream.cancel()

        assert (opened.epoch, opened.recovered) == (session.epoch, False)
        assert (gap.epoch, gap.reason) == (session.epoch, e.GAP_REASON_EPOCH_CHANGED)
        assert sequences == list(range(1, 101))


@pytest.mark.parametrize("other_lives", [True, False])
async def test_a_position_of_another_session_is_refused(other_lives: bool) -> None:
    async with loaded() as (_, client, session):
        other = await client.open()
        if not other_lives:
            await client.close(other.session_id)
        refusal = await refused(client.stream(session.session_id, after(3, other.epoch)))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "POSITION_FOREIGN")
        assert refusal.metadata["field"] == "start.after"


@pytest.mark.parametrize("epoch", [b"", b"x", bytes(15), bytes(17), bytes(1000)], ids=len)
async def test_a_malformed_position_is_refused_by_the_field(epoch: bytes) -> None:
    async with loaded() as (_, client, session):
        refusal = await refused(client.stream(session.session_id, after(3, epoch)))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert refusal.metadata["field"] == "start.after.epoch"
        assert "unchanged" in refusal.text


# What the client wants when a resume cannot be complete


async def with_too_little_kept(gateway: RunningGateway, client: Client, session: Any) -> None:
    stream, _ = await begun(client, session)
    await left(gateway, session, stream)
    await more(client, session, 101, 3_000)
    await until(lambda: head(gateway, session) == 3_000)


async def test_who_asked_for_it_is_refused_rather_than_given_less() -> None:
    async with loaded() as (gateway, client, session):
        await with_too_little_kept(gateway, client, session)
        info = gateway.api.session(session.session_id)
        refusal = await refused(client.stream(session.session_id, after(50, session.epoch), on_gap=es.ON_GAP_REFUSE))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "POSITION_LOST")
        assert refusal.metadata == {
            "epoch": session.epoch.hex(),
            "oldest_sequence": str(info.oldest_sequence),
            "head_sequence": "3000",
        }
        assert "raise its retention, or resume sooner" in refusal.text

        stream, opened = await begun(
            client, session, after(info.oldest_sequence - 1, session.epoch), on_gap=es.ON_GAP_REFUSE
        )
        stream.cancel()

        assert opened.recovered


@pytest.mark.parametrize("position", [Position(bytes(16), 3), Position(b"", 5_000)], ids=["other epoch", "ahead"])
async def test_refusing_holds_for_every_incomplete_resume(position: Position) -> None:
    async with loaded() as (_, client, session):
        epoch = position.epoch or session.epoch
        start = after(position.sequence, epoch)
        refusal = await refused(client.stream(session.session_id, start, on_gap=es.ON_GAP_REFUSE))

        assert refusal.reason == "POSITION_LOST"


@pytest.mark.parametrize("on_gap", [es.ON_GAP_UNSPECIFIED, es.ON_GAP_DELIVER_RETAINED])
async def test_the_default_is_to_deliver_what_is_held(on_gap: es.OnGap.ValueType) -> None:
    async with loaded() as (gateway, client, session):
        await with_too_little_kept(gateway, client, session)
        stream, opened = await begun(client, session, after(50, session.epoch), on_gap=on_gap)
        gap = (await stream.read()).gap
        frame = await stream.read()
        stream.cancel()

        # The opening stands in front of the gap, so that who is cut here is told again.
        assert (opened.from_sequence, opened.recovered) == (50, False)
        assert (gap.first_lost, gap.last_lost) == (51, opened.oldest_sequence - 1)
        assert gap.count == gap.last_lost - gap.first_lost + 1
        assert frame.events.events[0].sequence == opened.oldest_sequence


async def test_every_resume_is_counted_by_whether_it_was_complete() -> None:
    async with loaded() as (gateway, client, session):
        for sequence in (10, 20, 5_000):
            stream, _ = await begun(client, session, after(sequence, session.epoch))
            await left(gateway, session, stream)
        from mxgw.v1.session_service_pb2 import ListSubscribersRequest

        answer = await client.sessions.ListSubscribers(ListSubscribersRequest(session_id=session.session_id))
        counted = {c.labels["recovered"]: c.value for c in answer.counters if c.name == "mxgw_resume_total"}

        assert counted == {"true": 2, "false": 1}


async def test_a_start_from_now_is_no_resume() -> None:
    async with loaded() as (_, client, session):
        stream, opened = await begun(client, session, es.StartPosition(now=Empty()))
        await more(client, session, 101, 102)
        _, sequences = await read_events(stream, 2)
        stream.cancel()

        assert (opened.was_resuming, opened.from_sequence) == (False, 100)
        assert sequences == [101, 102]
