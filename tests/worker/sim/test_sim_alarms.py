"""Alarms of the simulator: believable lives, and two views of one truth."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mxgw.convert import to_value
from mxgw.v1.alarms_pb2 import (
    ALARM_STATE_ACK_ALM,
    ALARM_STATE_ACK_RTN,
    ALARM_STATE_UNACK_ALM,
    ALARM_STATE_UNACK_RTN,
    Alarm,
)
from mxgw_worker.backends.base import AlarmPublisher, AlarmSource, MxError
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.testing import ManualClock, RecordingSink

LEGAL = {
    ALARM_STATE_UNACK_ALM: {ALARM_STATE_ACK_ALM, ALARM_STATE_UNACK_RTN},
    ALARM_STATE_ACK_ALM: {ALARM_STATE_ACK_RTN},
    ALARM_STATE_UNACK_RTN: {ALARM_STATE_ACK_RTN, ALARM_STATE_UNACK_ALM},
    ALARM_STATE_ACK_RTN: {ALARM_STATE_UNACK_ALM},
}


async def started(**options: object) -> tuple[SimBackend, ManualClock, RecordingSink]:
    clock, sink = ManualClock(), RecordingSink()
    backend = SimBackend({"resolve_delay_s": 0.0, **options}, clock)
    await backend.start(sink)
    return backend, clock, sink


def by_reference(alarms: Iterable[Alarm]) -> dict[str, Alarm]:
    return {alarm.reference: alarm for alarm in alarms}


@pytest.mark.asyncio
async def test_it_has_to_be_asked() -> None:
    backend, _, _ = await started()

    assert isinstance(backend, AlarmSource)
    assert not isinstance(backend, AlarmPublisher)

    await backend.stop()


@pytest.mark.asyncio
async def test_lives_take_legal_steps_at_about_the_rate_and_visit_every_state() -> None:
    backend, clock, _ = await started(alarms=50, alarm_rate=20.0, alarm_share=0.4)
    before = {reference: alarm.state for reference, alarm in by_reference(await backend.active_alarms()).items()}
    steps = 0
    seen: set[int] = set()
    for _ in range(1500):  # 30 s; at most one step between two looks
        clock.advance(0.02)
        for reference, alarm in by_reference(await backend.active_alarms()).items():
            was = before.get(reference, ALARM_STATE_ACK_RTN)
            if alarm.state != was:
                steps += 1

                assert alarm.state in LEGAL[was], (reference, was, alarm.state)
            before[reference] = alarm.state
            seen.add(alarm.state)

    assert seen == set(LEGAL)
    assert 450 < steps < 660
    assert 5 <= sum(state != ALARM_STATE_ACK_RTN for state in before.values()) <= 30

    await backend.stop()


@pytest.mark.asyncio
async def test_records_are_believable() -> None:
    backend, clock, _ = await started(alarms=100, alarm_rate=50.0, alarm_share=0.5)
    clock.advance(5.0)
    alarms = await backend.active_alarms()

    assert all(1 <= alarm.priority <= 999 and alarm.area.startswith("Alarms_") for alarm in alarms)
    assert len({alarm.alarm_id for alarm in alarms}) == len(alarms)
    acked = [alarm for alarm in alarms if alarm.state == ALARM_STATE_ACK_ALM]
    assert acked
    assert all(alarm.operator and alarm.comment and alarm.HasField("ack_time") for alarm in acked)
    assert all(alarm.HasField("raise_time") and alarm.value.double >= alarm.limit.double for alarm in alarms)

    await backend.stop()


@pytest.mark.asyncio
async def test_an_alarm_that_does_not_change_is_the_same_object() -> None:
    backend, _, _ = await started(alarms=2, alarm_rate=0.0, alarm_share=1.0)
    first, second = await backend.active_alarms(), await backend.active_alarms()

    assert all(one is other for one, other in zip(first, second, strict=True))

    await backend.stop()


@pytest.mark.asyncio
async def test_sub_attributes_and_records_tell_one_truth_whoever_acknowledges() -> None:
    backend, clock, sink = await started(alarms=2, alarm_rate=0.0, alarm_share=1.0)
    server = await backend.register("test")
    handles = {}
    for name in ("InAlarm", "Acked", "Priority"):
        handles[name] = await backend.add_item(server, f"Unit_001.T01.{name}")
        await backend.advise_supervisory(server, handles[name])
    clock.advance(0.1)
    values = {event.item: event.value for event in sink.take("data_change")}
    alarm = by_reference(await backend.active_alarms())["Unit_001.T01"]

    assert (values[handles["InAlarm"]], values[handles["Acked"]]) == (True, False)
    assert values[handles["Priority"]] == alarm.priority

    (ack,) = await backend.acknowledge_alarms([alarm.alarm_id], "seen", "anna")
    (again,) = await backend.acknowledge_alarms([alarm.alarm_id], "seen", "anna")
    (unknown,) = await backend.acknowledge_alarms(["?"], "", "")
    clock.advance(0.1)
    alarm = by_reference(await backend.active_alarms())["Unit_001.T01"]

    assert (ack.hresult, again.detail) == (0, 1015)
    assert unknown.hresult < 0
    assert [event.value for event in sink.take("data_change") if event.item == handles["Acked"]] == [True]
    assert (alarm.state, alarm.operator, alarm.comment) == (ALARM_STATE_ACK_ALM, "anna", "seen")

    await backend.stop()


@pytest.mark.asyncio
@pytest.mark.parametrize("control", ["AlarmManagerDown", "PlatformDown"])
async def test_the_alarm_manager_fails_when_it_is_told_to_and_with_the_platform(control: str) -> None:
    backend, clock, _ = await started(controls=True)
    server = await backend.register("test")
    item = await backend.add_item(server, f"Sim.{control}")
    await backend.advise_supervisory(server, item)
    clock.advance(0.1)
    await backend.write(server, item, to_value(True), 0)
    clock.advance(0.1)

    with pytest.raises(MxError, match="down"):
        await backend.active_alarms()
    with pytest.raises(MxError, match="down"):
        await backend.acknowledge_alarms([], "", "")

    await backend.stop()
