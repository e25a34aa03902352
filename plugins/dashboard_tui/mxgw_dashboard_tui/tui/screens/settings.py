"""The screen of the gateway's settings: the values in use, and where each was set. The gateway masks secrets."""

from __future__ import annotations

from textual import work
from textual.app import ComposeResult

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.source import Refused
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row

COLUMNS = (
    Column("key", "Setting", 28, grow=1),
    Column("value", "Value", 22, grow=2),
    Column("origin", "From", 14, grow=1),
)


class SettingsScreen(BaseScreen):
    """Requests the settings each time the screen is opened; settings do not change while a gateway runs."""

    NAME = "settings"
    PAINTS_ALWAYS = True

    def __init__(self) -> None:
        super().__init__()
        self._received_at: float | None = None

    @property
    def age_s(self) -> float | None:
        return None if self._received_at is None else self.dashboard.showing.clock() - self._received_at

    def compose_body(self) -> ComposeResult:
        yield Grid(COLUMNS, empty="Asking the gateway.", id="settings")

    def shown(self) -> None:
        self._load()

    @work(exclusive=True, group="settings")
    async def _load(self) -> None:
        try:
            answer = await self.dashboard.source.list_settings()
        except Refused as refusal:
            self.grid.empty = f"✖ {refusal}"
            self.grid.set_rows(())
            self.grid.refresh()
        else:
            self._received_at = self.dashboard.showing.clock()
            self.grid.set_rows(map(_row, answer.settings))

    def forget(self) -> None:
        super().forget()
        self._received_at = None
        if self.is_current:
            self._load()

    def paint(self, view: View | None) -> None:
        del view


def _row(setting: pb.Setting) -> Row:
    is_default = setting.origin == "default"
    cells = {
        "key": Cell(t.clean(setting.key, 100)),
        "value": Cell(t.clean(setting.value, 300), "" if is_default else "accent"),
        "origin": Cell(t.clean(setting.origin, 100), "dim" if is_default else ""),
    }
    return Row(setting.key, cells, setting)
