"""The screen of all sessions, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from mxgw.convert import duration_to_seconds
from mxgw.v1 import session_service_pb2 as ss
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import SessionView, View
from mxgw_dashboard_tui.tui.screens.acting import ActingScreen
from mxgw_dashboard_tui.tui.screens.session_rows import reason_words
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row

_TREND = 10

COLUMNS = (
    Column("state", "State", 9),
    Column("name", "Session", 18, grow=3),
    Column("tag", "Tag", 8, grow=1, drop=2),
    Column("owner", "Owner", 9, grow=1, drop=7),
    Column("backend", "Backend", 8, drop=8),
    Column("subscribers", "Subs", 4, right=True),
    Column("rate", "Ev/s", 6, right=True),
    Column("trend", "Trend", _TREND, drop=3),
    Column("lag", "Lag", 6, right=True),
    Column("gaps", "Gaps", 5, right=True),
    Column("lost", "Lost", 6, right=True, drop=5),
    Column("pending", "Cmds", 5, right=True, drop=9),
    Column("pid", "Pid", 7, right=True, drop=6),
    Column("memory", "Mem", 5, right=True, drop=4),
    Column("age", "Age", 6, right=True),
    Column("id", "Id", 8, drop=10),
)


class SessionsScreen(ActingScreen):
    """Shows the live sessions and, when the operator asks for them, the sessions that ended lately."""

    NAME = "sessions"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="sessions.open", tooltip="Look at one session in depth"),
        Binding("e", "ended", "Ended", id="sessions.ended", tooltip="Show or hide sessions that ended lately"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.show_ended = False

    def compose_body(self) -> ComposeResult:
        yield Grid(COLUMNS, empty="No session is open that you may see.", sort="name", id="sessions")
        yield Static("", id="summary", markup=False)

    def paint(self, view: View | None) -> None:
        if view is None:
            self.grid.empty = "Waiting for the gateway."
            self.grid.refresh()
            return
        self.grid.empty = "No session is open that you may see."
        self.grid.set_rows(self._rows(view))
        self.query_one("#summary", Static).update(_summary(view), layout=False)

    def forget(self) -> None:
        super().forget()
        self.query_one("#summary", Static).update("")

    def _rows(self, view: View) -> Iterator[Row]:
        for session in view.sessions:
            yield session_row(session, view.now_ns)
        if self.show_ended:
            for ended in view.snapshot.ended:
                yield ended_row(ended, view.now_ns)

    def action_ended(self) -> None:
        self.show_ended = not self.show_ended
        self.repaint(anew=True)

    async def action_open(self) -> None:
        if self.grid.current is not None:
            await self._open(self.grid.current)

    async def on_grid_chosen(self, event: Grid.Chosen) -> None:
        await self._open(event.row)

    async def _open(self, row: Row) -> None:
        await self.dashboard.open_session(row.key, row.cells["name"].text)

    @property
    def target(self) -> tuple[str, str] | None:
        row = self.grid.current
        return (row.key, row.cells["name"].text) if row is not None else None


def session_row(view: SessionView, now_ns: int) -> Row:
    """Return the row of a live session."""
    row, session = view.row, view.row.session
    state, tone = t.state_words(session, view.detached_s)
    lag_s = duration_to_seconds(row.lag_age)
    age_s = t.since(session.opened_at, now_ns)
    cells = {
        "state": Cell(state, tone),
        "name": Cell(t.session_name(session)),
        "tag": Cell(t.clean(session.tag, 64)),
        "owner": Cell(t.clean(session.owner, 64)),
        "backend": Cell(t.clean(session.backend, 64)),
        "subscribers": _number(session.subscribers, tone="dim" if not session.subscribers else ""),
        "rate": Cell(t.rate(view.rate), order=view.rate if view.rate is not None else -1.0),
        "trend": Cell(t.spark(view.rates, _TREND), "accent", order=view.rate or 0.0),
        "lag": Cell(t.count(row.lag_events) if row.lag_events else "0", _lag_tone(lag_s), row.lag_events),
        "gaps": _number(row.gap_frames, tone="warn" if row.gap_frames else ""),
        "lost": _number(row.lost_events, tone="bad" if row.lost_events else ""),
        "pending": _number(session.pending_commands),
        "pid": Cell(str(session.worker_pid), order=session.worker_pid),
        "memory": Cell(t.size(session.worker_rss_bytes), order=session.worker_rss_bytes),
        "age": Cell(t.span(age_s), order=age_s or 0.0),
        "id": Cell(t.short_id(session.session_id)),
    }
    return Row(session.session_id, cells, row)


def ended_row(session: ss.Session, now_ns: int) -> Row:
    """Return the row of a session that has ended; the column Age has the time since the session's end."""
    state, tone = t.state_words(session, None)
    ago_s = t.since(session.closed_at, now_ns)
    cells = {
        "state": Cell(state, tone),
        "name": Cell(f"{t.session_name(session)}: {reason_words(session)}", "dim"),
        "tag": Cell(t.clean(session.tag, 64), "dim"),
        "owner": Cell(t.clean(session.owner, 64), "dim"),
        "backend": Cell(t.clean(session.backend, 64), "dim"),
        "pid": Cell(str(session.worker_pid), "dim", session.worker_pid),
        "age": Cell(t.span(ago_s), "dim", ago_s or 0.0),
        "id": Cell(t.short_id(session.session_id), "dim"),
    }
    return Row(session.session_id, cells, session, sinks=True)


def _number(number: int, tone: str = "") -> Cell:
    return Cell(t.count(number), tone, number)


def _lag_tone(lag_s: float) -> str:
    return "bad" if lag_s > 5 else "warn" if lag_s > 1 else ""


def _summary(view: View) -> str:
    snapshot, point = view.snapshot, view.points[-1]
    hidden = snapshot.session_count - len(view.sessions)
    parts = [
        f"{len(view.sessions)} open" + (f" ({hidden} not yours to see)" if hidden else ""),
        *([f"{len(view.alarms)} alarm{'s' * (len(view.alarms) > 1)} (key 2)"] if view.alarms else []),
        f"{t.rate(point.events_per_s)} events/s",
        f"lag {t.count(point.lag_events)}",
        f"lost {t.count(view.lost_per_min)}/min",
        f"gaps {t.count(view.gaps_per_min)}/min",
        f"gateway CPU {point.cpu_percent:.0f}% {t.memory(point.rss_bytes)}",
    ]
    return "  ".join(parts)
