"""When a stream has been quiet for so long that a heartbeat is due."""

from __future__ import annotations

import asyncio
import time

from mxgw_core.events.subscriber import Subscriber


class Silence:
    """Wakes a subscriber's stream when nothing was sent for an interval; one timer, re-armed only as it fires."""

    def __init__(self, subscriber: Subscriber, interval_s: float) -> None:
        self._subscriber = subscriber
        self._interval_s = interval_s
        self._last = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._check)

    def _check(self) -> None:
        left = self._last + self._interval_s - time.monotonic()
        if left <= 0:
            self._subscriber.wake()
            left = self._interval_s
        self._timer = asyncio.get_running_loop().call_later(left, self._check)

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def broken(self) -> None:
        """Something was sent."""
        self._last = time.monotonic()

    def cancel(self) -> None:
        self._timer.cancel()
