"""The table of the dashboard's views. The keys, the `:` line, the palette and the help are made from this table.

To add a view, write a screen (a subclass of `BaseScreen` in screens/) and add an entry to the table. A screen shows the
gateway reports in `Showing`, or the results of calls that it makes (`Source.ask`, `Source.follow`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from textual.binding import Binding

from mxgw_dashboard_tui.tui.screens.alarms import AlarmsScreen
from mxgw_dashboard_tui.tui.screens.audit import AuditScreen
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.journal import JournalScreen
from mxgw_dashboard_tui.tui.screens.overview import OverviewScreen
from mxgw_dashboard_tui.tui.screens.plugins import PluginsScreen
from mxgw_dashboard_tui.tui.screens.sessions import SessionsScreen
from mxgw_dashboard_tui.tui.screens.settings import SettingsScreen


@dataclass(frozen=True, slots=True)
class ViewEntry:
    """One entry of the table of views. The key that opens the view is the entry's number, the command is its `name`."""

    screen: type[BaseScreen]
    meaning: str
    aliases: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.screen.NAME


# At most nine views, because the keys are 1 to 9. The dashboard starts with the first view.
VIEWS: Sequence[ViewEntry] = (
    ViewEntry(SessionsScreen, "All sessions in one table", ("s",)),
    ViewEntry(OverviewScreen, "Alarms, rates and losses at a glance", ("o", "pulse")),
    ViewEntry(JournalScreen, "What happened since the gateway started", ("j", "log")),
    ViewEntry(PluginsScreen, "Which plugins run, and which do not", ("p",)),
    ViewEntry(SettingsScreen, "The settings as they count (administrators)", ("config",)),
    ViewEntry(AuditScreen, "Who did what, from the audit log (administrators)", ("a",)),
    ViewEntry(AlarmsScreen, "The plant's active alarms, and acknowledging them", ("al",)),
)


def view_bindings() -> Iterator[Binding]:
    """Yield the key binding of each view. The footer shows only the first one, with a text about all these keys."""
    for number, view in enumerate(VIEWS, 1):
        yield Binding(
            str(number),
            f"mode('{view.name}')",
            "Views" if number == 1 else view.name.capitalize(),
            key_display=f"1-{len(VIEWS)}" if number == 1 else None,
            id=f"mode.{view.name}",
            tooltip=view.meaning,
            show=number == 1,
        )
