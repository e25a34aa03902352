"""The client against a real gateway with real workers and the simulated plant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from mxgw.convert import PyValue
from mxgw_client import (
    DataChange,
    DataType,
    Draining,
    Gateway,
    Heartbeat,
    Session,
    Start,
    WriteComplete,
    WriteFailed,
    after,
    connect,
    errors,
)
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_worker.platform import HeldProcess

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def running() -> AsyncIterator[RunningGateway]:
    async with running_gateway({"events.heartbeat_interval_s": 1.0}) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def gateway(running: RunningGateway) -> AsyncIterator[Gateway]:
    async with connect(running.target) as connected:
        yield connected


@pytest_asyncio.fixture
async def session(gateway: Gateway) -> AsyncIterator[Session]:
    async with gateway.open_session(client_name="test") as opened:
        yield opened


VALUES: list[tuple[str, PyValue, DataType | None]] = [
    ("Bench_001.Flag", True, None),
    ("Bench_001.Count", -7, None),
    ("Bench_001.Ratio", 0.5, DataType.FLOAT),
    ("Bench_001.Amount", 1234.5, None),
    ("Bench_001.Text", "grüße", None),
    ("Bench_001.Moment", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), None),
    ("Bench_001.Span", timedelta(minutes=90), None),
    ("Bench_001.Amounts[]", [1.0, 2.5], None),
    ("Bench_001.Texts[]", ["a", "b", "c"], None),
]


async def test_values_of_every_kind_are_written_and_read_back(session: Session) -> None:
    subscription = await session.subscribe(*(reference for reference, _, _ in VALUES), supervisory=True)
    assert all(reading.ok for reading in await session.read_bulk([reference for reference, _, _ in VALUES]))

    for reference, value, data_type in VALUES:
        await session.write(subscription[reference], value, wait=True, data_type=data_type)
    await subscription.close()
    readings = await session.read_bulk([reference for reference, _, _ in VALUES])

    assert [reading.value for reading in readings] == [value for _, value, _ in VALUES]
    assert all(reading.is_good for reading in readings)


async def test_a_write_is_found_again_among_the_events(session: Session) -> None:
    (item,) = (await session.subscribe("Bench_001.Count", supervisory=True)).items
    await session.read("Bench_001.Count")
    result = await session.write(item, 99)

    async with asyncio.timeout(60):
        async for event in session.events():
            if isinstance(event, WriteComplete):
                assert (event.write_id, event.reference, event.ok) == (result.write_id, "Bench_001.Count", True)
                break


async def test_one_write_to_a_tag_that_is_subscribed_already_needs_no_second_first_value(session: Session) -> None:
    async with await session.subscribe("Bench_001.Count", supervisory=True):
        await session.read("Bench_001.Count")
        for value in range(20):
            await session.write_once("Bench_001.Count", value)

        assert (await session.read("Bench_001.Count")).value == 19


async def test_a_secured_attribute_refuses_a_plain_write_with_advice(session: Session) -> None:
    with pytest.raises(WriteFailed, match="needs write_secured") as raised:
        await session.write_once("Bench_001.SecuredWrite", 5)

    assert raised.value.statuses[0].detail == 1012


async def test_a_wrong_name_fails_late_as_the_status_of_a_data_change(session: Session) -> None:
    await session.subscribe("Nothing_001.Here")
    async with asyncio.timeout(60):
        async for event in session.events():
            if isinstance(event, DataChange) and not event.ok:
                assert event.reference == "Nothing_001.Here"
                assert not event.is_good
                break


async def test_everything_since_advise_arrives_without_a_hole(session: Session) -> None:
    references = [node.reference async for node in session.browse("Tank_001") if node.reference]
    assert len(references) > 5
    await session.subscribe(*references)
    sequences, good = [], set()
    async with asyncio.timeout(60):
        async for event in session.events(start=Start.OLDEST):
            if isinstance(event, DataChange):
                sequences.append(event.sequence)
                if event.is_good:
                    good.add(event.reference)
            if good == set(references):
                break

    assert sequences == list(range(1, len(sequences) + 1))


async def test_a_reader_comes_back_after_its_position(session: Session) -> None:
    await session.subscribe("Tank_001.Level")
    async with session.events() as events, asyncio.timeout(60):
        async for item in events:
            if isinstance(item, DataChange):
                break
        place = events.position
    assert place is not None
    async with session.events(start=after(place)) as events, asyncio.timeout(60):
        assert events.opened is not None
        assert events.opened.was_resuming
        async for item in events:
            assert not isinstance(item, DataChange) or item.sequence > place.sequence
            if isinstance(item, DataChange):
                break


async def test_a_killed_worker_ends_the_stream_and_the_session(session: Session) -> None:
    async with session.events() as events:
        worker = HeldProcess((await session.worker_info()).pid)
        worker.kill()
        worker.close()
        async with asyncio.timeout(60):
            with pytest.raises(errors.WorkerExited) as ended:
                async for _ in events:
                    pass

    assert not ended.value.resumable
    with pytest.raises((errors.SessionEnded, errors.SessionNotFound)):
        await session.read("Tank_001.Level")


async def test_a_second_reader_is_refused(session: Session) -> None:
    async with session.events():
        with pytest.raises(errors.SubscriberExists):
            await session.events().open()


async def test_an_unknown_backend_is_refused_by_name(gateway: Gateway) -> None:
    with pytest.raises(errors.UnknownBackend, match="nothing"):
        async with gateway.open_session(backend="nothing"):
            pass


async def test_a_quiet_stream_has_heartbeats(session: Session) -> None:
    async with asyncio.timeout(60):
        async for item in session.events():
            if isinstance(item, Heartbeat):
                assert item.source_health.name == "GOOD"
                break


async def test_a_gateway_that_goes_says_so(running: RunningGateway, session: Session) -> None:
    async with session.events(resume=None) as events, asyncio.timeout(60):
        await anext(events)
        running.app.stop()

        assert isinstance(await anext(events), Draining)

        with pytest.raises(errors.GatewayDraining) as ended:
            await anext(events)

    assert ended.value.resumable


async def test_another_program_can_attach_to_the_session(gateway: Gateway, session: Session) -> None:
    await session.subscribe("Tank_001.Level")
    async with gateway.attach_session(session.session_id) as attached, asyncio.timeout(60):
        assert attached.server_handle == session.server_handle
        async for event in attached.events():
            if isinstance(event, DataChange):
                assert event.reference == "Tank_001.Level"
                break
    assert (await session.info()).state.name == "READY"


async def test_a_handle_that_is_used_again_keeps_the_names_apart(session: Session) -> None:
    first = await session.subscribe("Bench_001.Count")
    await session.read("Bench_001.Count")
    await first.close()
    second = await session.subscribe("Bench_001.Text")
    await session.read("Bench_001.Text")
    names = []
    async with asyncio.timeout(60):
        async for event in session.events():
            if isinstance(event, DataChange) and event.is_good:
                names.append((event.reference, type(event.value)))
            if len(names) == 2:
                break

    assert names == [("Bench_001.Count", int), ("Bench_001.Text", str)]
    assert len(second) == 1
