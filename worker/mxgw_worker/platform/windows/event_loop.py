"""The event loop of gateway and worker."""

from __future__ import annotations

import asyncio
import sys
import time

assert sys.platform == "win32"


class EventLoop(asyncio.ProactorEventLoop):
    """The proactor event loop, with `time.perf_counter` as its clock, as the rest of mxgw uses it.

    Before Python 3.13 its own clock, `time.monotonic`, moves in steps of 16 ms. Timers then run up to 16 ms early, and
    code that looks whether its time has come and sets the timer again keeps the processor busy until the next step.
    """

    _clock_resolution: float

    def __init__(self) -> None:
        super().__init__()
        # A private part of asyncio: how early timers may run. A Python that has no such attribute is not harmed.
        self._clock_resolution = time.get_clock_info("perf_counter").resolution

    def time(self) -> float:
        """Return the time in seconds."""
        return time.perf_counter()
