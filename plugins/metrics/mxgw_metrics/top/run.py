"""The loop of `mxgw top`: reads the metrics, waits, reads them again, and shows what happened in between."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time

import click

from mxgw_metrics.settings import Address
from mxgw_metrics.top.reading import Reading, read
from mxgw_metrics.top.screen import screen
from mxgw_metrics.top.summary import Summary, summary_of


def watch(address: Address, interval_s: float, *, once: bool, as_json: bool) -> None:
    """Show summaries until Ctrl-C; with `once` show one summary and return.

    Raises:
        ClickException: a reading failed. On the live screen, only a failure of the first reading is raised. A later
            failure is shown, and the reading is tried again.
    """
    before = read(address)
    if as_json:
        _print_json(address, interval_s, before, once=once)
    elif once:
        summary, _ = _next(address, interval_s, before)
        _print_plain(summary, address)
    else:
        _live(address, interval_s, before)


def _next(address: Address, interval_s: float, before: Reading) -> tuple[Summary, Reading]:
    time.sleep(interval_s)
    now = read(address)
    return summary_of(before, now), now


def _print_json(address: Address, interval_s: float, before: Reading, *, once: bool) -> None:
    while True:
        summary, before = _next(address, interval_s, before)
        document = {"address": str(address), **dataclasses.asdict(summary, dict_factory=_plain)}
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
        if once:
            return


def _plain(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a dict that JSON can express: an infinite number becomes the string "Infinity".

    A delay is infinite when it is beyond the last bound of its histogram.
    """
    return {k: "Infinity" if isinstance(v, float) and math.isinf(v) else v for k, v in pairs}


def _print_plain(summary: Summary, address: Address) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    # A pipe has no width, so lines that go to a pipe are not cut.
    width = console.width if console.is_terminal else 1000
    console.print(screen(summary, str(address), width), soft_wrap=True)


def _live(address: Address, interval_s: float, before: Reading) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(markup=False, highlight=False, emoji=False)
    shown: Summary | None = None
    with Live(Text("looking …"), console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        while True:
            notice = ""
            try:
                shown, before = _next(address, interval_s, before)
            except click.ClickException as error:
                notice = f"as of {time.perf_counter() - before.at_s:.0f} s ago: {error.message.splitlines()[0]}"
            if shown is not None:
                live.update(screen(shown, str(address), console.width, notice), refresh=True)
            elif notice:
                live.update(Text(notice), refresh=True)
