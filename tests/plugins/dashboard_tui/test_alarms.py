"""The screen of the plant's alarms: what is kept of a stream, what is shown, and what acknowledging does."""

from __future__ import annotations

from typing import Any

import pytest
from support.screens import EPOCH_NS, WrittenSource, app_of, plant_alarms, written
from textual.pilot import Pilot
from textual.widgets import Input

from mxgw.dashboard.v1 import dashboard_service_pb2 as dashboard_pb
from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1 import alarms_pb2 as a
from mxgw_dashboard_tui.tui.plant_alarms import PlantAlarms
from mxgw_dashboard_tui.tui.screens.alarms import outcome_text
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.questions import AcknowledgeScreen
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Grid, Row


def shown(messages: list[pb.StreamAlarmsResponse]) -> PlantAlarms:
    plant = PlantAlarms()
    plant.begin()
    for message in messages:
        plant.take(message)
    return plant


def changed(provider: a.AlarmProvider.ValueType, unwatched: int = 0) -> pb.StreamAlarmsResponse:
    change = a.ProviderChanged(current=a.ProviderStatus(provider=provider), unwatched_alarms=unwatched)
    return pb.StreamAlarmsResponse(events=a.AlarmBatch(events=[a.AlarmEvent(provider_changed=change)]))


def test_a_snapshot_counts_once_it_is_complete_and_forgets_what_is_not_in_it() -> None:
    frames = plant_alarms(EPOCH_NS)
    plant = shown(frames)
    plant.begin()
    plant.take(pb.StreamAlarmsResponse(snapshot=a.AlarmSnapshot(alarms=frames[0].snapshot.alarms[:1])))

    assert len(plant.active) == 6

    plant.changed.clear()
    plant.take(frames[1])

    assert set(plant.active) == {"Tank_001.Level"}
    assert len(plant.changed) == 6


def test_part_of_a_snapshot_that_was_cut_is_not_mixed_with_the_next() -> None:
    frames = plant_alarms(EPOCH_NS)
    plant = shown(frames[:1])
    plant.begin()
    plant.take(frames[1])

    assert plant.active == {}


def test_an_alarm_that_is_over_goes_and_is_told_of() -> None:
    plant = shown(plant_alarms(EPOCH_NS))

    assert "Tank_003.Level" not in plant.active
    assert [news.text.split(":")[0] for news in plant.news] == [
        "▲ raised",
        "✓ acknowledged by vera",
        "▽ returned to normal, over",
    ]


def test_another_provider_marks_everything_and_asks_anew_where_some_are_watched_by_nobody() -> None:
    plant = shown(plant_alarms(EPOCH_NS))

    assert plant.take(changed(a.ALARM_PROVIDER_FALLBACK))
    assert all(alarm.degraded and not alarm.stale for alarm in plant.active.values())
    assert plant.take(changed(a.ALARM_PROVIDER_NONE))
    assert all(alarm.stale for alarm in plant.active.values())
    assert not plant.take(changed(a.ALARM_PROVIDER_FALLBACK, unwatched=1))


def test_failures_of_acknowledging_are_said_with_their_reason() -> None:
    fine = pb.AcknowledgeResult(reference="A", outcome=pb.ACKNOWLEDGE_OUTCOME_ACCEPTED)
    denied = pb.AcknowledgeResult(
        reference="B", outcome=pb.ACKNOWLEDGE_OUTCOME_DENIED, message="this caller may not write the item"
    )

    assert outcome_text([fine]) == ("A", True)
    assert outcome_text([fine, denied]) == ("B denied: this caller may not write the item", False)


def test_a_grid_with_a_limit_shows_the_first_by_its_order_and_counts_the_others() -> None:
    grid = Grid((), empty="", sort="n", limit=2)
    grid.set_rows(Row(str(n), {"n": Cell(str(n), order=float(n))}) for n in (3, 1, 2, 4))

    assert [row.key for row in grid.rows] == ["1", "2"]
    assert grid.left_out == 2

    grid.filter("4")

    assert ([row.key for row in grid.rows], grid.left_out) == (["4"], 0)


async def on_the_screen(pilot: Pilot[Any], *keys: str) -> None:
    await settled(pilot)
    await pilot.press("7")
    await settled(pilot)  # keys are for a list that is there
    await pilot.press(*keys)
    await settled(pilot)


async def settled(pilot: Pilot[Any]) -> None:
    for _ in range(2):
        await pilot.pause()
        if isinstance(pilot.app.screen, BaseScreen):
            pilot.app.screen.repaint()
    await pilot.pause()


def accepting(*references: str) -> WrittenSource:
    source = written()
    source.acknowledged = pb.AcknowledgeAlarmResponse(
        results=[
            pb.AcknowledgeResult(reference=reference, outcome=pb.ACKNOWLEDGE_OUTCOME_ACCEPTED)
            for reference in references
        ]
    )
    return source


@pytest.mark.asyncio
async def test_marked_alarms_are_acknowledged_together_with_one_comment() -> None:
    source = accepting("Pump_001.Trip", "Tank_001.Level")
    async with app_of(source).run_test(size=(80, 24)) as pilot:
        await on_the_screen(pilot, "m", "m", "a")

        assert isinstance(pilot.app.screen, AcknowledgeScreen)

        pilot.app.screen.query_one(Input).value = "seen"
        await pilot.press("enter")
        await settled(pilot)

    assert [done for done in source.done if done[0] == "acknowledge"] == [
        ("acknowledge", "Pump_001.Trip,Tank_001.Level: seen")
    ]


@pytest.mark.asyncio
async def test_escape_acknowledges_nothing() -> None:
    source = accepting("Pump_001.Trip")
    async with app_of(source).run_test(size=(80, 24)) as pilot:
        await on_the_screen(pilot, "a")
        await pilot.press("escape")
        await settled(pilot)

    assert not [done for done in source.done if done[0] == "acknowledge"]


@pytest.mark.asyncio
async def test_a_viewer_is_not_asked_for_a_comment() -> None:
    async with app_of(written(role=dashboard_pb.ROLE_VIEWER)).run_test(size=(80, 24)) as pilot:
        await on_the_screen(pilot, "a")

        assert not isinstance(pilot.app.screen, AcknowledgeScreen)
        assert any("administrator" in note.message for note in pilot.app._notifications)


@pytest.mark.asyncio
async def test_a_frozen_list_of_alarms_grows_old_and_does_not_change() -> None:
    source = written()
    async with app_of(source).run_test(size=(80, 24)) as pilot:
        await on_the_screen(pilot, "space")
        source.clock.now += 30
        await settled(pilot)
        screen = pilot.app.screen

        assert isinstance(screen, BaseScreen)
        assert (screen.age_s or 0) >= 30
        assert len(screen.grid.rows) == 6
