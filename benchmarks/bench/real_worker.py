"""The worker of mxgw with a backend `bench`, which reports the events of the harness. Started by `bench.launch`.

It reports them as fast as the window allows, or one by one at a steady rate. Everything except the backend is the same
as at a site.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping

from mxgw.convert import ok_status, to_value
from mxgw_worker.backends.base import BackendInfo, EventSink
from mxgw_worker.backends.partial import PartialBackend
from mxgw_worker.main import main

from bench.events import RAW_SOURCE_TIME
from bench.pacing import paced
from bench.window import Window

# This many events are reported before the event loop has its turn, as in the simulator.
_SLICE_EVENTS = 512
_POLL_S = 0.001
# At higher rates the source sleeps between events, as the sources of other systems do, because timers of an event loop
# are no finer than a millisecond. At lower rates it uses timers, so that commands do not wait for a long sleep.
_SLEEPS_FROM_PER_S = 500.0
_GOOD = 192


class BenchBackend(PartialBackend):
    """A backend with one server handle and any number of items, which report in turn while the window is open."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._rate = float(str(options.get("rate", 0)))
        self._window = Window.named()
        self._handles: list[int] = []
        self._next = 0
        self._sent = 0
        self._value = to_value(0.0)
        self._statuses = [ok_status()]

    def info(self) -> BackendInfo:
        return BackendInfo("bench", "1", "made up")

    async def start(self, sink: EventSink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        self._handles.clear()

    async def register(self, client_name: str) -> int:  # noqa: ARG002
        return 1

    async def unregister(self, server_handle: int) -> None:
        pass

    async def add_item(self, server_handle: int, item_definition: str) -> int:  # noqa: ARG002
        self._next += 1
        return self._next

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        pass

    async def advise(self, server_handle: int, item_handle: int) -> None:  # noqa: ARG002
        self._handles.append(item_handle)
        if len(self._handles) == 1:
            self._wait()

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        await self.advise(server_handle, item_handle)

    async def un_advise(self, server_handle: int, item_handle: int) -> None:  # noqa: ARG002
        if item_handle in self._handles:
            self._handles.remove(item_handle)

    def _wait(self) -> None:
        if not self._window.is_open:
            self._loop.call_later(_POLL_S, self._wait)
        elif self._rate >= _SLEEPS_FROM_PER_S:
            self._pace(paced(self._rate))
        elif self._rate:
            self._tick()
        else:
            self._flood()

    def _pace(self, dues: Iterator[int]) -> None:
        """Report the events that are due, and then let the event loop have its turn."""
        if self._handles:
            self._report(next(dues))
            self._loop.call_soon(self._pace, dues)

    def _tick(self) -> None:
        if self._handles:
            self._report(1)
            self._loop.call_later(1 / self._rate, self._tick)

    def _flood(self) -> None:
        if not self._handles:
            return
        if self._window.has_room(self._sent):
            self._report(_SLICE_EVENTS)
            self._loop.call_soon(self._flood)
        else:
            self._loop.call_later(_POLL_S, self._flood)

    def _report(self, count: int) -> None:
        handles, report, value, statuses = self._handles, self._sink.data_change, self._value, self._statuses
        for number in range(self._sent, self._sent + count):
            if not handles:
                return
            value.double = float(time.monotonic_ns())
            report(1, handles[number % len(handles)], value, _GOOD, time.time_ns(), statuses, RAW_SOURCE_TIME)
        self._sent += count


if __name__ == "__main__":
    sys.exit(main())
