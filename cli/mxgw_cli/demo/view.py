"""Draws the demo: a live screen in a terminal of at least 80x24, lines in a pipe, and a summary at the end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mxgw_cli.demo.board import TREND_VALUES, Board, SequenceLedger, TagRow
from mxgw_cli.demo.options import DemoOptions
from mxgw_cli.render import (
    QUALITY_STYLES,
    age_text,
    bytes_text,
    milliseconds_text,
    quality_class,
    quality_text,
    shortened,
    value_text,
)
from mxgw_cli.shell import console, is_live
from mxgw_core.printable import printable

_BARS = "▁▂▃▄▅▆▇█"
FRESH_S = 0.6
# How many lines of the screen have no tag: the title, two lines of figures, the header of the table and the rule below,
# the footer, and the line with the cursor.
_LINES_AROUND_ROWS = 7
REFRESH_S = 0.25
STATUS_INTERVAL_S = 1.0
NEXT = (
    ("mxgw serve", "run a gateway of your own"),
    ("mxgw browse --depth 3", "see what it offers (in a second terminal)"),
    ("mxgw stream Tank_001.Level", "follow one of its tags, or add --json"),
    ("mxgw demo --backend opcua", "the demo through a real OPC UA server"),
    ("mxgw doctor", "check this machine for a real installation"),
)


class DemoScreen:
    """Draws a board on a screen, with as many rows as fit the terminal."""

    def __init__(self, board: Board, now: float, seconds: float | None, *, final: bool = False) -> None:
        self._board = board
        self._now = now
        self._seconds = seconds
        self._final = final

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        room = max(3, height - _LINES_AROUND_ROWS)
        rows = self._board.rows_by_interest()
        yield Group(
            self._title(options.max_width),
            self._figures(),
            self._worker(),
            tag_table(rows[:room], self._now, options.max_width, ascii_only=options.ascii_only),
            self._footer(len(rows) - room),
        )

    def _title(self, width: int) -> RenderableType:
        elapsed = self._now - self._board.started_at
        clock = (
            f"{elapsed:.0f} s" if self._seconds is None else f"{min(elapsed, self._seconds):.0f} of {self._seconds:g} s"
        )
        title = Text(f"mxgw demo · {printable(self._board.title, width)}", style="bold")
        title.truncate(width - len(clock) - 1, overflow="ellipsis")
        title.pad_right(width - title.cell_len - len(clock))
        title.append(clock, style="not bold")
        return title

    def _figures(self) -> RenderableType:
        board = self._board
        gaps, latency = board.ledger.gaps, board.latency
        line = Text.assemble(
            (f"{board.rate.per_second(self._now):,.1f}", "bold cyan"),
            f" events/s  {board.ledger.events:,} in all  ",
            (f"{gaps} gaps", "bold red" if gaps else "green"),
            "  latency ",
            *_latency_parts(latency.percentile(0.5), latency.percentile(0.99)),
        )
        wrong = board.ledger.duplicates + board.ledger.out_of_order
        if wrong:
            line.append(f"  {wrong} duplicate or out of order", style="bold red")
        return _one_line(line)

    def _worker(self) -> RenderableType:
        worker = self._board.worker
        source_style = {"good": "green", "lost": "bold red"}.get(worker.source_health, "yellow")
        line = Text.assemble("worker ", (str(worker.pid or "…"), "bold"), f" {worker.state}")
        if worker.rss_bytes:
            line.append(f"  {bytes_text(worker.rss_bytes)}")
        if worker.source_health:
            line.append("  source ")
            line.append(worker.source_health, style=source_style)
        if worker.source_detail and worker.source_health != "good":
            line.append(f": {printable(worker.source_detail, 200)}")
        return _one_line(line)

    def _footer(self, hidden: int) -> RenderableType:
        parts = [f"{hidden} more tags below"] if hidden > 0 else []
        if self._board.notice:
            parts.append(printable(self._board.notice, 200))
        if not self._final:
            parts.append("Ctrl-C ends it")
        return _one_line(Text(" · ".join(parts), style="dim"))


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _latency_parts(p50: float | None, p99: float | None) -> list[str | tuple[str, str]]:
    if p50 is None or p99 is None:
        return ["not yet known"]
    return ["p50 ", (milliseconds_text(p50), "bold"), "  p99 ", (milliseconds_text(p99), "bold")]


@dataclass(frozen=True, slots=True)
class _Widths:
    tag: int
    value: int
    trend: int
    quality: int
    time: int


def _widths(rows: Sequence[TagRow], width: int, ascii_only: bool) -> _Widths:
    """Divide the width of the screen among the columns.

    Every column has a smallest width. What is left of the width is used first for whole tag names, then for the trend,
    then for dates with the year, then for longer qualities and values.
    """
    # The width of the column Age, the width of the column Chg/s, and the spaces between the six columns that are always
    # shown.
    fixed = 6 + 6 + 5
    value, quality, time = 11, 9, 14
    longest = max((len(row.tag) for row in rows), default=3)
    rest = width - fixed - value - quality - time - longest
    trend = 0
    if rest >= TREND_VALUES + 1 and not ascii_only:
        trend, rest = TREND_VALUES, rest - TREND_VALUES - 1
    if rest >= 5:
        time, rest = 19, rest - 5
    more_quality = min(max(rest, 0), 20)
    more_value = min(max(rest - more_quality, 0), 8)
    tag = max(10, min(longest, longest + rest))
    return _Widths(tag, value + more_value, trend, quality + more_quality, time)


def tag_table(rows: Sequence[TagRow], now: float, width: int, *, ascii_only: bool = False) -> Table:
    """Return the table of tags. On a wide terminal it has a trend, full dates, and qualities in words."""
    widths = _widths(rows, width, ascii_only)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("Tag", width=widths.tag, no_wrap=True)
    table.add_column("Value", width=widths.value, justify="right", no_wrap=True, overflow="ellipsis")
    if widths.trend:
        table.add_column("Trend", width=widths.trend, no_wrap=True)
    table.add_column("Quality", width=widths.quality, no_wrap=True, overflow="ellipsis")
    table.add_column("Source time UTC" if widths.time >= 15 else "Source UTC", width=widths.time, no_wrap=True)
    table.add_column("Age", width=6, justify="right", no_wrap=True)
    table.add_column("Chg/s", width=6, justify="right", no_wrap=True)
    for row in rows:
        cells: list[RenderableType] = [shortened(printable(row.tag, 200), widths.tag), _value_cell(row, now)]
        if widths.trend:
            cells.append(Text(sparkline(list(row.trend)), style="cyan"))
        cells += [_quality_cell(row, widths.quality), _source_time(row, widths.time), _age(row, now), _rate(row, now)]
        table.add_row(*cells)
    return table


def _value_cell(row: TagRow, now: float) -> Text:
    if row.raw_quality is None:
        return Text("…", style="dim")
    is_fresh = row.changed_at is not None and now - row.changed_at < FRESH_S
    return Text(value_text(row.value, 30), style="bold" if is_fresh else "")


def _quality_cell(row: TagRow, width: int) -> Text:
    if row.failure:
        return Text(printable(row.failure, 60), style="bold red")
    if row.raw_quality is None:
        return Text("waiting", style="dim")
    quality = quality_class(row.raw_quality)
    words = quality_text(row.raw_quality)
    return Text(words if len(words) <= width else quality, style=QUALITY_STYLES[quality])


def _source_time(row: TagRow, width: int) -> str:
    if row.source_time_s is None:
        return ""
    moment = datetime.fromtimestamp(row.source_time_s, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if width >= 19 else "%m-%d %H:%M:%S")


def _age(row: TagRow, now: float) -> str:
    return "" if row.changed_at is None else age_text(max(0.0, now - row.changed_at))


def _rate(row: TagRow, now: float) -> str:
    rate = row.rate.per_second(now)
    return f"{rate:.2f}" if rate < 10 else f"{rate:,.0f}"


def sparkline(values: Sequence[float]) -> str:
    """Return the values as a line of bars; the lowest value has the lowest bar, the highest value the highest bar."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if math.isclose(low, high):
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def is_flawless(ledger: SequenceLedger) -> bool:
    """Return whether there were events, and every event came exactly once and in order."""
    return bool(ledger.events) and not (ledger.gaps or ledger.duplicates or ledger.out_of_order)


def document(board: Board, backend: str, seconds: float) -> dict[str, object]:
    """Return the figures for JSON. A latency is the time from the worker's time stamp to the event's arrival here."""
    ledger, latency = board.ledger, board.latency
    p50, p99 = latency.percentile(0.5), latency.percentile(0.99)
    return {
        "backend": backend,
        "seconds": round(seconds, 3),
        "events": ledger.events,
        "gaps": ledger.gaps,
        "duplicates": ledger.duplicates,
        "out_of_order": ledger.out_of_order,
        "p50_ms": None if p50 is None else round(p50, 3),
        "p99_ms": None if p99 is None else round(p99, 3),
    }


def status_line(board: Board, now: float) -> Text:
    """Return the figures in one line, for output to a pipe or file."""
    ledger = board.ledger
    p50 = board.latency.percentile(0.5)
    latency = "" if p50 is None else f", p50 {milliseconds_text(p50)}"
    return Text(
        f"{now - board.started_at:4.0f} s  {ledger.events:,} events, {board.rate.per_second(now):,.1f}/s, "
        f"{ledger.gaps} gaps{latency}"
    )


def summary_lines(board: Board, seconds: float) -> list[Text]:
    """Return the summary: first the figures, then commands that the user can try next."""
    ledger, latency = board.ledger, board.latency
    if not ledger.events:
        return [Text(f"No event came in {seconds:.1f} s.", style="bold red"), Text("Try: mxgw doctor")]
    counts = f"{ledger.gaps} gaps, {ledger.duplicates} duplicates, {ledger.out_of_order} out of order"
    result = (
        ("Every event came once and in order", "bold green") if is_flawless(ledger) else ("Not flawless", "bold red")
    )
    lines = [
        Text(""),
        Text.assemble(
            (f"{ledger.events:,}", "bold"),
            f" events of {len(board.rows):,} tags in {seconds:.1f} s ({ledger.events / max(seconds, 0.001):,.1f}/s).",
        ),
        Text.assemble(result, f": {counts}."),
    ]
    p50, p99 = latency.percentile(0.5), latency.percentile(0.99)
    if p50 is not None and p99 is not None:
        lines.append(Text(f"From worker to here: p50 {milliseconds_text(p50)}, p99 {milliseconds_text(p99)}."))
    lines += [Text(""), Text("Try next:")]
    lines += [Text.assemble("  ", (f"{command:<28}", "cyan"), f"  {meaning}") for command, meaning in NEXT]
    return lines


async def paint(board: Board, options: DemoOptions) -> NoReturn:
    """Show the board until cancelled; the last picture stays on the terminal. With --json nothing is shown."""
    if options.as_json:
        await asyncio.Event().wait()
    elif is_live():
        await _paint_live(board, options.seconds)
    else:
        await _print_lines(board)
    raise AssertionError("painting never ends by itself")


async def _paint_live(board: Board, seconds: float | None) -> None:
    with Live(console=console(), auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while True:
                live.update(DemoScreen(board, time.perf_counter(), seconds), refresh=True)
                await asyncio.sleep(REFRESH_S)
        finally:
            live.update(DemoScreen(board, time.perf_counter(), seconds, final=True), refresh=True)


async def _print_lines(board: Board) -> None:
    out = console()
    while True:
        await asyncio.sleep(STATUS_INTERVAL_S)
        out.print(status_line(board, time.perf_counter()))
        out.file.flush()
