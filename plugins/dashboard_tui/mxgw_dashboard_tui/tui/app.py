"""The app: modes, keys, theme; the connection runs beside it and the screens repaint from the newest view."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.commands import COMMANDS, DashboardCommands, find, names
from mxgw_dashboard_tui.tui.messages import LinkChanged, ViewChanged
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.recording import Recorder
from mxgw_dashboard_tui.tui.screens.help import HelpScreen
from mxgw_dashboard_tui.tui.screens.journal import JournalScreen
from mxgw_dashboard_tui.tui.screens.login import LoginScreen
from mxgw_dashboard_tui.tui.screens.overview import OverviewScreen
from mxgw_dashboard_tui.tui.screens.plugins import PluginsScreen
from mxgw_dashboard_tui.tui.screens.session import SessionScreen
from mxgw_dashboard_tui.tui.screens.sessions import SessionsScreen
from mxgw_dashboard_tui.tui.screens.settings import SettingsScreen
from mxgw_dashboard_tui.tui.showing import Showing
from mxgw_dashboard_tui.tui.source import Source

_THEMES = {"dark": "textual-dark", "light": "textual-light"}


class DashboardApp(App[None]):
    """Shows a source. `clock` is monotonic seconds; it and `wall` can be stopped for tests."""

    TITLE = "mxgw"
    CSS_PATH = "dashboard.tcss"
    COMMANDS: ClassVar = {DashboardCommands}
    ENABLE_COMMAND_PALETTE = True
    MODES: ClassVar = {
        "sessions": SessionsScreen,
        "overview": OverviewScreen,
        "journal": JournalScreen,
        "plugins": PluginsScreen,
        "settings": SettingsScreen,
    }
    DEFAULT_MODE = "sessions"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "mode('sessions')", "Views", key_display="1-5", id="mode.sessions", tooltip="All sessions"),
        Binding("2", "mode('overview')", "Overview", id="mode.overview", tooltip="Alarms, rates, losses", show=False),
        Binding("3", "mode('journal')", "Journal", id="mode.journal", tooltip="What happened", show=False),
        Binding("4", "mode('plugins')", "Plugins", id="mode.plugins", tooltip="Which plugins run", show=False),
        Binding("5", "mode('settings')", "Settings", id="mode.settings", tooltip="The settings", show=False),
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
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.source = source
        self.showing = Showing(clock, wall, f"connecting to {source.name}")
        self.command_names = names()
        self._user = user
        self._recorder = recorder
        self._role = pb.ROLE_UNSPECIFIED
        self.theme = _THEMES[theme]

    # what comes in

    def on_mount(self) -> None:
        self._run_source()

    @work(group="source")
    async def _run_source(self) -> None:
        await self.source.run(self)

    def link_changed(self, link: Link, detail: str) -> None:
        """See `Listener`."""
        self.post_message(LinkChanged(link, detail))

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        """See `Listener`."""
        if self._recorder is not None:
            self._recorder.snapshot(snapshot)
        self.post_message(ViewChanged(self.showing.take(snapshot)))

    def on_link_changed(self, message: LinkChanged) -> None:
        self.showing.link, self.showing.link_detail = message.link, message.detail
        if message.link is Link.LOGIN and not isinstance(self.screen, LoginScreen):
            self.push_screen(LoginScreen(self.source, self._user, message.detail))

    def on_view_changed(self, message: ViewChanged) -> None:
        # The footer shows what the role allows.
        if message.view.snapshot.role != self._role:
            self._role = message.view.snapshot.role
            self.refresh_bindings()

    # keys and commands

    def action_freeze(self) -> None:
        self.showing.freeze()

    def action_mode(self, mode: str) -> None:
        self.switch_mode(mode)

    def action_help(self) -> None:
        bindings = [active.binding for active in self.screen.active_bindings.values() if active.binding.id]
        self.push_screen(HelpScreen(bindings, [(name, meaning) for name, meaning, _ in COMMANDS]))

    def open_session(self, session_id: str) -> None:
        """Look at one session in depth; ends a freeze, because nothing of it was there to be frozen."""
        self.showing.thaw()
        self.push_screen(SessionScreen(session_id))

    def run_command(self, text: str) -> None:
        """Carry out a command of the `:` line or the palette."""
        match find(text):
            case None:
                self.notify(f"no command {text!r}; ? shows them", severity="warning", markup=False)
            case "freeze":
                self.action_freeze()
            case "theme":
                self.theme = _THEMES["light" if self.theme == _THEMES["dark"] else "dark"]
            case "help":
                self.action_help()
            case "quit":
                self.exit()
            case mode if mode is not None:
                self.switch_mode(mode)
