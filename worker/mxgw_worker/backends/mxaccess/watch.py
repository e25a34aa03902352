"""Finds calls of a COM object that do not return, and a platform that is lost without a word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mxgw.convert import is_ok, quality_class
from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw.v1.values_pb2 import QUALITY_BAD, MxStatus, MxValue
from mxgw_worker.backends.mxaccess.apartment import Apartment, Busy
from mxgw_worker.backends.mxaccess.health import Health

# The category of a status that is not final. Source: docs/reference/mxaccess.md#statuses.
_PENDING = 1


def is_pending(statuses: tuple[MxStatus, ...]) -> bool:
    """Return whether a data change says only that the first value is still to come."""
    return any(one.raw_category == _PENDING for one in statuses)


class CallWatch:
    """Looks at an apartment again and again. A call that runs for long makes the source's health degraded; one that
    runs too long is reported as a failure, because nothing but the end of the process ends it.
    """

    def __init__(
        self,
        apartment: Apartment,
        health: Health,
        failed: Callable[[str], None],
        *,
        slow_s: float,
        limit_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._apartment = apartment
        self._health = health
        self._failed = failed
        self._slow_s = slow_s
        self._limit_s = limit_s
        self._clock = clock
        self._slow: Busy | None = None
        # Often enough for the shortest times that the options allow.
        self._interval_s = min(0.5, slow_s / 4)
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look)

    def _look(self) -> None:
        busy = self._apartment.busy
        passed = 0.0 if busy is None else self._clock() - busy.since
        if busy is not None and passed > self._limit_s:
            self._failed(
                f"MXAccess has not returned from {busy.what} for {self._limit_s:g} s (call_limit_s); a COM call cannot"
                " be interrupted, so this worker ends. Open a new session; if it happens again, look at the platform on"
                " this machine"
            )
            return
        if busy is not None and passed > self._slow_s:
            if self._slow is None:
                self._health.report(
                    "calls",
                    SOURCE_HEALTH_DEGRADED,
                    f"MXAccess has not returned from {busy.what} for {self._slow_s:g} s",
                )
            self._slow = busy
        elif self._slow is not None:
            self._health.report("calls", SOURCE_HEALTH_GOOD, f"MXAccess has returned from {self._slow.what}")
            self._slow = None
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look)

    def close(self) -> None:
        """End the watch."""
        self._timer.cancel()


class Probe:
    """Watches one item that changes regularly. When it no longer does, or is bad, the platform is lost, of which
    MXAccess itself says nothing (docs/reference/mxaccess.md#platform-loss).
    """

    def __init__(self, reference: str, health: Health, *, timeout_s: float, first_s: float) -> None:
        """`first_s` is the time until the first change must have come, `timeout_s` that between two later ones."""
        self._reference = reference
        self._health = health
        self._timeout_s = timeout_s
        self._timer = asyncio.get_running_loop().call_later(first_s, self._silent, first_s)

    def changed(self, _item_handle: int, _value: MxValue, quality: int, statuses: tuple[MxStatus, ...]) -> None:
        """Take note of a change of the item. One that says that the first value is still to come tells nothing yet."""
        if is_pending(statuses):
            return
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._silent, self._timeout_s)
        if not is_ok(statuses):
            detail = statuses[0].raw_detail
            self._lost(f"the probe {self._reference!r} fails with detail {detail}")
        elif quality_class(quality) == QUALITY_BAD:
            self._lost(f"the probe {self._reference!r} is bad (quality {quality})")
        else:
            self._health.report("probe", SOURCE_HEALTH_GOOD, f"the probe {self._reference!r} changes")

    def close(self) -> None:
        """End the watch."""
        self._timer.cancel()

    def _silent(self, seconds: float) -> None:
        self._lost(f"the probe {self._reference!r} has not changed for {seconds:g} s")

    def _lost(self, why: str) -> None:
        self._health.report(
            "probe", SOURCE_HEALTH_LOST, f"{why}: the platform is probably lost; values stay bad until it is back"
        )
