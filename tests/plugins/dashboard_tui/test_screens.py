"""Every screen as it was reviewed, at 80x24 and 120x40. After a deliberate change: pytest --snapshot-update.

One run of the app is for both sizes: it is taken at the first, resized, and taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from support.screens import WrittenSource, app_of, at_once, written
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import alarm_service_pb2, alarms_pb2
from mxgw_dashboard_tui.tui.app import DashboardApp
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.questions import ConfirmScreen
from mxgw_dashboard_tui.tui.views import VIEWS

SMALL, LARGE = (80, 24), (120, 40)
RunBefore = Callable[[Pilot[Any]], Awaitable[None]]
# Whether an app looks as it was reviewed, at these sizes, after this was done to it.
AsReviewed = Callable[..., bool]


@pytest.fixture(autouse=True)
def _colours_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


class Taken(App[str]):
    """An app that was run already: gives its picture to whatever runs it to have one."""

    def __init__(self, picture: str, of: DashboardApp) -> None:
        super().__init__()
        self.title = of.title
        self._picture = picture

    def run(self, **_: Any) -> str:
        return self._picture


@pytest.fixture
def as_reviewed(snap_compare: Callable[[App[Any]], bool]) -> AsReviewed:
    """Compare at both sizes, or those that are given."""

    def compare(app: DashboardApp, run_before: RunBefore, sizes: Sequence[tuple[int, int]] = (SMALL, LARGE)) -> bool:
        pictures = asyncio.run(taken(app, run_before, sizes))
        # All of them, so that a change of one size does not hide that of the other, and an update makes both.
        same = [snap_compare(Taken(picture, app)) for picture in pictures]
        return all(same)

    return compare


async def taken(app: DashboardApp, run_before: RunBefore, sizes: Sequence[tuple[int, int]]) -> list[str]:
    pictures = []
    async with app.run_test(size=sizes[0], notifications=True) as pilot:
        await run_before(pilot)
        for size in sizes:
            if app.size != size:
                await pilot.resize_terminal(*size)
                await settled(pilot)
            pictures.append(app.export_screenshot(title=app.title, simplify=True))
    return pictures


def keys(*pressed: str) -> RunBefore:
    """Press keys and let everything settle, with no cursor blinking."""

    async def run(pilot: Pilot[Any]) -> None:
        await settled(pilot)  # keys are for a screen that shows something
        if isinstance(pilot.app.screen, BaseScreen):
            at_once(pilot.app, *pressed)
        else:
            await pilot.press(*pressed)
        await settled(pilot)
        if pressed == ASKS:
            async with asyncio.timeout(60):
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
OPENS_A_SESSION = ("slash", *"tank", "enter", "enter")
NORMAL = {
    "sessions": (),
    "overview": ("2",),
    "journal": ("3",),
    "plugins": ("4",),
    "settings": ("5",),
    "audit": ("6",),
    "alarms": ("7",),
    "session_items": OPENS_A_SESSION,
    "session_events": (*OPENS_A_SESSION, "e"),
    "session_subscribers": (*OPENS_A_SESSION, "u"),
    "confirm": ASKS,
    "help": ("question_mark",),
}
AT_80X24 = {
    "sessions_ended": ("e",),
    "session_commands": (*OPENS_A_SESSION, "m"),
    "session_timeline": (*OPENS_A_SESSION, "t"),
    "sessions_by_rate": ("greater_than_sign", "greater_than_sign", "greater_than_sign", "r"),
    "sessions_filtered": ("slash", "t", "a", "n", "k", "enter"),
    "command": ("colon", "p", "l"),
    "frozen": ("space",),
    "more_columns": ("right",),
    "filtering": ("slash", "t", "a"),
    "alarms_right": ("7", "right"),
}


@pytest.mark.parametrize("name", NORMAL)
def test_normal(as_reviewed: AsReviewed, name: str) -> None:
    assert as_reviewed(app_of(written()), keys(*NORMAL[name]))


@pytest.mark.parametrize("name", AT_80X24)
def test_keys(as_reviewed: AsReviewed, name: str) -> None:
    assert as_reviewed(app_of(written()), keys(*AT_80X24[name]), [SMALL])


VIEW_KEYS = {view.name: (str(number),) for number, view in enumerate(VIEWS, 1)}
# A view, or one session, from its key on.
EVERYTHING = {**VIEW_KEYS, "session": OPENS_A_SESSION}
EVERY_SCREEN = pytest.mark.parametrize("name", EVERYTHING)


@EVERY_SCREEN
def test_empty(as_reviewed: AsReviewed, name: str) -> None:
    source = written(None if name == "session" else [])
    source.audit = [pb.WatchAuditResponse(kept=True)]
    source.alarms = source.alarms[1:2] if source.alarms is not None else None
    source.events = ()
    if name == "session":
        assert source.items is not None
        assert source.detail is not None
        source.items.ClearField("state")
        source.detail.ClearField("timeline")

    assert as_reviewed(app_of(source), keys(*EVERYTHING[name]))


@EVERY_SCREEN
def test_disconnected(as_reviewed: AsReviewed, name: str) -> None:
    source = written()
    source.script = [*source.script, (Link.CUT, "no gateway answers (Connection refused)")]

    async def later(pilot: Pilot[Any]) -> None:
        await keys(*EVERYTHING[name])(pilot)
        source.clock.now += 11
        await settled(pilot)

    assert as_reviewed(app_of(source), later)


@EVERY_SCREEN
def test_denied(as_reviewed: AsReviewed, name: str) -> None:
    """To a viewer: what is for administrators, and a session that is not there for this one any more."""
    source = written(role=pb.ROLE_VIEWER)
    source.settings = source.audit = source.detail = source.items = None

    assert as_reviewed(app_of(source), keys(*EVERYTHING[name]))


def test_alarms_not_enabled(as_reviewed: AsReviewed) -> None:
    source = written()
    source.alarms = None

    assert as_reviewed(app_of(source), keys("7"))


@pytest.mark.parametrize("provider", [alarms_pb2.ALARM_PROVIDER_FALLBACK, alarms_pb2.ALARM_PROVIDER_NONE])
def test_alarms_that_are_not_sure(as_reviewed: AsReviewed, provider: alarms_pb2.AlarmProvider.ValueType) -> None:
    source = written()
    assert source.alarms is not None
    status = source.alarms[1].snapshot_complete.provider
    changed = alarms_pb2.ProviderChanged(current=status, previous=status.provider)
    changed.current.provider, changed.current.detail = provider, "the alarm manager does not answer"
    event = alarms_pb2.AlarmEvent(kind=alarms_pb2.ALARM_EVENT_KIND_PROVIDER_CHANGED, provider_changed=changed)
    batch = alarms_pb2.AlarmBatch(events=[event])
    source.alarms = [*source.alarms, alarm_service_pb2.StreamAlarmsResponse(events=batch)]

    assert as_reviewed(app_of(source), keys("7"))


def test_never_connected(as_reviewed: AsReviewed) -> None:
    source = never(Link.CUT, "no gateway answers (Connection refused)")

    assert as_reviewed(app_of(source), keys())


def test_denied_altogether(as_reviewed: AsReviewed) -> None:
    source = never(Link.DENIED, "this gateway has no dashboard: enable its plugin dashboard_tui, or give --connect")

    assert as_reviewed(app_of(source), keys())


def test_login(as_reviewed: AsReviewed) -> None:
    source = never(Link.LOGIN, "this gateway wants to know who you are")

    assert as_reviewed(app_of(source), keys("a", "n", "n", "a"))


def test_login_refused(as_reviewed: AsReviewed) -> None:
    source = never(Link.LOGIN, "this gateway wants to know who you are")

    assert as_reviewed(app_of(source), keys("a", "n", "n", "a", "enter", "n", "o", "enter"))


def never(link: Link, detail: str) -> WrittenSource:
    """Return a source that never shows anything."""
    source = written()
    source.script = [(link, detail)]
    return source


@pytest.mark.parametrize("view", ["1", "2"], ids=["sessions", "overview"])
def test_light_theme(as_reviewed: AsReviewed, view: str) -> None:
    assert as_reviewed(app_of(written(), theme="light"), keys(view), [SMALL])


def test_without_colour_everything_is_still_said(as_reviewed: AsReviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert as_reviewed(app_of(written()), keys(), [SMALL])
