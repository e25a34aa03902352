"""AlarmService against a real gateway and worker: what is active, what happens, and coming back to it."""

from __future__ import annotations

import asyncio

import pytest
from support.alarms import ACK_RTN, FALLBACK, NONE, PRIMARY, UNACK_ALM, Reader, alarm_client, reading, settings
from support.clients import client_of, refused

from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1.event_service_pb2 import ON_GAP_REFUSE, OverflowPolicyChoice, StartPosition
from mxgw.v1.events_pb2 import GAP_REASON_EPOCH_CHANGED, SOURCE_HEALTH_GOOD, Position
from mxgw_core.testing import running_gateway


@pytest.mark.asyncio
async def test_a_stream_begins_with_every_active_alarm_and_goes_on_with_what_happens() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        active = (await client.speaking(PRIMARY)).alarms
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)

            assert reader.states == {a.alarm.reference: UNACK_ALM for a in active}
            assert len(reader.states) == 20

            reference = active[0].alarm.reference
            (result,) = (await client.acknowledge(reference, comment="seen", operator="anna")).results
            await until(lambda r: r.transitions != [])
            alarm = reader.transitions[0].transition.alarm

        assert result.outcome == pb.ACKNOWLEDGE_OUTCOME_ACCEPTED
        assert (alarm.reference, alarm.operator, alarm.comment) == (reference, "anna", "seen")
        assert not reader.transitions[0].transition.reconciled


@pytest.mark.asyncio
async def test_no_client_session_is_open_and_none_is_needed() -> None:
    async with (
        running_gateway(settings(limits__sessions=1)) as gateway,
        alarm_client(gateway.target) as alarms,
        client_of(gateway.target) as client,
    ):
        await alarms.speaking(PRIMARY)
        session = await client.open()  # the one that clients may have
        refusal = await refused(client.open())
        monitor = next(s for s in gateway.api.sessions() if s.client_name == "alarm monitor")

        assert refusal.reason == "SESSION_LIMIT_REACHED"
        assert monitor.owner == ""
        assert session.session_id != monitor.session_id


@pytest.mark.asyncio
async def test_a_position_resumes_without_a_snapshot_and_without_a_hole() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        active = (await client.speaking(PRIMARY)).alarms
        async with reading(client.stream()) as (first, until):
            await until(lambda r: r.snapshots == 1)
        for entry in active[:5]:
            await client.acknowledge(entry.alarm.reference)
        start = StartPosition(after=first.position)
        async with reading(client.stream(start=start)) as (reader, until):
            await until(lambda r: len(r.transitions) == 5)

        assert reader.opened.was_resuming
        assert reader.opened.recovered
        assert (reader.snapshots, reader.gaps) == (0, [])
        assert reader.events[0].sequence == first.position.sequence + 1


@pytest.mark.asyncio
async def test_a_position_of_another_run_is_a_gap_and_then_a_snapshot() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        start = StartPosition(after=Position(epoch=b"x" * 16, sequence=3))
        async with reading(client.stream(start=start)) as (reader, until):
            await until(lambda r: r.snapshots == 1)

        assert [gap.reason for gap in reader.gaps] == [GAP_REASON_EPOCH_CHANGED]
        assert len(reader.states) == 20

        refusal = await refused(client.stream(start=start, on_gap=ON_GAP_REFUSE).read())

        assert refusal.reason == "POSITION_LOST"


@pytest.mark.asyncio
async def test_pages_have_every_alarm_once_in_order_and_a_place_to_follow_from() -> None:
    async with running_gateway(settings(backends__sim__alarms=100)) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        references: list[str] = []
        request = pb.QueryActiveAlarmsRequest(page_size=7)
        while True:
            page = await client.stub.QueryActiveAlarms(request, timeout=60)
            references += [a.alarm.reference for a in page.alarms]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

        assert len(references) == 50
        assert references == sorted(set(references))
        assert page.position.sequence >= 50
        assert (page.provider.provider, page.provider.backend) == (PRIMARY, "sim")


@pytest.mark.asyncio
async def test_filters_hold_for_lists_snapshots_and_events_alike() -> None:
    async with (
        running_gateway(settings(backends__sim__alarms=200)) as gateway,
        alarm_client(gateway.target) as client,
    ):
        everything = (await client.speaking(PRIMARY)).alarms
        wanted = pb.AlarmFilter(areas=["alarms_south"], to_priority=500)
        listed = {a.alarm.reference for a in (await client.query(areas=["alarms_south"], to_priority=500)).alarms}

        assert listed == {
            a.alarm.reference for a in everything if a.alarm.area == "Alarms_South" and a.alarm.priority <= 500
        }

        async with reading(client.stream(filter=wanted)) as (reader, until):
            await until(lambda r: r.snapshots == 1)

            assert set(reader.states) == listed

            chosen = min(listed)
            await client.acknowledge(*[a.alarm.reference for a in everything])
            await until(lambda r: chosen in {e.transition.alarm.reference for e in r.transitions})

        assert {e.transition.alarm.reference for e in reader.transitions} <= listed


@pytest.mark.asyncio
async def test_every_acknowledgement_has_its_own_result() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        active = (await client.speaking(PRIMARY)).alarms
        one, two = (a.alarm.reference for a in active[:2])
        await client.acknowledge(one)
        async with reading(client.stream()) as (_, until):
            await until(lambda r: r.states.get(one, UNACK_ALM) != UNACK_ALM)
        answer = await client.acknowledge(one, two, "No.Such", two)

        assert [result.outcome for result in answer.results] == [
            pb.ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED,
            pb.ACKNOWLEDGE_OUTCOME_ACCEPTED,
            pb.ACKNOWLEDGE_OUTCOME_NOT_ACTIVE,
            pb.ACKNOWLEDGE_OUTCOME_ACCEPTED,
        ]
        assert answer.operator == "local user"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"references": []}, "references"),
        ({"references": ["a"] * 1001}, "references"),
        ({"references": ["a"], "comment": "x" * 201}, "comment"),
        ({"references": ["a"], "operator": "x" * 129}, "operator"),
    ],
)
async def test_an_acknowledgement_that_makes_no_sense_is_refused_by_its_field(
    request_fields: dict[str, object], field: str
) -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        refusal = await refused(client.stub.AcknowledgeAlarm(pb.AcknowledgeAlarmRequest(**request_fields)))

        assert refusal.reason == "INVALID_REQUEST"
        assert refusal.metadata["field"] == field


@pytest.mark.asyncio
async def test_a_quiet_stream_says_that_it_is_alive_and_how_the_source_is() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        stream = client.stream(heartbeat_interval={"seconds": 1})
        async with asyncio.timeout(60):
            async for message in stream:
                if message.HasField("heartbeat"):
                    break
        stream.cancel()

        assert message.heartbeat.source_health == SOURCE_HEALTH_GOOD
        assert len(message.heartbeat.position.epoch) == 16


@pytest.mark.asyncio
async def test_one_more_client_than_allowed_is_told_which_setting() -> None:
    async with running_gateway(settings(maximum_subscribers=2)) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        streams = [client.stream() for _ in range(2)]
        for stream in streams:
            await stream.read()
        refusal = await refused(client.stream().read())
        for stream in streams:
            stream.cancel()

        assert refusal.reason == "EVENT_SUBSCRIBER_LIMIT_REACHED"
        assert refusal.metadata["setting"] == "plugins.alarms.maximum_subscribers"


@pytest.mark.asyncio
async def test_an_overflow_policy_that_nobody_brings_is_refused() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        refusal = await refused(client.stream(policy=OverflowPolicyChoice(name="drop_oldest")).read())

        assert refusal.metadata["field"] == "policy"


@pytest.mark.asyncio
async def test_a_shutdown_tells_streams_to_come_back() -> None:
    reader = Reader()
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        stream = client.stream()

        async def read() -> None:
            async for message in stream:
                reader.take(message)
                if reader.snapshots:
                    gateway.app.stop()

        refusal = await refused(read())

    assert reader.snapshots == 1
    assert refusal.reason == "GATEWAY_DRAINING"
    assert refusal.retry_after_s


@pytest.mark.asyncio
async def test_a_forced_fallback_shows_the_same_alarms_degraded_and_acknowledges_them() -> None:
    async with (
        running_gateway(settings(mode="fallback")) as gateway,
        alarm_client(gateway.target) as client,
    ):
        active = (await client.speaking(FALLBACK)).alarms

        assert len(active) == 20
        assert all(a.alarm.degraded and not a.alarm.stale for a in active)
        assert all(a.alarm.priority for a in active)

        reference = active[0].alarm.reference
        async with reading(client.stream()) as (reader, until):
            (accepted,) = (await client.acknowledge(reference, comment="seen")).results
            await until(lambda r: r.transitions != [])

        assert accepted.outcome == pb.ACKNOWLEDGE_OUTCOME_ACCEPTED
        assert reader.transitions[0].transition.alarm.reference == reference
        assert reader.transitions[0].transition.alarm.state != ACK_RTN


@pytest.mark.asyncio
async def test_before_anybody_speaks_the_list_says_so_and_nothing_can_be_acknowledged() -> None:
    async with (
        running_gateway(settings(backend="broken", backends__broken__kind="nowhere")) as gateway,
        alarm_client(gateway.target) as client,
    ):
        answer = await client.speaking(NONE)

        assert not answer.alarms

        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)

        assert reader.provider == NONE
