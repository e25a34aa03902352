"""What all screens have in common: bars, a table with a filter, the input line, copying and exporting rows.

Screens repaint on a timer.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from mxgw_dashboard_tui.tui.export import document_text, write_export
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.showing import Showing
from mxgw_dashboard_tui.tui.source import Source
from mxgw_dashboard_tui.tui.widgets.bars import Banner, TopBar
from mxgw_dashboard_tui.tui.widgets.grid import Grid
from mxgw_dashboard_tui.tui.widgets.keyline import KeyLine
from mxgw_dashboard_tui.tui.widgets.line import Line

REPAINT_S = 0.25


class Dashboard(Protocol):
    """The part of the app that screens and commands use; `DashboardApp` implements it."""

    source: Source
    showing: Showing
    # The names of all commands, which the `:` line completes.
    command_names: list[str]
    # The largest number of the plant's alarms that the alarm screen shows.
    alarm_rows: int

    async def run_command(self, text: str) -> None:
        """Run the command that an operator typed in the `:` line or chose in the palette."""

    async def open_session(self, session_id: str, name: str) -> None:
        """Open the screen of one session."""


class BaseScreen(Screen[None]):
    """A screen with bars at the top and the bottom, and the widgets of a subclass in between.

    A subclass has a `NAME`, and implements `compose_body` and `paint`. Keys act on its table, `grid`.
    """

    NAME = ""
    # Whether `paint` is called at every repaint. When False, it is called only when `Showing` has another view.
    PAINTS_ALWAYS = False
    AUTO_FOCUS = "Grid"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", id="filter", tooltip="Show rows that match; ! inverts"),
        Binding("colon", "command", "Command", key_display=":", show=False, id="command", tooltip="Type a command"),
        Binding(
            "less_than_sign,comma",
            "sort(-1)",
            "Sort left",
            show=False,
            id="sort.left",
            tooltip="Sort by the column to the left",
        ),
        Binding(
            "greater_than_sign,full_stop",
            "sort(1)",
            "Sort right",
            show=False,
            id="sort.right",
            tooltip="Sort by the column to the right",
        ),
        Binding("r", "reverse", "Reverse", show=False, id="sort.reverse", tooltip="Turn the order round"),
        Binding("y", "copy", "Copy", show=False, id="copy", tooltip="Copy the row as JSON to the clipboard"),
        Binding(
            "x", "export", "Export", show=False, id="export", tooltip="Write what is shown to a file of JSON lines"
        ),
        Binding(
            "escape", "back", "Back", show=False, id="back", tooltip="Leave the input, clear the filter, or go back"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._generation = 0
        self._painted: View | None = None
        # The theme for which textual has computed the styles of this screen; "" before it is shown for the first time.
        self._styled_for = ""

    def compose(self) -> ComposeResult:
        yield TopBar(id="top")
        yield Banner(id="banner")
        yield from self.compose_body()
        with Horizontal(id="asking"):
            yield Static("", id="prompt", markup=False)
            yield Line(self.entered)
        yield KeyLine(id="keys")

    def compose_body(self) -> ComposeResult:
        """Yield the widgets between the bars at the top and the bottom."""
        raise NotImplementedError

    def paint(self, view: View | None) -> None:
        """Update the widgets of `compose_body` from a view."""
        raise NotImplementedError

    def forget(self) -> None:
        """Clear everything that was shown, because perhaps another person has logged in. `paint` is called next."""
        for grid in self.query(Grid):
            grid.filter("")
            grid.set_rows(())

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def grid(self) -> Grid:
        """The table on which keys act."""
        return self.query_one(Grid)

    @property
    def heading(self) -> str:
        return self.NAME

    @property
    def age_s(self) -> float | None:
        """How many seconds old the shown data is; None while nothing is shown."""
        view = self.dashboard.showing.view
        return self.dashboard.showing.age_of(view)

    def on_mount(self) -> None:
        self._generation = self.dashboard.showing.generation
        self.query_one("#asking").display = False
        self.set_interval(REPAINT_S, self.repaint_if_shown)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        # Styles are computed again only after a change of the theme, because this is a third of the work of showing a
        # screen. A screen that was just mounted, or was last shown in the same theme, has its styles already.
        event.refresh_styles = self._styled_for not in ("", self.app.theme)
        self._styled_for = self.app.theme
        self.repaint()
        self.call_after_refresh(self.repaint)
        self.shown()

    def shown(self) -> None:
        """Start the streams that are needed only while this screen is shown; `on_screen_suspend` stops them."""

    def repaint_if_shown(self) -> None:
        """Repaint, unless another `BaseScreen` covers this screen; a question or the help leaves it partly visible."""
        views = (screen for screen in reversed(self.app.screen_stack) if isinstance(screen, BaseScreen))
        if next(views, None) is self:
            self.repaint()

    def repaint(self, *, anew: bool = False) -> None:
        """Update the bars. Update the body too if the view has changed, or if `anew` is True.

        The view does not change while the screens are frozen.
        """
        app, showing = self.dashboard, self.dashboard.showing
        if self._generation != showing.generation:
            self._generation = showing.generation
            self.forget()
            anew = True
        view = showing.view
        if anew or self.PAINTS_ALWAYS or view is None or view is not self._painted:
            self._painted = view
            self.paint(view)
        title = self.heading
        grid = next(iter(self.query(Grid)), None)
        if grid is not None and grid.pattern:
            title += f" /{grid.pattern}"
        # The bars are updated after the body, because some screens know the age of their data only after painting.
        self.query_one(TopBar).show(title, app.source.name, view, self.age_s, showing.frozen_s)
        self.query_one(Banner).show(showing.link, showing.link_detail, showing.newest, showing.age_of(showing.newest))

    # The following methods handle the input line.

    def action_filter(self) -> None:
        self._ask("/", self.grid.pattern)

    def action_command(self) -> None:
        self._ask(":", "")

    def _ask(self, kind: str, value: str) -> None:
        line = self.query_one(Line)
        self.query_one("#asking").display = True
        self.query_one("#prompt", Static).update(f"{kind} ")
        line.placeholder = (
            "text, * any characters, ? one, ! for all but these; enter keeps, esc clears"
            if kind == "/"
            else "a command, such as overview; → completes, enter runs, esc leaves"
        )
        line.suggester = SuggestFromList(self.dashboard.command_names, case_sensitive=False) if kind == ":" else None
        line.set_class(kind == ":", "-command")
        line.open_with(value)
        # `set_focus` moves the focus at once. After a message, the next key would perhaps not reach the input line.
        self.set_focus(line)

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "line" and not event.input.has_class("-command"):
            self.grid.filter(event.input.value)

    async def entered(self, line: Line) -> None:
        """Apply the typed filter, or run the typed command; called before the next key is handled."""
        if line.has_class("-command"):
            self._leave_line()
            await self.dashboard.run_command(line.value.strip())
        else:
            # `on_input_changed` has perhaps not been called yet for the last typed character.
            self.grid.filter(line.value)
            self._leave_line()

    def _leave_line(self) -> None:
        self.query_one("#asking").display = False
        self.set_focus(self.grid)

    def action_back(self) -> None:
        line = self.query_one(Line)
        if self.query_one("#asking").display:
            if not line.has_class("-command"):
                self.grid.filter("")
            self._leave_line()
        elif self.grid.pattern:
            self.grid.filter("")
        else:
            self.go_back()

    def go_back(self) -> None:
        """Do nothing. A screen that lies on top of another screen overrides this, to return to the screen below."""

    # The following methods sort, copy and export rows.

    def action_sort(self, step: int) -> None:
        self.grid.sort_next(step)

    def action_reverse(self) -> None:
        self.grid.sort(self.grid.sort_key)

    def action_copy(self) -> None:
        if (row := self.grid.current) is None:
            self.notify("there is no row to copy", severity="warning")
            return
        self.app.copy_to_clipboard(document_text(row))
        self.notify("row copied as JSON (if the terminal allows it)")

    def action_export(self) -> None:
        try:
            path = write_export(self.NAME, self.grid.rows)
        except OSError as error:
            self.notify(f"not written: {error.strerror}", severity="error")
        else:
            self.notify(f"{len(self.grid.rows)} rows written to {path}", markup=False)
