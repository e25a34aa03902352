"""What the app does when keys are pressed and things happen; on a written source, with a clock that stands still."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.access import is_private
from support.screens import WrittenSource, app_of, at_once, plant, row, snapshot, written
from textual import events
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api.globs import _places
from mxgw_dashboard_tui.tui.app import DashboardApp
from mxgw_dashboard_tui.tui.commands import find
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.login import LoginScreen
from mxgw_dashboard_tui.tui.screens.questions import ConfirmScreen
from mxgw_dashboard_tui.tui.screens.session import SessionScreen
from mxgw_dashboard_tui.tui.views import VIEWS
from mxgw_dashboard_tui.tui.widgets.bars import TopBar, banner_text
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Grid, Row
from mxgw_dashboard_tui.tui.widgets.keyline import KeyLine

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def shown(source: WrittenSource) -> AsyncIterator[tuple[DashboardApp, Pilot[Any]]]:
    """Run the app without a terminal until the source has said everything."""
    app = app_of(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        yield app, pilot


async def settled(pilot: Pilot[Any]) -> None:
    await pilot.pause()
    if isinstance(pilot.app.screen, BaseScreen):
        pilot.app.screen.repaint()
    await pilot.pause()


def names(app: DashboardApp) -> list[str]:
    return [row.cells["name"].text for row in app.screen.query_one(Grid).rows]


async def test_a_filter_narrows_an_exclamation_mark_inverts_and_escape_brings_all_back() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("slash", *"line", "enter")
        line = names(app)
        await pilot.press("slash", "home", "exclamation_mark", "enter")
        others = names(app)
        await pilot.press("escape")

        assert line == ["historian line 1", "mes batch"]  # its tag is line2
        assert len(others) == 4
        assert len(names(app)) == 6


async def test_the_enter_behind_a_filters_enter_opens_what_the_filter_left() -> None:
    async with shown(written()) as (app, pilot):
        at_once(app, "slash", *"lab", "enter", "enter")
        await settled(pilot)

        assert isinstance(app.screen, SessionScreen)
        assert app.screen.session_id.startswith("lab-import")


async def test_a_filter_typed_behind_the_key_that_opens_a_session_is_the_sessions() -> None:
    async with shown(written()) as (app, pilot):
        at_once(app, "enter", "slash", *"level", "enter", "e", "k")
        await settled(pilot)
        screen = app.screen

        assert isinstance(screen, SessionScreen)
        assert screen.query_one("#items", Grid).pattern == "level"
        assert screen.grid.id == "events"
        assert screen.grid.has_focus


async def test_a_key_behind_the_one_that_shows_a_view_is_for_the_view() -> None:
    async with shown(written()) as (app, pilot):
        at_once(app, "3", "k", "1", "j", "3", "slash", *"mes")
        await settled(pilot)

        assert app.current_mode == "journal"
        assert app.screen.query_one("#line", Input).value == "mes"
        await pilot.press("enter", "1")
        assert app.screen.query_one(Grid).cursor == 1
        assert app.screen.query_one(Grid).pattern == ""


async def test_a_view_that_was_shown_before_wears_the_theme_chosen_since() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("3")
        dark = app.screen.query_one(Grid).styles.background
        at_once(app, "1", "colon", *"theme", "enter")
        await settled(pilot)
        light = app.screen.query_one(Grid).styles.background
        await pilot.press("3")
        await settled(pilot)

        assert app.current_mode == "journal"
        assert app.screen.query_one(Grid).styles.background == light
        assert light != dark


async def test_what_is_typed_behind_the_key_that_asks_for_a_name_is_the_answer() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter")
        at_once(app, "ctrl+x", "q", "1")
        await settled(pilot)

        assert isinstance(app.screen, ConfirmScreen)
        assert app.screen.query_one(Input).value == "q1"


@pytest.mark.parametrize(("opens", "typed"), [("slash", "tank"), ("colon", "quit")])
async def test_what_is_typed_quickly_behind_the_key_of_an_input_is_for_the_input(opens: str, typed: str) -> None:
    async with shown(written()) as (app, pilot):
        at_once(app, opens, *typed)
        await settled(pilot)

        line = app.screen.query_one("#line", Input)

        assert line.value == typed
        assert app.is_running

        await pilot.press("x")

        assert line.value == f"{typed}x"


async def test_in_a_filter_only_the_star_and_the_question_mark_are_special() -> None:
    async with shown(written()) as (app, _):
        grid = app.screen.query_one(Grid)
        found = {}
        for pattern in ("LINE", "his*ne 1", "li?e 1", "!line", "(", "[a-z]", "l.ne", "(h|m)", "*", "!", "a" * 500):
            grid.filter(pattern)
            found[pattern] = len(names(app))

        assert found == {
            "LINE": 2,
            "his*ne 1": 1,
            "li?e 1": 1,
            "!line": 4,
            "(": 0,
            "[a-z]": 0,
            "l.ne": 0,
            "(h|m)": 0,
            "*": 6,
            "!": 6,
            "a" * 500: 0,
        }


async def test_no_filter_takes_more_steps_than_it_has_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    class Counting(dict[str, int]):
        def get(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]
            nonlocal asked
            asked += 1
            return super().get(key, default)

    monkeypatch.setattr("mxgw_core.api.globs._places", lambda text: Counting(_places(text)))
    text = "a" * 5000
    async with shown(written()) as (app, _):
        grid = app.screen.query_one(Grid)
        grid.set_rows([Row(key="one", cells={"name": Cell(text)})])
        asked = 0
        grid.filter("(a*)*(a*)*a*a*a*a*b")

        assert asked <= len("*(a*)*(a*)*a*a*a*a*b*")
        assert not grid.rows


async def test_every_column_that_is_shown_can_be_sorted_by() -> None:
    async with shown(written()) as (app, pilot):
        grid = app.screen.query_one(Grid)
        seen = []
        for _ in grid.shown_columns():
            await pilot.press("greater_than_sign")
            seen.append(grid.sort_key)
            rows = [r.cells[grid.sort_key] for r in grid.rows]
            order = [cell.order if cell.order is not None else cell.text.lower() for cell in rows]

            assert order == sorted(order)  # type: ignore[type-var]

        assert set(seen) == {column.key for column in grid.shown_columns()}


async def test_the_cursor_stays_on_its_session_while_rows_change_their_order() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        grid = app.screen.query_one(Grid)
        grid.sort("rate", reverse=True)
        await pilot.press("home", "down")
        marked = grid.current
        assert marked is not None
        sessions = plant(30)
        sessions.reverse()
        app.snapshot_arrived(snapshot(30, [*sessions, row("a newcomer", 8, seconds=30, rate=9999)]))
        await settled(pilot)

        assert grid.current is not None
        assert grid.current.key == marked.key


async def test_freezing_stops_the_picture_and_not_the_gateways_news() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("space")
        app.snapshot_arrived(snapshot(20, [row("somebody new", 7)]))
        await settled(pilot)
        frozen = names(app)
        await pilot.press("space")
        await settled(pilot)

        assert len(frozen) == 6
        assert names(app) == ["somebody new"]


async def test_closing_asks_for_the_name_and_does_nothing_for_another_one() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "ctrl+x")
        await pilot.press(*"hmi", "enter")

        assert isinstance(app.screen, ConfirmScreen)
        assert source.done == []

        app.screen.query_one(Input).value = "hmi tank farm"
        await pilot.press("enter")
        await settled(pilot)

    assert [what for what, _ in source.done] == ["close"]


async def test_a_name_that_cannot_be_typed_is_confirmed_by_the_id() -> None:
    assert ConfirmScreen("Close", "abcdefghijkl", "日本語").word == "abcdefgh"
    assert ConfirmScreen("Close", "abcdefghijkl", "line 4").word == "line 4"


async def test_escape_is_no() -> None:
    source = written()
    async with shown(source) as (_, pilot):
        await pilot.press("ctrl+k", "escape")
        await settled(pilot)

    assert source.done == []


async def test_a_viewer_has_no_key_that_changes_anything() -> None:
    source = written(role=pb.ROLE_VIEWER)
    async with shown(source) as (app, pilot):
        await pilot.press("ctrl+x")
        await pilot.press("ctrl+k")

        assert not isinstance(app.screen, ConfirmScreen)
        assert {"close_session", "kill_worker"}.isdisjoint(
            active.binding.action for active in app.screen.active_bindings.values()
        )


async def test_what_the_gateway_refuses_is_said() -> None:
    source = written()
    source.refusal = "no session has this id"
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "ctrl+x")
        app.screen.query_one(Input).value = "hmi tank farm"
        await pilot.press("enter")
        await settled(pilot)

        assert "no session has this id" in [notice.message for notice in app._notifications]


async def test_the_password_leaves_the_screen_before_the_gateway_is_asked() -> None:
    source = written()
    source.script = [(Link.LOGIN, "who are you")]
    source.password = "correct horse"
    async with shown(source) as (app, pilot):
        login = app.screen
        assert isinstance(login, LoginScreen)
        seen: list[str] = []

        async def watching(user: str, password: str) -> None:
            seen.append(login.query_one("#password", Input).value)
            await WrittenSource.login(source, user, password)

        source.login = watching  # type: ignore[method-assign,assignment]
        login.query_one("#user", Input).value = "anna"
        field = login.query_one("#password", Input)
        field.focus()
        field.value = "wrong"
        await pilot.press("enter")
        await settled(pilot)

        assert app.screen is login

        field.value = "correct horse"
        await pilot.press("enter")
        await settled(pilot)

        assert seen == ["", ""]
        assert not isinstance(app.screen, LoginScreen)
        assert source.done == [("login", "anna")]


async def test_a_password_typed_faster_than_the_screen_never_stands_behind_the_name() -> None:
    source = written()
    source.script = [(Link.LOGIN, "who are you")]
    source.password = "secret"
    async with shown(source) as (app, pilot):
        name = app.screen.query_one("#user", Input)
        # As from one read of the terminal: all are there before the first is looked at.
        for key in (*"anna", "enter", *"secret", "enter"):
            name.post_message(events.Key(key, key if len(key) == 1 else "\r"))
        await settled(pilot)
        await settled(pilot)

        assert name.value == "anna"
        assert source.done == [("login", "anna")]


async def test_export_writes_what_is_shown_as_json_lines_for_the_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(written()) as (_, pilot):
        await pilot.press("slash", *"line", "enter", "x")
        await settled(pilot)
    is_for_its_owner_only, documents = exported(tmp_path)

    assert is_for_its_owner_only
    assert [each["session"]["client_name"] for each in documents] == ["historian line 1", "mes batch"]


def exported(directory: Path) -> tuple[bool, list[Any]]:
    (file,) = directory.glob("mxgw-sessions-*.jsonl")
    return is_private(file), [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_command_is_found_by_its_beginning_and_an_unknown_one_is_said() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("colon", *"plug", "enter")
        await settled(pilot)

        assert app.current_mode == "plugins"

        await pilot.press("colon", *"nonsense", "enter")
        await settled(pilot)

        assert any("nonsense" in notice.message for notice in app._notifications)


async def test_events_that_come_while_frozen_are_there_after_the_thaw() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "enter")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        before = screen.model.event_count
        await pilot.press("e", "space")
        screen._hold(lambda: screen.model.take_events(source.events[0], 0.0))
        await settled(pilot)
        frozen = screen.model.event_count
        await pilot.press("space")
        await settled(pilot)

        assert frozen == before
        assert screen.model.event_count == before + 20


async def test_values_of_items_come_with_events_between_two_lists() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "enter")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        event = pb.WatchEventsResponse()
        event.events.add(sequence=2000, item_serial=1, item_handle=1, kind=1).data_change.value.double = 77.5
        screen.model.take_events(event, 0.0)
        await settled(pilot)
        values = {r.cells["item"].text: r.cells["value"].text for r in screen.grid.rows}

        assert values["Tank_001.Level"] == "77.5"


@pytest.mark.parametrize(
    ("link", "age_s", "says"),
    [
        (Link.CUT, 12.0, "CONNECTION CUT: what you see is 12s old"),
        (Link.CUT, None, "nothing to show yet"),
        (Link.DENIED, None, "DENIED: why"),
        (Link.LOGIN, 3.0, "NOT LOGGED IN"),
        (Link.LIVE, 2.6, "NO NEWS: what you see is 2.6s old"),
        (Link.REPLAY, 0.1, "REPLAY"),
    ],
)
async def test_the_banner_says_what_is_wrong(link: Link, age_s: float | None, says: str) -> None:
    async with shown(written()) as (app, _):
        view = app.showing.newest if age_s is not None else None

    assert says in banner_text(link, "why", view, age_s)


async def test_the_banner_is_silent_while_all_is_well() -> None:
    async with shown(written()) as (app, _):
        assert not banner_text(Link.LIVE, "", app.showing.newest, 0.9)


async def test_news_that_come_later_and_later_are_called_behind() -> None:
    source = written()
    async with shown(source) as (app, _):
        source.clock.now += 20  # this machine's clock goes on, what comes was true long ago
        app.snapshot_arrived(snapshot(13))

        assert "BEHIND" in banner_text(Link.LIVE, "", app.showing.newest, 0.1)


async def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    async with shown(written([])) as (app, pilot):
        widgets = len(list(app.screen.walk_children()))
        for second in range(20, 60):
            app.snapshot_arrived(snapshot(second, [row(f"session {second + n}", n, seconds=second) for n in range(9)]))
            if second % 10 == 0:
                await pilot.press("down", "enter")
                await settled(pilot)
                await pilot.press("escape")
            await settled(pilot)

        assert len(list(app.screen.walk_children())) == widgets
        assert len(app.showing._model._tracks) == 9
        assert {worker.group for worker in app.workers} == {"source"}


async def test_columns_without_room_are_one_key_away_and_the_first_two_stay() -> None:
    async with shown(written()) as (app, pilot):
        grid = app.screen.query_one(Grid)
        seen = [[column.key for column in grid.shown_columns()]]
        for _ in range(5):
            await pilot.press("right")
            seen.append([column.key for column in grid.shown_columns()])
        await pilot.press("left", "left", "left", "left", "left", "left")

        assert {key for keys in seen for key in keys} == {column.key for column in grid.columns}
        assert all(keys[:2] == ["state", "name"] for keys in seen)
        assert seen[-1] == seen[-2]
        assert [column.key for column in grid.shown_columns()] == seen[0]


async def test_sessions_that_ended_stand_below_the_live_ones_in_every_order() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("e")
        for key in ("r", "greater_than_sign", "greater_than_sign"):
            await pilot.press(key)

            assert names(app)[-1].startswith("pump tuning")


async def test_the_event_log_says_whether_it_follows() -> None:
    async with shown(written()) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "enter", "e")
        await settled(pilot)
        following = tabs(app)
        await pilot.press("k")
        await settled(pilot)
        held = tabs(app)
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        marked = screen.grid.current
        screen._take_events(pb.WatchEventsResponse(events=[{"sequence": 5000, "kind": 1}]), 0.0)
        await settled(pilot)
        after = screen.grid.current
        await pilot.press("G")
        await settled(pilot)

        assert "follows" in following
        assert "held" in held
        assert marked is not None
        assert after is not None
        assert after.key == marked.key
        assert "follows" in tabs(app)


def tabs(app: DashboardApp) -> str:
    return str(app.screen.query_one("#tabs", Static).render())


async def test_panels_of_a_session_say_how_old_they_are_each_for_itself() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "enter")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        source.clock.now += 30
        assert source.detail is not None
        screen._take_detail(source.detail, source.clock.now)
        ages = {}
        for key, panel in (("e", "events"), ("u", "readers"), ("i", "items")):
            await pilot.press(key)
            ages[panel] = screen.age_s

        assert {panel: round(age or 0) for panel, age in ages.items()} == {"events": 30, "readers": 0, "items": 30}


async def test_a_session_that_is_not_to_be_seen_any_more_leaves_nothing_on_the_screen() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("slash", *"tank", "enter", "enter")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        before = len(screen.grid.rows)
        source.detail = None
        screen._follow_detail()
        await pilot.pause(0.05)
        await settled(pilot)

        assert before > 0
        assert not screen.grid.rows
        assert "not yours to see" in str(screen.query_one("#facts", Static).render())


async def test_nothing_of_one_login_is_left_for_the_next() -> None:
    source = written()
    source.password = "battery staple"
    async with shown(source) as (app, pilot):
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("1", "slash", *"tank", "enter", "enter")
        await settled(pilot)
        source.settings = source.detail = source.items = None
        app.link_changed(Link.LOGIN, "your login is over: log in again")
        await settled(pilot)
        behind = app.screen_stack[0]

        assert isinstance(app.screen, LoginScreen)
        assert len(app.screen_stack) == 2
        assert not behind.query_one(Grid).rows
        assert app.showing.newest is None

        app.screen.query_one("#user", Input).value = "vera"
        app.screen.query_one("#password", Input).focus()
        await pilot.press(*source.password, "enter")
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)

        assert not app.screen.query_one(Grid).rows
        assert "administrator" in app.screen.query_one(Grid).empty


async def test_logging_out_is_a_command_and_a_refusal_is_said() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("colon", *"logout", "enter")
        await settled(pilot)
        source.refusal = "nobody is logged in: this gateway asks for no login"
        await pilot.press("colon", *"logout", "enter")
        await settled(pilot)

        assert source.done == [("logout", "")]
        assert source.refusal in [notice.message for notice in app._notifications]


async def test_the_audit_log_is_followed_only_while_it_is_looked_at() -> None:
    async with shown(written()) as (app, pilot):
        before = {worker.group for worker in app.workers}
        await pilot.press("6")
        await settled(pilot)
        rows = app.screen.query_one(Grid).rows
        looking = {worker.group for worker in app.workers}
        await pilot.press("1")
        await settled(pilot)
        after = {worker.group for worker in app.workers if not worker.is_finished}

        assert [row.cells["decision"].text for row in rows] == ["allowed", "allowed", "denied", "denied", "denied"]
        assert "audit" not in before
        assert "audit" in looking
        assert "audit" not in after


async def test_the_age_goes_on_below_a_question() -> None:
    source = written()
    async with shown(source) as (app, pilot):
        await pilot.press("ctrl+x")
        await settled(pilot)
        assert isinstance(app.screen, ConfirmScreen)
        source.clock.now += 50
        below = app.screen_stack[-2]
        assert isinstance(below, BaseScreen)
        below.repaint_if_shown()

        assert "as of 50s ago" in str(below.query_one(TopBar).render())


async def test_views_are_one_table_that_keys_commands_and_help_come_from() -> None:
    keys = {binding.key: binding.action for binding in DashboardApp.BINDINGS if isinstance(binding, Binding)}

    for number, view in enumerate(VIEWS, 1):
        assert keys[str(number)] == f"mode('{view.name}')"
        assert find(view.name) == view.name
    async with shown(written()) as (app, pilot):
        for number, view in enumerate(VIEWS, 1):
            await pilot.press(str(number))

            assert view.name == app.screen.NAME  # type: ignore[attr-defined]


async def test_the_last_key_of_an_administrators_line_has_room_on_80_columns() -> None:
    async with shown(written()) as (app, pilot):
        lines = [str(app.screen.query_one(KeyLine).render())]
        await pilot.press("slash", *"tank", "enter", "enter")
        await settled(pilot)
        lines.append(str(app.screen.query_one(KeyLine).render()))

        assert all(line.endswith("q Quit") and len(line) <= 80 for line in lines), lines


async def test_every_binding_has_an_id_and_a_tooltip() -> None:
    classes = [DashboardApp, Grid, *_subclasses(BaseScreen), *_subclasses(ModalScreen)]
    bindings = [
        (each.__name__, binding)
        for each in classes
        if each.__module__.startswith("mxgw_dashboard_tui")
        for binding in vars(each).get("BINDINGS", ())
    ]

    assert len(bindings) > 30
    assert not [(name, binding.key) for name, binding in bindings if not binding.id or not binding.tooltip]
    assert len({binding.id for _, binding in bindings}) == len(bindings)


def _subclasses(base: type[Any]) -> list[type[Any]]:
    return [base, *(found for each in base.__subclasses__() for found in _subclasses(each))]


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return set(done.stdout.split())


async def test_the_gateways_side_imports_no_textual_and_neither_do_options_and_help() -> None:
    everything = (
        "import mxgw_dashboard_tui as d, mxgw_dashboard_tui.command, mxgw_dashboard_tui.service.service\n"
        "p = d.DashboardPlugin(); p.mxgw_cli(); p.mxgw_settings()"
    )

    assert "textual" not in modules_after(everything)
