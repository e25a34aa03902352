"""Losing the platform and getting it back, and the other controls.

Source: docs/reference/mxaccess.md#platform-loss, #missing-completions.
"""

import time

import pytest

from mxgw.convert import to_value
from mxgw.v1.events_pb2 import (
    GAP_REASON_SOURCE_OVERFLOW,
    GAP_REASON_SOURCE_RECONNECTED,
    SOURCE_HEALTH_DEGRADED,
    SOURCE_HEALTH_GOOD,
    SOURCE_HEALTH_LOST,
)

pytestmark = pytest.mark.asyncio

COMMUNICATION = 3


async def control(rig, name: str, value: object) -> None:
    """Write a control attribute, and keep its events out of the test's sight."""
    item = await rig.added(f"Sim.{name}")
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(0.1)
    await rig.backend.write(rig.server, item, to_value(value), 0)
    rig.clock.advance(0.1)
    await rig.backend.remove_item(rig.server, item)
    rig.sink.events = [event for event in rig.sink.events if event.item != item]


async def test_health_is_good_after_start(start, still) -> None:
    rig = await start(**still)

    assert rig.sink.healths == [SOURCE_HEALTH_GOOD]


async def test_controls_do_not_exist_unless_asked_for(start, still) -> None:
    rig = await start(**still)

    assert (await rig.first_events("Sim.PlatformDown"))[-1].detail == 8


async def test_a_killed_platform_makes_every_value_bad_once_and_for_ever(start) -> None:
    rig = await start(controls=True, update_period_s=0.5)
    item = await rig.advised("AppEngine_001.ScanCount")

    await control(rig, "PlatformDown", True)
    rig.clock.advance(600)

    bad = [event for event in rig.sink.take() if event.item == item][-1:]
    assert [(e.success, e.category, e.detail, e.quality, e.value) for e in bad] == [(0, COMMUNICATION, 2, 24, None)]
    assert rig.sink.healths == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST]
    rig.clock.advance(600)
    assert rig.sink.take() == []


async def test_handles_stay_valid_while_the_platform_is_down(start, still) -> None:
    rig = await start(controls=True, **still)
    item = await rig.advised("Bench_001.Count")
    await control(rig, "PlatformDown", True)

    assert await rig.detail(item, 5) == 2
    new = await rig.first_events("Tank_001.Level")
    assert [(event.success, event.detail) for event in new] == [(0, 2)]
    assert (await rig.first_events("Nowhere.Level"))[-1].detail == 2


async def test_the_platform_returns_after_its_delay_initialising_first(start, still) -> None:
    rig = await start(controls=True, recovery_delay_s=60.0, **still)
    await rig.advised("Tank_001.Product")
    await control(rig, "PlatformDown", True)
    never_seen = await rig.added("Tank_001.Capacity")
    await rig.backend.advise(rig.server, never_seen)
    rig.clock.advance(1)
    rig.sink.take()

    await control(rig, "PlatformDown", False)
    rig.clock.advance(50)
    assert rig.sink.take() == []
    rig.clock.advance(20)

    assert rig.sink.healths[-3:] == [SOURCE_HEALTH_LOST, SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD]
    assert [(event.quality, event.detail, event.value) for event in rig.sink.take()] == [
        (32, 1011, None),
        (32, 1011, None),
        (192, 0, "Water"),
        (192, 0, 0.5),
    ]


async def test_a_platform_that_goes_down_again_does_not_recover_early(start, still) -> None:
    rig = await start(controls=True, recovery_delay_s=10.0, **still)
    await control(rig, "PlatformDown", True)
    await control(rig, "PlatformDown", False)
    rig.clock.advance(5)

    await control(rig, "PlatformDown", True)
    rig.clock.advance(30)

    assert rig.sink.healths[-3:] == [SOURCE_HEALTH_LOST, SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_LOST]
    assert (await rig.first_events("Tank_001.Level"))[-1].detail == 2


async def test_going_down_twice_is_told_once(start, still) -> None:
    rig = await start(controls=True, recovery_delay_s=10.0, **still)
    item = await rig.advised("Tank_001.Product")

    for down in (True, False, True, False, True):
        await control(rig, "PlatformDown", down)
    rig.clock.advance(60)

    assert [event.detail for event in rig.sink.take() if event.item == item] == [2]


async def test_what_was_sampled_before_an_outage_is_reported_before_it(start) -> None:
    rig = await start(controls=True, update_period_s=0.5, buffered_interval_ms=60_000)
    item = await rig.advised("AppEngine_001.ScanCount", buffered=True)
    rig.clock.advance(5)

    await control(rig, "PlatformDown", True)

    samples, failure = [event for event in rig.sink.take() if event.item == item]
    assert len(samples.value) == 11
    assert (failure.success, failure.detail, failure.qualities) == (0, 2, (24,))


async def test_an_outage_that_ends_before_all_items_heard_of_it_spares_the_others(start) -> None:
    rig = await start(profile="load", controls=True, items=1_000, rate=0.0, recovery_delay_s=0.0)
    for number in range(1, 1_001):
        await rig.backend.advise(rig.server, await rig.added(f"Load.Item{number:05d}"))
    switch = await rig.advised("Sim.PlatformDown")

    await rig.backend.write(rig.server, switch, to_value(True), 0)
    await rig.backend.write(rig.server, switch, to_value(False), 0)
    rig.clock.advance(1)

    details = [event.detail for event in rig.sink.take("data_change") if event.item != switch]
    assert 0 < details.count(2) < 1_000
    assert details.count(1011) == 1_000


async def test_bringing_up_a_platform_that_is_up_changes_nothing(start, still) -> None:
    rig = await start(controls=True, **still)
    item = await rig.advised("Tank_001.Product")

    await control(rig, "PlatformDown", False)
    rig.clock.advance(60)

    assert rig.sink.healths == [SOURCE_HEALTH_GOOD]
    assert [event for event in rig.sink.take() if event.item == item] == []


async def test_an_item_released_while_an_outage_spreads_hears_nothing_of_it(start) -> None:
    rig = await start(profile="load", controls=True, items=1_000, rate=0.0)
    for number in range(1, 1_001):
        await rig.backend.advise(rig.server, await rig.added(f"Load.Item{number:05d}"))
    switch = await rig.advised("Sim.PlatformDown")
    await rig.backend.write(rig.server, switch, to_value(True), 0)
    rig.clock.stall(0.05)
    rig.clock.turn()
    told = len(rig.sink.events)

    await rig.backend.remove_item(rig.server, 1_000)
    rig.clock.advance(1)

    lost = [event.item for event in rig.sink.take("data_change") if event.item != switch]
    assert told < 1_000
    assert sorted(lost) == list(range(1, 1_000))


async def test_controls_are_reachable_while_the_platform_is_down(start, still) -> None:
    rig = await start(controls=True, **still)
    await control(rig, "PlatformDown", True)

    assert await rig.value("Sim.PlatformDown") is True


async def test_an_outage_reaches_every_item_of_a_large_client(start) -> None:
    rig = await start(profile="load", controls=True, items=1_000, rate=0.0, recovery_delay_s=0.0)
    for number in range(1, 1_001):
        await rig.backend.advise(rig.server, await rig.added(f"Load.Item{number:05d}"))
    rig.clock.advance(0.1)
    rig.sink.take()

    await control(rig, "PlatformDown", True)
    rig.clock.advance(0.1)

    lost = rig.sink.take()
    assert sorted(event.item for event in lost) == list(range(1, 1_001))
    assert {event.detail for event in lost} == {2}


async def test_dropped_completions_go_missing_and_the_writes_happen(start, still) -> None:
    rig = await start(controls=True, **still)
    item = await rig.advised("Bench_001.Count")
    await control(rig, "DropCompletions", 2)

    switch = await rig.advised("Sim.CompletionDelay")
    own = await rig.write(switch, 0.02)
    kinds = [[event.kind for event in await rig.write(item, value)] for value in (1, 2, 3)]

    assert own[0].kind == "write_complete"

    assert kinds == [["data_change"], ["data_change"], ["write_complete", "data_change"]]


async def test_completions_can_be_made_late(start, still) -> None:
    rig = await start(controls=True, **still)
    item = await rig.advised("Bench_001.Count")
    await control(rig, "CompletionDelay", 30.0)

    assert await rig.write(item, 1) == []
    rig.clock.advance(30)
    assert [event.kind for event in rig.sink.take()] == ["write_complete", "data_change"]


async def test_gaps_and_failures_can_be_provoked(start, still) -> None:
    rig = await start(controls=True, **still)

    await control(rig, "Reconnected", 7)
    await control(rig, "Overflowed", 3)
    await control(rig, "Fail", True)

    assert [(reason, count) for reason, _, count in rig.sink.gaps] == [
        (GAP_REASON_SOURCE_RECONNECTED, 7),
        (GAP_REASON_SOURCE_OVERFLOW, 3),
    ]
    assert rig.sink.failures == ["Sim.Fail was written"]
    rig.expected_failures = ["Sim.Fail was written"]


async def test_hang_stops_the_process_for_so_long(start, still) -> None:
    rig = await start(controls=True, **still)
    before = time.monotonic()

    await control(rig, "Hang", 0.2)

    assert time.monotonic() - before >= 0.2
