"""The screen of the plugins: which plugins run, which do not run and why, and how often their hooks failed."""

from __future__ import annotations

from textual.app import ComposeResult

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import gateway_service_pb2 as gw
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row

COLUMNS = (
    Column("name", "Plugin", 16),
    Column("state", "State", 11),
    Column("required", "Required", 8, drop=2),
    Column("failures", "Failures", 8, right=True),
    Column("source", "From", 14, grow=1, drop=1),
    Column("detail", "What is wrong", 20, grow=3),
)
_STATES = {
    gw.PLUGIN_STATE_LOADED: ("runs", "good"),
    gw.PLUGIN_STATE_FAILED: ("FAILED", "bad"),
    gw.PLUGIN_STATE_AVAILABLE: ("not enabled", "dim"),
}


class PluginsScreen(BaseScreen):
    """Shows the enabled plugins in the order of the settings, then the plugins that are installed and not enabled."""

    NAME = "plugins"

    def compose_body(self) -> ComposeResult:
        yield Grid(COLUMNS, empty="No plugin is installed.", id="plugins")

    def paint(self, view: View | None) -> None:
        if view is not None:
            self.grid.set_rows(_row(plugin) for plugin in view.snapshot.plugins)


def _row(row: pb.PluginRow) -> Row:
    plugin = row.plugin
    failures = sum(row.hook_failures.values())
    hooks = ", ".join(f"{t.clean(hook, 40)} {times}x" for hook, times in sorted(row.hook_failures.items()))
    cells = {
        "name": Cell(t.clean(plugin.name, 64)),
        "state": Cell(*_STATES.get(plugin.state, ("unknown", "warn"))),
        "required": Cell(
            "access" if plugin.controls_access and plugin.required else "yes" if plugin.required else "no"
        ),
        "failures": Cell(t.count(failures), "bad" if failures else "dim", failures),
        "source": Cell(t.clean(f"{plugin.distribution} {plugin.version}".strip(), 64)),
        "detail": Cell(t.clean(plugin.detail, 300) or hooks),
    }
    return Row(plugin.name, cells, row)
