"""The two bars at the top of every screen: one names gateway and operator, the other reports connection problems."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from mxgw_dashboard_tui.tui.model import Link, View
from mxgw_dashboard_tui.tui.text import clean, span

# The banner reports a silent gateway after this many intervals without a gateway report
# (docs/reference/streams.md#silence).
_LATE_INTERVALS = 2.5
_BEHIND_S = 3.0


class TopBar(Static):
    """Shows the gateway, the operator with the role, and the age of the data."""

    def show(self, title: str, where: str, view: View | None, age_s: float | None, frozen_s: float | None) -> None:
        """Paint the bar with these values."""
        left = Text(no_wrap=True)
        left.append(f"mxgw {title}", style="bold")
        if view is not None:
            role = "administrator" if view.is_administrator else "read-only"
            left.append(f"  {clean(view.snapshot.operator, 24)} ({role})")
        left.append(f"  {clean(where, 60)}")
        right = Text(no_wrap=True)
        if frozen_s is not None:
            right.append(f" FROZEN {span(frozen_s)} ", style="reverse bold")
            right.append(" ")
        right.append("no data yet" if age_s is None else f"as of {span(age_s)} ago")
        # The bar has no width before the first layout; the width of the terminal is used then.
        width = self.size.width or self.app.size.width
        room = max(0, width - right.cell_len - 1)
        left.truncate(room, overflow="ellipsis")
        self.update(Text.assemble(left, " " * max(1, width - left.cell_len - right.cell_len), right), layout=False)


class Banner(Static):
    """Shows problems of the dashboard's connection to the gateway; hidden while there are none."""

    def show(self, link: Link, detail: str, view: View | None, age_s: float | None) -> None:
        """Paint the banner, or hide it when there is nothing to report."""
        text = banner_text(link, detail, view, age_s)
        self.display = bool(text)
        self.set_class(link in (Link.REPLAY, Link.ENDED, Link.CONNECTING), "-calm")
        if text:
            self.update(Text(text, no_wrap=True, overflow="ellipsis"), layout=False)


def banner_text(link: Link, detail: str, view: View | None, age_s: float | None) -> str:
    """Return the text of the banner; "" when there is nothing to report."""
    shown = "nothing to show yet" if age_s is None else f"what you see is {span(age_s)} old"
    match link:
        case Link.CONNECTING:
            return f"… {detail}"
        case Link.REPLAY:
            return "▶ REPLAY of a recording: nothing here is live"
        case Link.ENDED:
            return "■ END of the recording"
        case Link.CUT:
            return f"✖ CONNECTION CUT: {shown}, trying again. {detail}"
        case Link.DENIED:
            return f"✖ DENIED: {detail}"
        case Link.LOGIN:
            return f"✖ NOT LOGGED IN: {shown}. {detail}"
    if view is None or age_s is None:
        return ""
    interval_s = max(1.0, view.snapshot.interval.seconds + view.snapshot.interval.nanos / 1e9)
    if age_s > _LATE_INTERVALS * interval_s:
        return f"✖ NO NEWS: {shown}, the gateway is silent"
    if view.snapshot.draining:
        return "▲ THE GATEWAY IS SHUTTING DOWN: it takes no new sessions"
    if view.behind_s > _BEHIND_S:
        return f"✖ BEHIND: news arrive {span(view.behind_s)} late; this connection is too slow for the interval."
    return ""
