"""Measures how late the event loop runs its timers: each timer compares the present time with its due time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mxgw_core.api import Distribution, Metric, MetricKind, MetricSample

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopDelay:
    """Measures the delay of the event loop in which it is created, every `interval_s` until `stop`."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._delays = Distribution(BOUNDS_S)
        self._due = 0.0
        self._timer = self._next(self._measure)

    def _next(self, then: Callable[[], None]) -> asyncio.TimerHandle:
        self._due = self._loop.time() + self._interval_s
        return self._loop.call_at(self._due, then)

    def _measure(self) -> None:
        self._delays.observe(max(0.0, self._loop.time() - self._due))
        self._timer = self._next(self._measure)

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.cancel()

    def metric(self) -> Metric:
        """Return all delays measured so far as a histogram."""
        return Metric(
            "mxgw_event_loop_delay_seconds",
            MetricKind.HISTOGRAM,
            "How late the gateway's event loop came to a timer.",
            samples=(MetricSample(self._delays.buckets()),),
        )
