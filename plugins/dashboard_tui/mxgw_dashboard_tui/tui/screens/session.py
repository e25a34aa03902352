"""The screen of one session: its items with values, live events, subscribers, running commands, and history."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import ClassVar, TypeVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Static

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.event_rows import EVENT_COLUMNS
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens import session_rows as rows
from mxgw_dashboard_tui.tui.screens.acting import ActingScreen
from mxgw_dashboard_tui.tui.screens.journal import TIMELINE_COLUMNS, journal_row
from mxgw_dashboard_tui.tui.session_model import SessionModel
from mxgw_dashboard_tui.tui.source import NotThere, Refused
from mxgw_dashboard_tui.tui.widgets.grid import Grid

_T = TypeVar("_T")

# How often the list of items is requested again, so that new items appear. New values of known items do not need this
# list, because they arrive as events.
_ITEMS_EVERY_S = 5.0
_RETRY_S = 1.0
# How many messages can be kept while the screen is frozen. When there are more, the oldest messages are dropped, and
# the table of events has no rows for the events in them.
_HELD = 2000
_NOT_THERE = "this session is not there any more, or not yours to see"
_PANELS: dict[str, Callable[[], Grid]] = {
    "items": partial(Grid, rows.ITEM_COLUMNS, empty="No item was added.", sort="item", id="items"),
    "events": partial(Grid, EVENT_COLUMNS, empty="No event came since this was opened.", follow=True, id="events"),
    "readers": partial(Grid, rows.READER_COLUMNS, empty="Nobody reads this session's events.", id="readers"),
    "commands": partial(Grid, rows.COMMAND_COLUMNS, empty="Every command has its answer.", id="commands"),
    "timeline": partial(Grid, TIMELINE_COLUMNS, empty="Nothing was written down.", follow=True, id="timeline"),
}


class SessionScreen(ActingScreen):
    """The screen of one session. It lies on top of the table of sessions; the escape key returns to the table."""

    NAME = "session"
    PAINTS_ALWAYS = True

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="session.back", tooltip="Back to the table, or out of filter and input"),
        Binding("tab", "panel(1)", "Panels", id="session.next", tooltip="The next panel", priority=True),
        Binding("shift+tab", "panel(-1)", "Previous", show=False, id="session.previous", tooltip="The panel before"),
        Binding("i", "show('items')", "Items", show=False, id="session.items", tooltip="Items with their last values"),
        Binding(
            "e",
            "show('events')",
            "Events",
            show=False,
            id="session.events",
            tooltip="Events as they come; the cursor on the last row follows",
        ),
        Binding(
            "u", "show('readers')", "Subscribers", show=False, id="session.readers", tooltip="Who reads its events"
        ),
        Binding(
            "m",
            "show('commands')",
            "Commands",
            show=False,
            id="session.commands",
            tooltip="Commands without an answer yet",
        ),
        Binding("t", "show('timeline')", "Timeline", show=False, id="session.timeline", tooltip="What happened to it"),
    ]

    def __init__(self, session_id: str, name: str) -> None:
        super().__init__()
        self.session_id = session_id
        # The session's name in the table of sessions, shown until the session's details arrive.
        self._known_as = name
        self.model = SessionModel()
        self._panel = "items"
        self._problem = ""
        self._fact_lines = -1
        # One function for each message that arrived while the screen was frozen, in order. The function processes the
        # message.
        self._held: deque[Callable[[], None]] = deque(maxlen=_HELD)

    def compose_body(self) -> ComposeResult:
        yield Static("", id="facts", markup=False)
        yield Static("", id="tabs", markup=False)
        with ContentSwitcher(initial="items", id="panels"):
            yield _PANELS[self._panel]()

    @property
    def grid(self) -> Grid:
        return self.query_one(f"#{self._panel}", Grid)

    @property
    def heading(self) -> str:
        return f"session {self.model.name or self._known_as}"

    @property
    def age_s(self) -> float | None:
        model = self.model
        match self._panel:
            case "items":
                # The shown values are as new as the last message with events or the last list of items.
                received_at = max(filter(None, (model.items_at, model.events_at)), default=None)
            case "events":
                received_at = model.events_at
            case _:
                received_at = model.received_at
        return None if received_at is None else self.dashboard.showing.clock() - received_at

    @property
    def target(self) -> tuple[str, str] | None:
        return (self.session_id, self.model.name) if self.model.detail is not None and not self.model.is_over else None

    def on_mount(self) -> None:
        super().on_mount()
        if self.dashboard.source.is_recording:
            self._problem = "a recording has the tables of sessions only"
            return
        self._follow_detail()
        self._follow_events()
        self._follow_items()

    def forget(self) -> None:
        super().forget()
        self.model = SessionModel()
        self._held.clear()

    # The following methods read streams and lists from the gateway.

    @work(group="detail")
    async def _follow_detail(self) -> None:
        await self._again(self.dashboard.source.watch_session, self._take_detail)

    @work(group="events")
    async def _follow_events(self) -> None:
        await self._again(self.dashboard.source.watch_events, self._take_events)

    def _take_detail(self, detail: pb.WatchSessionResponse, received_at: float) -> None:
        is_first = self.model.detail is None
        self.model.take_detail(detail, received_at)
        self._problem = ""
        if is_first:
            self.repaint_if_shown()

    def _take_events(self, message: pb.WatchEventsResponse, received_at: float) -> None:
        self.model.take_events(message, received_at)

    def _hold(self, take: Callable[[], None]) -> None:
        """Call `take`, which processes a message. While the screen is frozen, `take` is kept and called later."""
        if self.dashboard.showing.frozen_s is None:
            take()
        else:
            self._held.append(take)

    def _thaw(self) -> None:
        while self._held and self.dashboard.showing.frozen_s is None:
            self._held.popleft()()

    async def _again(self, watch: Callable[[str], AsyncIterator[_T]], take: Callable[[_T, float], None]) -> None:
        """Process a stream's messages with `take`. A broken stream is opened again until the session has ended."""
        while not self.model.is_over:
            try:
                async for message in watch(self.session_id):
                    self._hold(partial(take, message, self.dashboard.showing.clock()))
            except NotThere:
                # Clear the screen, because perhaps a right was revoked. A session that has ended stays on the screen.
                if not self.model.is_over:
                    self.forget()
                    self._problem = _NOT_THERE
            except Refused as refusal:
                self._problem = str(refusal)
            await asyncio.sleep(_RETRY_S)

    @work(group="items")
    async def _follow_items(self) -> None:
        while not self.model.is_over:
            # Items are requested only while they are shown, because a request is work for the session's worker.
            if self.is_current and self._panel == "items" and self.dashboard.showing.frozen_s is None:
                await self._load_items()
            await asyncio.sleep(_ITEMS_EVERY_S)

    async def _load_items(self) -> None:
        token = ""
        pages: list[pb.ListItemsResponse] = []
        try:
            while len(pages) < rows.ITEM_PAGES:
                page = await self.dashboard.source.list_items(self.session_id, token)
                pages.append(page)
                token = page.state.next_page_token
                if not token:
                    break
        except NotThere:
            self._problem = _NOT_THERE if not self.model.is_over else ""
        except Refused as refusal:
            self._problem = str(refusal)
        else:
            is_first = self.model.items_at is None
            self.model.take_items(pages, self.dashboard.showing.clock())
            if is_first:
                self.repaint_if_shown()

    # The following methods change the panel.

    async def action_show(self, panel: str) -> None:
        panels = self.query_one("#panels", ContentSwitcher)
        if not panels.query(f"#{panel}"):
            # A panel is created when it is shown for the first time, so that the screen of a session opens quickly.
            await panels.add_content(_PANELS[panel]())
        self._panel = panel
        panels.current = panel
        self.set_focus(self.grid)
        self.repaint()

    async def action_panel(self, step: int) -> None:
        names = tuple(_PANELS)
        await self.action_show(names[(names.index(self._panel) + step) % len(names)])

    def go_back(self) -> None:
        self.app.pop_screen()

    # The following methods paint the screen.

    def paint(self, view: View | None) -> None:
        self._thaw()
        model = self.model
        now = self.dashboard.showing.clock()
        rate = None
        if view is not None and (session := view.session(self.session_id)) is not None:
            rate = session.rate
        facts = rows.session_facts(model, rate, self._problem)
        lines = facts.plain.count("\n")
        self.query_one("#facts", Static).update(facts, layout=lines != self._fact_lines)
        self._fact_lines = lines
        self.query_one("#tabs", Static).update(self._tabs(), layout=False)
        match self._panel:
            case "items":
                self.grid.set_rows(rows.item_row(item, model, now) for item in model.items.values())
            case "events":
                self.grid.set_rows(model.events)
            case "readers" if model.detail is not None:
                head = model.detail.subscribers.head_sequence
                self.grid.set_rows(rows.reader_row(reader, head) for reader in model.detail.subscribers.subscribers)
            case "commands" if model.detail is not None:
                self.grid.set_rows(rows.command_row(n, command) for n, command in enumerate(model.detail.commands))
            case "timeline" if model.detail is not None:
                self.grid.set_rows(map(journal_row, model.detail.timeline))

    def _tabs(self) -> Text:
        model = self.model
        subscribers = len(model.detail.subscribers.subscribers) if model.detail is not None else 0
        names = {
            "items": f"i items {model.total_items}",
            "events": f"e events {t.count(model.event_count)}",
            "readers": f"u subscribers {subscribers}",
            "commands": f"m cmds {len(model.detail.commands) if model.detail is not None else 0}",
            "timeline": "t timeline",
        }
        if self._panel == "events":
            names["events"] += " follows" if self.grid.is_at_end else " held"
        line = Text(no_wrap=True, overflow="ellipsis")
        for key, name in names.items():
            line.append(
                f"[{name}]" if key == self._panel else f" {name} ", "bold reverse" if key == self._panel else ""
            )
            line.append(" ")
        return line
