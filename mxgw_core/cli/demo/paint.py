"""The demo while it runs: a live screen in a terminal, a line per second elsewhere, nothing for JSON."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from rich.live import Live

from mxgw_core.cli.demo.board import Board
from mxgw_core.cli.demo.options import DemoOptions
from mxgw_core.cli.demo.summary import status_line
from mxgw_core.cli.demo.view import DemoScreen
from mxgw_core.cli.terminal import console, is_live

REFRESH_S = 0.25
STATUS_INTERVAL_S = 1.0


async def paint(board: Board, options: DemoOptions) -> NoReturn:
    """Show the board until cancelled; its last state stays on the screen."""
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
                live.update(DemoScreen(board, time.monotonic(), seconds), refresh=True)
                await asyncio.sleep(REFRESH_S)
        finally:
            live.update(DemoScreen(board, time.monotonic(), seconds, final=True), refresh=True)


async def _print_lines(board: Board) -> None:
    out = console()
    while True:
        await asyncio.sleep(STATUS_INTERVAL_S)
        out.print(status_line(board, time.monotonic()))
        out.file.flush()
