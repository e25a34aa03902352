"""Writes a summary as lines that fit a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich.text import Text

from mxgw_metrics.top.summary import Summary

_NAME_WIDTH = 12
# A line is marked when a value is above its limit here. The alerts in docs/monitoring/alerts.yml check the same values
# with limits of their own.
_LAG_S, _LOOP_DELAY_S, _STALLED_SHARE = 5.0, 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen. `is_bad` says that it needs attention; it then gets a mark in front and a colour."""

    name: str
    text: str
    is_bad: bool = False


def lines_of(f: Summary) -> list[Line]:
    """Return all lines of the screen except the title."""
    live = sum(f.sessions.values())
    faults = sum(count for reason, count in f.ended_sessions.items() if reason.startswith("WORKER"))
    silent, lost_sources = f.workers.get("silent", 0), f.sources.get("lost", 0)
    is_short = f.replay_horizon_s is not None and f.detach_grace_s is not None and f.replay_horizon_s < f.detach_grace_s
    return [
        Line(
            "sessions",
            f"{live} of {f.session_limit}  {_words(f.sessions)}  detached {f.detached_sessions}",
            live >= f.session_limit,
        ),
        Line("ended", _words(f.ended_sessions) or "none", f.recent_faults > 0),
        Line(
            "workers",
            f"{_words(f.workers) or 'none'}  memory {_bytes(f.workers_rss_bytes)} (largest "
            f"{_bytes(f.largest_worker_rss_bytes)})",
            silent > 0,
        ),
        Line("", f"starts: {_words(f.worker_starts) or 'none'}; faults since start {faults}"),
        Line("sources", _words(f.sources) or "none", lost_sources > 0),
        Line("adoptions", _words(f.adoptions) or "none", f.recent_failed_adoptions > 0),
        Line("events in", f"{_rate(f.events_in_per_s)}  {_bytes(f.bytes_in_per_s)}/s  total {f.events_in:,}"),
        Line("events out", f"{_rate(f.events_out_per_s)}  {_bytes(f.bytes_out_per_s)}/s  total {f.events_out:,}"),
        Line(
            "subscribers",
            f"{f.subscribers}  lag at most {f.lag_events:,} events, {_seconds(f.lag_s)}  held {_bytes(f.queue_bytes)}",
            f.lag_s > _LAG_S,
        ),
        Line("lost", f"{f.recent_events_lost:,} now; {_words(f.events_lost) or 'none'}", f.recent_events_lost > 0),
        Line("gaps", f"{f.recent_gaps:,} now; {_words(f.gaps) or 'none'}", f.recent_gaps > 0),
        Line("overflow", f"{f.recent_overflows:,} now; {_words(f.overflows) or 'none'}", f.recent_overflows > 0),
        Line(
            "resumes",
            f"complete {f.resumes.get('true', 0):,}, incomplete {f.resumes.get('false', 0):,}",
            f.recent_incomplete_resumes > 0,
        ),
        Line(
            "replay",
            f"reaches back {_seconds(f.replay_horizon_s)}; grace {_seconds(f.detach_grace_s)}; "
            f"logs hold {_bytes(f.ring_bytes)}",
            is_short,
        ),
        Line(
            "delays",
            f"pump stalled {f.pump_stalled_share:.0%}; event loop p99 {_at_most(f.loop_delay_p99_s)}",
            f.pump_stalled_share > _STALLED_SHARE or (f.loop_delay_p99_s or 0) > _LOOP_DELAY_S,
        ),
        Line(
            "calls",
            f"{_rate(f.calls_per_s)}  p50 {_at_most(f.call_p50_s)}  p99 {_at_most(f.call_p99_s)}  "
            f"streams {f.open_streams}  commands waiting {f.commands_pending}",
        ),
        Line("", "  ".join(f"{name} {_rate(rate)}" for name, rate in f.busiest.items())),
        Line("failed", f"{f.recent_failed_calls:,} now; {_words(f.failed_calls) or 'none'}", f.recent_failed_calls > 0),
        Line("refused", f"{f.recent_refused:,} now; {_words(f.refused) or 'none'}", f.recent_refused > 0),
        Line(
            "plugins",
            f"{f.plugins_up} work, {len(f.plugins_failed)} failed{_named(f.plugins_failed)}; exceptions "
            f"{f.plugin_failures:,}",
            bool(f.plugins_failed) or f.recent_plugin_failures > 0,
        ),
        Line("process", f"memory {_bytes(f.rss_bytes)}, processor {f.cpu_share:.0%}"),
    ]


def title_of(f: Summary, where: str) -> str:
    """Return the title: version and address of the gateway, how long it has run, and whether it drains or restarted."""
    state = "  DRAINING" if f.is_draining else "  restarted just now" if f.was_restarted else ""
    return f"mxgw {f.version} at {where}  up {_seconds(f.uptime_s)}{state}"


def screen(f: Summary, where: str, width: int, notice: str = "") -> Text:
    """Return the whole screen, each line cut to `width`, with `notice` as the last line if it is not empty."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(_cut(title_of(f, where), width), style="bold")
    for line in lines_of(f):
        mark = "!" if line.is_bad else " "
        row = f"\n{_cut(f'{mark} {line.name:<{_NAME_WIDTH}}{line.text}', width)}"
        text.append(row, style="bold red" if line.is_bad else "")
    if notice:
        text.append(f"\n{_cut(notice, width)}", style="bold red")
    return text


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def _words(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _named(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}/s"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def _at_most(seconds: float | None) -> str:
    """Return `seconds` as the text of an upper bound ("≤ 5 ms"); a histogram does not have the exact value."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "beyond 10 s"
    return f"≤ {seconds * 1000:g} ms" if seconds < 1 else f"≤ {seconds:g} s"
