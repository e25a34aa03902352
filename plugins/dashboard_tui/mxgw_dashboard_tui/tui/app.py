"""The textual app of the dashboard: its modes, keys and theme.

A source (source.py) delivers gateway reports in a task of its own. Each report becomes a view, and the screens repaint
from the newest view.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual import events, work
from textual.app import App
from textual.binding import Binding, BindingType

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.commands import COMMANDS, DashboardCommands, find, names
from mxgw_dashboard_tui.tui.messages import LinkChanged, ViewChanged
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.recording import Recorder
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.help import HelpScreen
from mxgw_dashboard_tui.tui.screens.login import LoginScreen
from mxgw_dashboard_tui.tui.screens.session import SessionScreen
from mxgw_dashboard_tui.tui.showing import Showing
from mxgw_dashboard_tui.tui.source import Refused, Source
from mxgw_dashboard_tui.tui.views import VIEWS, view_bindings
from mxgw_dashboard_tui.tui.widgets.grid import Grid
from mxgw_dashboard_tui.tui.widgets.line import Line

_THEMES = {"dark": "textual-dark", "light": "textual-light"}
# The longest delay before textual first paints a screen. Textual's default of 50 ms would be felt as slow.
_SWITCH_S = 0.005


class DashboardApp(App[None]):
    """Shows the gateway reports of a source. `clock` is monotonic, `wall` is the wall clock, both in seconds."""

    TITLE = "mxgw"
    CSS_PATH = "dashboard.tcss"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]
    NOTIFICATION_TIMEOUT = 3
    COMMANDS: ClassVar = {DashboardCommands}
    ENABLE_COMMAND_PALETTE = True
    MODES: ClassVar = {view.name: view.screen for view in VIEWS}
    DEFAULT_MODE = VIEWS[0].name

    BINDINGS: ClassVar[list[BindingType]] = [
        *view_bindings(),
        Binding("space", "freeze", "Freeze", key_display="spc", id="freeze", tooltip="Stop or go on with repainting"),
        Binding("question_mark", "help", "Help", key_display="?", id="help", tooltip="Keys and commands"),
        Binding("q,ctrl+c", "quit", "Quit", id="quit", tooltip="Leave the dashboard"),
    ]

    def __init__(
        self,
        source: Source,
        *,
        user: str = "",
        theme: str = "dark",
        recorder: Recorder | None = None,
        alarm_rows: int = 1000,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.source = source
        self.showing = Showing(clock, wall, f"connecting to {source.name}")
        self.command_names = names()
        # The largest number of the plant's alarms that the alarm screen shows.
        self.alarm_rows = alarm_rows
        self._user = user
        self._recorder = recorder
        self._role = pb.ROLE_UNSPECIFIED
        self.theme = _THEMES[theme]

    # The following methods handle the reports of the source.

    def on_mount(self) -> None:
        self._run_source()

    @work(group="source")
    async def _run_source(self) -> None:
        await self.source.run(self)

    def link_changed(self, link: Link, detail: str) -> None:
        """Post the new state of the connection to the app. The source calls this method, see `Listener`."""
        self.post_message(LinkChanged(link, detail))

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        """Write a gateway report to the recording, if there is one, and post the report's view to the app.

        The source calls this method, see `Listener`.
        """
        if self._recorder is not None:
            self._recorder.snapshot(snapshot)
        self.post_message(ViewChanged(self.showing.take(snapshot)))

    def on_link_changed(self, message: LinkChanged) -> None:
        self.showing.link, self.showing.link_detail = message.link, message.detail
        if message.link is not Link.LOGIN:
            return
        # Perhaps another person logs in next, so nothing that was shown must stay on the screen.
        self.showing.forget()
        while len(self.screen_stack) > 1 and not isinstance(self.screen, LoginScreen):
            self.screen.dismiss(None)
        if isinstance(self.screen, BaseScreen):
            self.screen.repaint()
            self.push_screen(LoginScreen(self.source, self._user, message.detail))

    def on_view_changed(self, message: ViewChanged) -> None:
        # The footer shows only the keys that the operator's role allows.
        if message.view.snapshot.role != self._role:
            self._role = message.view.snapshot.role
            self.refresh_bindings()

    # The following methods handle keys and commands.

    async def on_event(self, event: events.Event) -> None:
        """Finish handling one key before the next key is handled.

        Textual sends a key to the focused widget, and looks for a binding of the key only when the widget passes it
        back. A second key that follows quickly would therefore be sent to the same widget, although the first key
        perhaps moves the focus or opens another screen. So this method runs the binding of a key itself.
        """
        if isinstance(event, events.Key) and not event.is_forwarded:
            self.app_focus = True
            focused = self.focused
            if isinstance(focused, Line) and focused.take(event.character):
                return
            if isinstance(focused, Grid | Line):
                active = self.screen.active_bindings.get(event.key)
                if active is not None and active.enabled:
                    await self.run_action(active.binding.action, active.node)
                    return
        await super().on_event(event)

    def delay_update(self, delay: float = _SWITCH_S) -> None:
        super().delay_update(min(delay, _SWITCH_S))

    def action_freeze(self) -> None:
        self.showing.freeze()

    async def action_mode(self, mode: str) -> None:
        await self.switch_mode(mode)

    async def action_help(self) -> None:
        bindings = [active.binding for active in self.screen.active_bindings.values() if active.binding.id]
        await self.push_screen(HelpScreen(bindings, [(command.name, command.meaning) for command in COMMANDS]))

    @work(exclusive=True, group="logout")
    async def _logout(self) -> None:
        try:
            await self.source.logout()
        except Refused as refusal:
            self.notify(str(refusal), severity="warning", markup=False)

    async def open_session(self, session_id: str, name: str) -> None:
        """Open the screen of one session. A frozen display becomes live, because the new screen has no older data."""
        self.showing.thaw()
        await self.push_screen(SessionScreen(session_id, name))

    async def run_command(self, text: str) -> None:
        """Run the command that an operator typed in the `:` line or chose in the palette."""
        match find(text):
            case None:
                self.notify(f"no command {text!r}; ? shows them", severity="warning", markup=False)
            case "freeze":
                self.action_freeze()
            case "theme":
                self.theme = _THEMES["light" if self.theme == _THEMES["dark"] else "dark"]
            case "logout":
                self._logout()
            case "help":
                await self.action_help()
            case "quit":
                self.exit()
            case mode if mode is not None:
                await self.switch_mode(mode)
