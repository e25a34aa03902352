"""The event loop's clock, set by a test instead of waited for."""

from __future__ import annotations

import asyncio


def advance(seconds: float) -> None:
    """Let so much time pass at once for every timer of the running loop; those that are due run in its next turn."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]  # the loop asks itself for the time
