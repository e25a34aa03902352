"""The screen of the audit log, for administrators: its newest entries say who did what, and what was refused."""

from __future__ import annotations

import asyncio
from collections import deque

from textual import work
from textual.app import ComposeResult
from textual.worker import Worker

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.source import Refused
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row

_ROWS = 2000
_RETRY_S = 2.0
_NOT_KEPT = "This gateway keeps no audit log: its plugin acl would."

COLUMNS = (
    Column("time", "Time (UTC)", 14),
    Column("decision", "Result", 7),
    Column("actor", "Who", 16, grow=2),
    Column("action", "Did", 16, grow=2),
    Column("session", "Session", 8, drop=4),
    Column("tag", "Tag", 8, grow=1, drop=5),
    Column("reason", "Why", 12, grow=3),
    Column("peer", "From", 15, drop=3),
    Column("correlation", "Call", 8, drop=6),
)
_TONES = {"denied": "bad", "allowed": "good"}


class AuditScreen(BaseScreen):
    """Receives the audit log from the gateway only while this screen is shown.

    The newest entry is the last row. While the cursor is on the last row, the cursor moves on to each new entry.
    """

    NAME = "audit"
    PAINTS_ALWAYS = True

    def __init__(self) -> None:
        super().__init__()
        self._entries: deque[Row] = deque(maxlen=_ROWS)
        self._count = 0
        self._received_at: float | None = None
        self._following: Worker[None] | None = None

    @property
    def age_s(self) -> float | None:
        return None if self._received_at is None else self.dashboard.showing.clock() - self._received_at

    def compose_body(self) -> ComposeResult:
        yield Grid(COLUMNS, empty="Asking the gateway.", follow=True, id="audit")

    def shown(self) -> None:
        self._following = self._follow()

    def on_screen_suspend(self) -> None:
        if self._following is not None:
            self._following.cancel()

    @work(exclusive=True, group="audit")
    async def _follow(self) -> None:
        while True:
            # The first message of every stream has the newest entries of the log, so it replaces all shown entries.
            is_first = True
            try:
                async for message in self.dashboard.source.watch_audit():
                    self._take(message, is_first=is_first)
                    is_first = False
                    if not message.kept:
                        return
            except Refused as refusal:
                self._say(f"✖ {refusal}")
            await asyncio.sleep(_RETRY_S)

    def _take(self, message: pb.WatchAuditResponse, *, is_first: bool) -> None:
        if is_first:
            self._entries.clear()
        if message.incomplete:
            self._entries.append(Row(f"gap{self._count}", {"action": Cell("… more than is shown here", "dim")}))
        for entry in message.entries:
            self._count += 1
            self._entries.append(audit_row(entry, self._count))
        self._received_at = self.dashboard.showing.clock()
        self._say("Nothing was written down." if message.kept else _NOT_KEPT)

    def _say(self, text: str) -> None:
        self.grid.empty = text
        self.grid.refresh()

    def forget(self) -> None:
        self._entries.clear()
        self._received_at = None
        super().forget()

    def paint(self, view: View | None) -> None:
        del view
        if self.dashboard.showing.frozen_s is None:
            self.grid.set_rows(self._entries)


def audit_row(entry: pb.AuditEntry, number: int) -> Row:
    """Return the row of an entry of the audit log; `number` is the row's key."""
    why = " ".join(part for part in (t.clean(entry.reason, 200), t.clean(entry.detail, 200)) if part)
    cells = {
        "time": Cell(t.moment(entry.time), order=float(number)),
        "decision": Cell(t.clean(entry.decision, 20), _TONES.get(entry.decision, "")),
        "actor": Cell(t.clean(entry.actor, 80)),
        "action": Cell(t.clean(entry.action, 80)),
        "session": Cell(t.short_id(entry.session_id)),
        "tag": Cell(t.clean(entry.tag, 64)),
        "reason": Cell(why),
        "peer": Cell(t.clean(entry.peer, 60)),
        "correlation": Cell(t.clean(entry.correlation_id, 60)),
    }
    return Row(str(number), cells, entry)
