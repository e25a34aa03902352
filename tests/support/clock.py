"""Moves the clock of the running event loop forward, so that a test need not wait."""

from __future__ import annotations

import asyncio


def advance(seconds: float) -> None:
    """Move the clock of the running event loop forward. Timers that are due then run in the next turn of the loop."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]  # the loop asks itself for the time
