"""The overview screen: the alarms of the gateway, plots of rates and losses, and facts about the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from mxgw.v1 import gateway_service_pb2 as gw
from mxgw.v1 import session_service_pb2 as ss
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Grid, Row
from mxgw_dashboard_tui.tui.widgets.plot import Plot

COLUMNS = (
    Column("severity", "Alarm", 6),
    Column("where", "Where", 18, grow=1),
    Column("text", "What", 30, grow=4),
)


class OverviewScreen(BaseScreen):
    """Shows the whole gateway on one screen."""

    NAME = "overview"

    def compose_body(self) -> ComposeResult:
        yield Static("", id="facts", markup=False)
        with Horizontal(id="plots"):
            yield Plot(id="rate")
            yield Plot(id="lag")
            yield Plot(id="lost")
            yield Plot(id="cpu")
        yield Grid(COLUMNS, empty="No alarm.", id="alarms")

    def forget(self) -> None:
        super().forget()
        for plot in self.query(Plot):
            plot.clear()

    def paint(self, view: View | None) -> None:
        if view is None:
            self.query_one("#facts", Static).update("Waiting for the gateway.")
            return
        self.query_one("#facts", Static).update(_facts(view))
        points = view.points
        past_s = points[-1].at_s - points[0].at_s
        lost = [max(0, new.lost_events - old.lost_events) for old, new in pairwise(points)]
        for plot, title, values, unit in (
            ("rate", "Events/s", [p.events_per_s for p in points], t.rate),
            ("lag", "Lag, events", [float(p.lag_events) for p in points], _whole),
            ("lost", "Lost events", lost, _whole),
            ("cpu", "Gateway CPU %", [p.cpu_percent for p in points], _whole),
        ):
            self.query_one(f"#{plot}", Plot).show(title, values, unit, past_s, view.points_gone)
        self.grid.set_rows(
            Row(
                f"{number}",
                {
                    "severity": Cell(alarm.severity, "bad" if alarm.severity == "ALARM" else "warn"),
                    "where": Cell(alarm.where),
                    "text": Cell(alarm.text),
                },
            )
            for number, alarm in enumerate(view.alarms)
        )


def _facts(view: View) -> Text:
    snapshot = view.snapshot
    states = Counter(t.state_words(s.row.session, s.detached_s)[0] for s in view.sessions)
    plugins = Counter(row.plugin.state for row in snapshot.plugins)
    adopting = sum(s.row.session.state == ss.SESSION_STATE_ADOPTING for s in view.sessions)
    subscribers = sum(s.row.session.subscribers for s in view.sessions)
    point, process = view.points[-1], snapshot.process
    lines = [
        (
            "Sessions",
            f"{snapshot.session_count} of {snapshot.session_limit}: "
            + (", ".join(f"{number} {state}" for state, number in states.most_common()) or "none to see")
            + f"; {t.memory(snapshot.memory_bytes)} of {t.memory(snapshot.memory_limit_bytes)} held",
        ),
        (
            "Events",
            f"{t.rate(point.events_per_s)}/s to {subscribers} subscribers, lag {t.count(point.lag_events)} events, "
            f"{view.lost_per_min} lost/min, {view.gaps_per_min} gaps/min",
        ),
        (
            "Gateway",
            f"{t.clean(snapshot.version)}, up {t.span(t.since(snapshot.started_at, view.now_ns))}, "
            f"CPU {point.cpu_percent:.0f}%, {t.memory(point.rss_bytes)}, delay {point.loop_delay_s * 1000:.0f} ms, "
            f"pid {process.pid}, {process.watchers} watching",
        ),
        ("Plugins", f"{plugins[gw.PLUGIN_STATE_LOADED]} run, {plugins[gw.PLUGIN_STATE_FAILED]} failed"),
        ("Adoption", _adoption(view, adopting)),
    ]
    return Text("\n").join(_line(name, said) for name, said in lines)


def _whole(number: float) -> str:
    return t.count(round(number))


def _line(name: str, said: str) -> Text:
    return Text.assemble((f"{name:9}", "bold"), said)


def _adoption(view: View, adopting: int) -> str:
    if not any(_runs(view, "reattach")):
        return "off: sessions end when the gateway does (plugin reattach)"
    if adopting:
        return f"{adopting} sessions wait for their workers after a restart of the gateway"
    return "on: sessions survive a restart of the gateway; none waits for its worker"


def _runs(view: View, name: str) -> Iterator[bool]:
    for row in view.snapshot.plugins:
        if row.plugin.name == name and row.plugin.state == gw.PLUGIN_STATE_LOADED:
            yield True
