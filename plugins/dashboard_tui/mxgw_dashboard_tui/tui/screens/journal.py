"""The screen of the journal: what happened to sessions and workers since the gateway started.

Administrators also see logins, and what operators did.
"""

from __future__ import annotations

from textual.app import ComposeResult

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row

COLUMNS = (
    Column("time", "Time (UTC)", 14),
    Column("kind", "What", 16),
    Column("session", "Session", 14, grow=1),
    Column("operator", "Operator", 10, drop=1),
    Column("detail", "Detail", 26, grow=3),
)
_TONES = {
    pb.JOURNAL_KIND_SESSION_FAULTED: "bad",
    pb.JOURNAL_KIND_SESSION_DETACHED: "warn",
    pb.JOURNAL_KIND_OPERATOR_ACTION: "accent",
    pb.JOURNAL_KIND_LOGIN: "accent",
}


TIMELINE_COLUMNS = tuple(column for column in COLUMNS if column.key != "session")


class JournalScreen(BaseScreen):
    """Shows the journal; the newest entry is the last row.

    While the cursor is on the last row, the cursor moves on to each new entry.
    """

    NAME = "journal"

    def compose_body(self) -> ComposeResult:
        yield Grid(COLUMNS, empty="Nothing happened since the gateway started.", follow=True, id="journal")

    def paint(self, view: View | None) -> None:
        if view is not None:
            self.grid.set_rows(map(journal_row, view.journal))


def journal_row(entry: pb.JournalEntry) -> Row:
    """Return the row of an entry of the journal."""
    name = t.clean(entry.session_name, 40) or t.short_id(entry.session_id)
    operator, detail = t.clean(entry.operator, 64), t.clean(entry.detail, 300)
    cells = {
        "time": Cell(t.moment(entry.time), order=float(entry.number)),
        "kind": Cell(t.words(pb.JournalKind.Name(entry.kind), "JOURNAL_KIND_"), _TONES.get(entry.kind, "")),
        "session": Cell(name),
        "operator": Cell(operator),
        # The detail includes the operator's name, because the column of operators is hidden on a narrow screen.
        "detail": Cell(f"{operator}: {detail}" if operator else detail),
    }
    return Row(str(entry.number), cells, entry)
