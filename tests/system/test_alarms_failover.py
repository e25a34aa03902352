"""The provider dies and comes back while clients look on: told once each way, and no false transition."""

from __future__ import annotations

import os
import signal

import pytest
from support.alarms import (
    FALLBACK,
    NONE,
    PRIMARY,
    UNACK_ALM,
    alarm_client,
    control,
    reading,
    settings,
)
from support.waiting import until as waited

from mxgw.v1 import alarm_service_pb2 as pb
from mxgw_core.testing import RunningGateway, running_gateway


@pytest.mark.asyncio
async def test_an_alarm_manager_that_dies_and_returns_is_one_switch_each_way_and_no_false_transition() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        active = [a.alarm.reference for a in (await client.speaking(PRIMARY)).alarms]
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            before = dict(reader.states)
            await control(gateway, "AlarmManagerDown", True)
            await until(lambda r: r.provider == FALLBACK)

            # What happens meanwhile is told, by the fallback.
            await client.acknowledge(active[0], comment="while it was away")
            await until(lambda r: len(r.transitions) == 1)
            (while_away,) = reader.transitions

            await control(gateway, "AlarmManagerDown", False)
            await until(lambda r: r.provider == PRIMARY)
            # And what happens afterwards, by the primary.
            await client.acknowledge(active[1], comment="since it is back", operator="anna")
            await until(lambda r: r.events[-1].transition.alarm.reference == active[1])

        assert reader.providers == [FALLBACK, PRIMARY]
        assert while_away.transition.alarm.degraded
        touched = {e.transition.alarm.reference for e in reader.transitions}
        assert touched == {active[0], active[1]}
        assert not reader.events[-1].transition.alarm.degraded
        assert {r: s for r, s in reader.states.items() if r not in touched} == {
            r: s for r, s in before.items() if r not in touched
        }
        assert reader.gaps == []


@pytest.mark.asyncio
async def test_under_a_storm_the_list_of_a_client_is_the_plants_again_after_both_switches() -> None:
    async with (
        running_gateway(settings(backends__sim__alarms=200, backends__sim__alarm_rate=200.0)) as gateway,
        alarm_client(gateway.target) as client,
    ):
        await client.speaking(PRIMARY)
        # The reader itself makes sure that no transition contradicts what it knew.
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            await control(gateway, "AlarmManagerDown", True)
            await until(lambda r: r.provider == FALLBACK)
            await until(lambda r: any(e.transition.alarm.degraded for e in r.transitions))
            await control(gateway, "AlarmManagerDown", False)
            await until(lambda r: r.provider == PRIMARY)
            seen = len(reader.transitions)
            await until(lambda r: len(r.transitions) > seen + 50)
            listed = await client.query(page_size=1000)
            await until(lambda r: r.events[-1].sequence >= listed.position.sequence)
            states = {a.alarm.reference: a.alarm.state for a in listed.alarms}
            for event in reader.transitions:  # what came after the list was made
                if event.sequence > listed.position.sequence:
                    states[event.transition.alarm.reference] = event.transition.alarm.state

            assert {r: s for r, s in states.items() if s != 4} == reader.states

        assert reader.providers == [FALLBACK, PRIMARY]
        assert [e.sequence for e in reader.events] == list(
            range(reader.events[0].sequence, reader.events[-1].sequence + 1)
        )


@pytest.mark.asyncio
async def test_less_failures_than_the_setting_announce_nothing() -> None:
    overrides = settings(failures_before_switch=100)
    async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            await control(gateway, "AlarmManagerDown", True)
            await control(gateway, "AlarmManagerDown", False)
            entry = (await client.query()).alarms[0]
            await client.acknowledge(entry.alarm.reference)
            await until(lambda r: len(r.transitions) == 1)

        assert reader.providers == []


@pytest.mark.asyncio
async def test_a_forced_primary_that_is_away_leaves_everything_stale_and_nothing_cleared() -> None:
    async with running_gateway(settings(mode="primary")) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            await control(gateway, "AlarmManagerDown", True)
            await until(lambda r: r.provider == NONE)
            listed = (await client.query()).alarms

            assert len(listed) == 20
            assert all(a.alarm.stale for a in listed)

            answer = await client.acknowledge(listed[0].alarm.reference)

            assert answer.results[0].outcome == pb.ACKNOWLEDGE_OUTCOME_FAILED

            await control(gateway, "AlarmManagerDown", False)
            await until(lambda r: r.provider == PRIMARY)

        assert reader.providers == [NONE, PRIMARY]
        assert reader.transitions == []
        assert not any(a.alarm.stale for a in (await client.query()).alarms)


@pytest.mark.asyncio
async def test_a_killed_worker_is_replaced_and_alarms_are_stale_in_between() -> None:
    # No alarm changes by itself, and each worker's plant raises the same ones: only their time is another.
    async with (
        running_gateway(settings(restart_first_s=0.5)) as gateway,
        alarm_client(gateway.target) as client,
    ):
        await client.speaking(PRIMARY)
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            before = dict(reader.states)
            os.kill(_worker_of_monitor(gateway), signal.SIGKILL)
            await until(lambda r: r.provider == NONE)

            assert all(a.alarm.stale for a in (await client.query()).alarms)

            await until(lambda r: r.provider == PRIMARY)
            await until(lambda r: len(r.transitions) == 20)

        assert reader.providers == [NONE, PRIMARY]
        assert reader.states == before
        # They were raised anew by the new worker: true, found by comparing, and nothing was cleared.
        assert all(e.transition.reconciled for e in reader.transitions)
        assert {e.transition.alarm.state for e in reader.transitions} == {UNACK_ALM}


@pytest.mark.asyncio
async def test_the_monitors_worker_may_be_killed_and_another_session_takes_its_place() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        (first,) = [s.session_id for s in gateway.api.sessions()]
        os.kill(_worker_of_monitor(gateway), signal.SIGKILL)
        await waited(lambda: [s.session_id for s in gateway.api.sessions()] not in ([], [first]))
        await client.speaking(PRIMARY)


@pytest.mark.asyncio
async def test_a_worker_that_stands_still_blocks_nobody_and_is_replaced() -> None:
    overrides = settings(answer_timeout_s=0.2, workers__heartbeat_interval_s=0.4)
    async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        async with reading(client.stream()) as (reader, until):
            await until(lambda r: r.snapshots == 1)
            os.kill(_worker_of_monitor(gateway), signal.SIGSTOP)

            assert len((await client.query()).alarms) == 20

            await until(lambda r: r.provider == NONE)
            await until(lambda r: r.provider == PRIMARY)

        assert set(reader.states.values()) == {UNACK_ALM}
        assert len(reader.states) == 20


def _worker_of_monitor(gateway: RunningGateway) -> int:
    (pid,) = [s.worker_pid for s in gateway.api.sessions() if s.client_name == "alarm monitor"]
    return pid
