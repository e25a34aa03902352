"""Every screen as it was reviewed, at 80x24 and 120x40. After a deliberate change: pytest --snapshot-update."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.screens import WrittenSource, app_of, written
from textual.pilot import Pilot
from textual.widgets import Input

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.confirm import ConfirmScreen

SIZES = [(80, 24), (120, 40)]
BY_SIZE = pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40"])


@pytest.fixture(autouse=True)
def _colours_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def keys(*pressed: str) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Press keys and let everything settle, with no cursor blinking."""

    async def run(pilot: Pilot[Any]) -> None:
        await settled(pilot)  # keys are for a screen that shows something
        await pilot.press(*pressed)
        await settled(pilot)
        if pressed == ASKS:
            async with asyncio.timeout(10):
                while not isinstance(pilot.app.screen, ConfirmScreen):
                    await pilot.pause()
            await settled(pilot)

    return run


async def settled(pilot: Pilot[Any]) -> None:
    """Let everything that is under way arrive, and paint it."""
    await pilot.pause()
    await pilot.pause()
    for screen in pilot.app.screen_stack:
        for line in screen.query(Input):
            line.cursor_blink = False
        if isinstance(screen, BaseScreen):
            screen.repaint()
    await pilot.pause()


ASKS = ("ctrl+x",)
NORMAL = {
    "sessions": (),
    "overview": ("2",),
    "journal": ("3",),
    "plugins": ("4",),
    "settings": ("5",),
    "session_items": ("slash", "t", "a", "n", "k", "enter", "enter"),
    "session_events": ("slash", "t", "a", "n", "k", "enter", "enter", "e"),
    "session_subscribers": ("slash", "t", "a", "n", "k", "enter", "enter", "u"),
    "confirm": ASKS,
    "help": ("question_mark",),
}
AT_80X24 = {
    "sessions_ended": ("e",),
    "session_commands": ("slash", "t", "a", "n", "k", "enter", "enter", "m"),
    "session_timeline": ("slash", "t", "a", "n", "k", "enter", "enter", "t"),
    "sessions_by_rate": ("greater_than_sign", "greater_than_sign", "greater_than_sign", "r"),
    "sessions_filtered": ("slash", "t", "a", "n", "k", "enter"),
    "command": ("colon", "p", "l"),
    "frozen": ("space",),
}


@BY_SIZE
@pytest.mark.parametrize("name", NORMAL)
def test_normal(snap_compare: Any, size: tuple[int, int], name: str) -> None:
    assert snap_compare(app_of(written()), terminal_size=size, run_before=keys(*NORMAL[name]))


@pytest.mark.parametrize("name", AT_80X24)
def test_keys(snap_compare: Any, name: str) -> None:
    assert snap_compare(app_of(written()), terminal_size=(80, 24), run_before=keys(*AT_80X24[name]))


@BY_SIZE
@pytest.mark.parametrize("view", ["1", "2"], ids=["sessions", "overview"])
def test_empty(snap_compare: Any, size: tuple[int, int], view: str) -> None:
    assert snap_compare(app_of(written([])), terminal_size=size, run_before=keys(view))


@BY_SIZE
@pytest.mark.parametrize("view", ["1", "2"], ids=["sessions", "overview"])
def test_disconnected(snap_compare: Any, size: tuple[int, int], view: str) -> None:
    source = written()
    source.script = [*source.script, (Link.CUT, "no gateway answers (Connection refused)")]

    async def later(pilot: Pilot[Any]) -> None:
        await keys(view)(pilot)
        source.clock.now += 11
        await settled(pilot)

    assert snap_compare(app_of(source), terminal_size=size, run_before=later)


@BY_SIZE
def test_never_connected(snap_compare: Any, size: tuple[int, int]) -> None:
    source = never(Link.CUT, "no gateway answers (Connection refused)")

    assert snap_compare(app_of(source), terminal_size=size, run_before=keys())


@BY_SIZE
def test_denied(snap_compare: Any, size: tuple[int, int]) -> None:
    source = never(Link.DENIED, "this gateway has no dashboard: enable its plugin dashboard_tui, or give --connect")

    assert snap_compare(app_of(source), terminal_size=size, run_before=keys())


@BY_SIZE
def test_settings_denied_to_a_viewer(snap_compare: Any, size: tuple[int, int]) -> None:
    source = written(role=pb.ROLE_VIEWER)
    source.settings = None

    assert snap_compare(app_of(source), terminal_size=size, run_before=keys("5"))


@BY_SIZE
def test_login(snap_compare: Any, size: tuple[int, int]) -> None:
    source = never(Link.LOGIN, "this gateway wants to know who you are")

    assert snap_compare(app_of(source), terminal_size=size, run_before=keys("a", "n", "n", "a"))


@BY_SIZE
def test_login_refused(snap_compare: Any, size: tuple[int, int]) -> None:
    source = never(Link.LOGIN, "this gateway wants to know who you are")

    assert snap_compare(
        app_of(source), terminal_size=size, run_before=keys("a", "n", "n", "a", "enter", "n", "o", "enter")
    )


def never(link: Link, detail: str) -> WrittenSource:
    """Return a source that never shows anything."""
    source = written()
    source.script = [(link, detail)]
    return source


@pytest.mark.parametrize("view", ["1", "2"], ids=["sessions", "overview"])
def test_light_theme(snap_compare: Any, view: str) -> None:
    assert snap_compare(app_of(written(), theme="light"), terminal_size=(80, 24), run_before=keys(view))


def test_without_colour_everything_is_still_said(snap_compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert snap_compare(app_of(written()), terminal_size=(80, 24), run_before=keys())
