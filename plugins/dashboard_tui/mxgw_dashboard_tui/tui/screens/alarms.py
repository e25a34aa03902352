"""The screen of the plant's alarms: shows active alarms and their latest changes, and acknowledges alarms.

The alarms come from the AlarmService of the plugin alarms.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker

from mxgw.convert import duration_from_seconds
from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1 import alarms_pb2 as a
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.model import View
from mxgw_dashboard_tui.tui.plant_alarms import PROVIDERS, PlantAlarms
from mxgw_dashboard_tui.tui.screens.alarm_rows import COLUMNS, alarm_row
from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.questions import AcknowledgeScreen
from mxgw_dashboard_tui.tui.source import NotServed, Refused
from mxgw_dashboard_tui.tui.widgets.grid import Grid, Row

_SERVICE = "/mxgw.v1.AlarmService"
_RETRY_S = 2.0
_HEARTBEAT_S = 1.0
# A stream without any message, not even a heartbeat, for this time is treated as broken, even if TCP reports no error.
_SILENT_S = 10.0
# The largest number of alarms that one AcknowledgeAlarm request can have.
_MOST_MARKED = 1000
_NOT_ENABLED = "Alarms are not enabled on this gateway: its plugin alarms would follow them."
_NOT_YOURS = "you may look, not acknowledge: that needs the role administrator"
_FINE = (pb.ACKNOWLEDGE_OUTCOME_ACCEPTED, pb.ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED)


class AlarmsScreen(BaseScreen):
    """Receives alarms only while this screen is shown, alone or with a question on top of it.

    Every stream begins with a list of all active alarms.
    """

    NAME = "alarms"
    PAINTS_ALWAYS = True

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "a",
            "acknowledge",
            "Ack",
            id="alarms.acknowledge",
            tooltip="Acknowledge the alarm, or all that are marked; asks for a comment",
        ),
        Binding("m", "mark", "Mark", id="alarms.mark", tooltip="Mark the alarm for acknowledging, or do so no more"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._plant = PlantAlarms()
        self._rows: dict[str, Row] = {}
        self._marked: set[str] = set()
        self._received_at: float | None = None
        # The value of `_received_at` at the last painting. While the screen is frozen this value stays the same, so the
        # shown age grows although messages arrive.
        self._shown_at: float | None = None
        self._painting: tuple[int, int | None, int] | None = None
        self._left_out = 0
        self._aged_at_ns: int | None = None
        # The reason why no alarms arrive now; "" when there is no known problem.
        self._trouble = ""
        self._following: Worker[None] | None = None

    @property
    def age_s(self) -> float | None:
        return None if self._shown_at is None else self.dashboard.showing.clock() - self._shown_at

    def compose_body(self) -> ComposeResult:
        yield Static("", id="provider", markup=False)
        yield Grid(COLUMNS, empty="Asking the gateway.", sort="state", limit=self.dashboard.alarm_rows, id="plant")
        yield Static("", id="more", markup=False)
        yield Static("", id="news", markup=False)

    # The following methods read the stream of alarms.

    def shown(self) -> None:
        if self._following is None or self._following.is_finished:
            self._following = self._follow()

    def on_screen_suspend(self) -> None:
        if self._following is not None and not isinstance(self.app.screen, ModalScreen):
            self._following.cancel()
            self._following = None

    @work(exclusive=True, group="alarms")
    async def _follow(self) -> None:
        while True:
            self._plant.begin()
            try:
                trouble = await self._follow_one_stream()
            except NotServed:
                trouble = _NOT_ENABLED
            except Refused as refusal:
                trouble = str(refusal)
            except TimeoutError:
                trouble = "no news from the gateway"
            if trouble:
                self._say(trouble)
                await asyncio.sleep(_RETRY_S)

    async def _follow_one_stream(self) -> str:
        """Process one stream to its end, and return the problem that ended the stream.

        Return "" when there was no problem and a new stream is needed at once.
        """
        request = pb.StreamAlarmsRequest(
            client_name="dashboard", heartbeat_interval=duration_from_seconds(_HEARTBEAT_S)
        )
        stream = self.dashboard.source.follow(f"{_SERVICE}/StreamAlarms", request, pb.StreamAlarmsResponse)
        try:
            while True:
                async with asyncio.timeout(_SILENT_S):
                    message = await anext(stream, None)
                if message is None:
                    return "the gateway ended the stream"
                if not self._take(message):
                    return ""
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _take(self, message: pb.StreamAlarmsResponse) -> bool:
        is_known = self._plant.take(message)
        self._received_at = self.dashboard.showing.clock()
        if message.WhichOneof("frame") == "snapshot_complete":
            self._say("")
        return is_known

    def _say(self, trouble: str) -> None:
        self._trouble = trouble
        self._plant.version += 1

    def forget(self) -> None:
        self._plant = PlantAlarms()
        self._rows.clear()
        self._marked.clear()
        self._received_at = self._shown_at = None
        self._trouble = ""
        self._painting = None
        super().forget()

    # The following methods paint the screen.

    def paint(self, view: View | None) -> None:
        if self.dashboard.showing.frozen_s is not None:
            return
        self._shown_at = self._received_at
        self._paint_more()
        plant, grid = self._plant, self.grid
        now_ns = view.now_ns if view is not None else None
        # Nothing is painted unless one of these values has changed. The height of the list of changes is one of them,
        # because before the first layout the height is 0 and no change can be painted.
        painting = (plant.version, now_ns, self.query_one("#news").size.height)
        if painting == self._painting:
            return
        # Make new rows for the alarms that changed. When time has passed, also make new rows for the visible alarms,
        # because the column Age of these rows has changed.
        stale = plant.changed | {row.key for row in grid.in_sight} if now_ns != self._aged_at_ns else plant.changed
        for reference in stale:
            if (alarm := plant.active.get(reference)) is not None:
                self._rows[reference] = alarm_row(alarm, now_ns, is_marked=reference in self._marked)
            else:
                self._rows.pop(reference, None)
                self._marked.discard(reference)
        plant.changed = set()
        self._painting, self._aged_at_ns = painting, now_ns
        if self._trouble:
            grid.empty = _sentence(self._trouble)
        else:
            grid.empty = "Asking the gateway." if plant.provider is None else "No alarm is active."
        grid.set_rows(self._rows.values())
        if not self._rows:
            grid.refresh()
        self._paint_more()
        self._paint_bars()

    def _paint_bars(self) -> None:
        plant = self._plant
        text, tone = provider_text(plant.provider, self._trouble)
        banner = self.query_one("#provider", Static)
        banner.set_class(tone == "bad", "-bad")
        banner.set_class(tone == "warn", "-warn")
        states = Counter(alarm.state for alarm in plant.active.values())
        counts = (
            f"{len(plant.active)} active: {states[a.ALARM_STATE_UNACK_ALM]} unacked, "
            f"{states[a.ALARM_STATE_UNACK_RTN]} returned, {states[a.ALARM_STATE_ACK_ALM]} acked"
        )
        marked = f", {len(self._marked)} marked" if self._marked else ""
        banner.update(Text(f"{counts}{marked}. {text}" if plant.provider is not None else text), layout=False)
        news = self.query_one("#news", Static)
        lines = max(0, news.size.height - 1)
        newest = list(plant.news)[-lines:] if lines else []
        title = f"{t.count(plant.news_count)} changes since you look, the newest last"
        said = [Text(f"{t.clock(item.time):>8} {item.text}", no_wrap=True, overflow="ellipsis") for item in newest]
        news.update(Text("\n").join([Text(title, "bold"), *said]), layout=False)

    def _paint_more(self) -> None:
        """Show how many alarms that match the filter are not shown, because the number of rows is limited."""
        if (left_out := self.grid.left_out) == self._left_out:
            return
        self._left_out = left_out
        more = self.query_one("#more", Static)
        more.display = left_out > 0
        more.update(f"… and {left_out} more that are not shown: filter (/), sort (< >), or --alarm-rows", layout=False)

    # The following methods mark and acknowledge alarms.

    def action_mark(self) -> None:
        if (row := self.grid.current) is None or (alarm := self._plant.active.get(row.key)) is None:
            return
        if row.key in self._marked:
            self._marked.discard(row.key)
        elif len(self._marked) >= _MOST_MARKED:
            self.notify(f"no more than {_MOST_MARKED} alarms are acknowledged at once", severity="warning")
            return
        else:
            self._marked.add(row.key)
        self._plant.changed.add(alarm.reference)
        self._plant.version += 1
        self.grid.action_move(1)
        self.repaint()

    def action_acknowledge(self) -> None:
        view = self.dashboard.showing.view
        if view is None or not view.is_administrator:
            self.notify(_NOT_YOURS, title="Refused", severity="error")
        elif references := self._chosen():
            self._acknowledge(references)
        else:
            self.notify("there is no alarm to acknowledge", severity="warning")

    def _chosen(self) -> Sequence[str]:
        """Return the references of the marked alarms or, if none is marked, the reference at the cursor."""
        if self._marked:
            return sorted(self._marked)
        return [self.grid.current.key] if self.grid.current is not None else []

    @work(exclusive=True, group="act")
    async def _acknowledge(self, references: Sequence[str]) -> None:
        comment = await self.app.push_screen_wait(AcknowledgeScreen(references))
        if comment is None:
            return
        request = pb.AcknowledgeAlarmRequest(references=references, comment=comment)
        try:
            answer = await self.dashboard.source.ask(
                f"{_SERVICE}/AcknowledgeAlarm", request, pb.AcknowledgeAlarmResponse
            )
        except Refused as refusal:
            self.notify(str(refusal), title="Refused", severity="error", markup=False)
            return
        for result in answer.results:
            if result.outcome in _FINE and result.reference in self._marked:
                self._marked.discard(result.reference)
                self._plant.changed.add(result.reference)
        self._plant.version += 1
        text, is_fine = outcome_text(answer.results)
        self.notify(
            text,
            title="Acknowledged" if is_fine else "Not acknowledged",
            severity="information" if is_fine else "error",
            markup=False,
        )


def provider_text(provider: a.ProviderStatus | None, trouble: str) -> tuple[str, str]:
    """Return a text and the tone of the text. The text says which provider reports alarms, or why no alarms arrive."""
    if trouble:
        old = "" if provider is None else " What is shown is as it was."
        return f"✖ {_sentence(trouble)}{old}", "bad"
    if provider is None:
        return "… waiting for the gateway", ""
    since, detail = t.clock(provider.since), t.clean(provider.detail, 200)
    words = PROVIDERS.get(provider.provider, "nobody knows who reports")
    match provider.provider:
        case a.ALARM_PROVIDER_PRIMARY:
            return f"● {words} since {since}", ""
        case a.ALARM_PROVIDER_FALLBACK:
            return f"▲ {words} since {since} ({detail})", "warn"
        case _:
            return f"✖ {words} since {since}: all is as last seen ({detail})", "bad"


def outcome_text(results: Sequence[pb.AcknowledgeResult]) -> tuple[str, bool]:
    """Return a text about the results of acknowledgements, and whether all succeeded.

    When some failed, the text has the reason of the first failure.
    """
    bad = [result for result in results if result.outcome not in _FINE]
    if not bad:
        already = sum(result.outcome == pb.ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED for result in results)
        one = t.clean(results[0].reference, 60) if len(results) == 1 else f"{len(results)} alarms"
        return one + (f" ({already} were acknowledged already)" if already else ""), True
    first = bad[0]
    outcome = t.words(pb.AcknowledgeOutcome.Name(first.outcome), "ACKNOWLEDGE_OUTCOME_")
    reason = f": {t.clean(first.message, 160)}" if first.message else ""
    others = f"; {len(bad) - 1} more of {len(results)}" if len(bad) > 1 else ""
    return f"{t.clean(first.reference, 60)} {outcome}{reason}{others}", False


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
