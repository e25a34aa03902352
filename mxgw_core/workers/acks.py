"""Tells the worker up to where its events are safe: in batches, and never long after they came.

Source: docs/reference/streams.md#acknowledgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_EVENTS = 256
_DELAY_S = 0.05


class Acks:
    """Acknowledges `head()` after 256 events or 50 ms, whichever is first."""

    def __init__(self, head: Callable[[], int], send: Callable[[int], None]) -> None:
        self._head = head
        self._send = send
        self._acked = 0
        self._timer: asyncio.TimerHandle | None = None

    def appended(self) -> None:
        """Events were appended to the log."""
        if self._head() - self._acked >= _EVENTS:
            self._now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._now)

    def _now(self) -> None:
        self.cancel()
        self._acked = self._head()
        self._send(self._acked)

    def cancel(self) -> None:
        """Send nothing more of what is scheduled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
