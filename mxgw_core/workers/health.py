"""Signs of life of one worker: when its last message came, the health of its source, and how quickly it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mxgw.v1.events_pb2 import SourceHealth
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.printable import printable

# A worker counts as silent after 2.5 heartbeat intervals without a byte from it (docs/reference/streams.md#silence),
# counted in quarters of an interval: after nine quarters between 2.25 and 2.5 intervals have passed.
TICKS_PER_HEARTBEAT = 4
_SILENT_TICKS = 9
# The worker is shown as silent a little earlier than it is killed.
_QUIET_HEARTBEATS = 1.5


class Health:
    """`heard` and `pong` are called for messages of the worker, `ask` and `tick` by its supervisor, in turn."""

    def __init__(self, interval_s: float, send: Callable[[w.WorkerEnvelope], None]) -> None:
        self._interval_s = interval_s
        self._send = send
        self._last_heard = time.monotonic()
        self._heard = False
        self._silent_ticks = 0
        self._ticks = 0
        # Completed by the Pong with the same token.
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._next_token = 1
        self.source: SourceHealth.ValueType = SourceHealth.SOURCE_HEALTH_UNSPECIFIED
        self.source_detail = ""

    @property
    def silence_s(self) -> float:
        """Seconds since the worker's last message."""
        return time.monotonic() - self._last_heard

    @property
    def is_quiet(self) -> bool:
        """Whether a message of the worker is overdue."""
        return self.silence_s > _QUIET_HEARTBEATS * self._interval_s

    @property
    def tick_s(self) -> float:
        """Seconds between two calls of `tick`."""
        return self._interval_s / TICKS_PER_HEARTBEAT

    def heard(self) -> None:
        """A message of the worker arrived."""
        self._heard = True
        self._last_heard = time.monotonic()

    def ask(self) -> None:
        """Send a ping, once per heartbeat interval. To be called before each tick."""
        if self._ticks % TICKS_PER_HEARTBEAT == 0:
            self._send(w.WorkerEnvelope(ping=w.Ping(token=0)))
        self._ticks += 1

    def tick(self, *, excused: bool) -> bool:
        """A tick has passed; return whether the worker counts as dead. With `excused` the tick does not count as
        silence.

        Silence is counted in ticks instead of time: while this process itself is stopped, no tick passes.
        """
        self._silent_ticks = 0 if self._heard or excused else self._silent_ticks + 1
        self._heard = False
        return self._silent_ticks >= _SILENT_TICKS

    def pong(self, pong: w.Pong) -> None:
        """The worker answered a ping."""
        self.source = SourceHealth.ValueType(pong.source_health)
        self.source_detail = printable(pong.source_detail, 300)
        waiter = self._pings.pop(pong.token, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def ping(self, timeout_s: float) -> float:
        """Ping the worker, and return the seconds until its answer.

        Raises:
            TimeoutError: it did not answer in time.
        """
        token = self._next_token
        self._next_token += 1
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings[token] = waiter
        began = time.monotonic()
        try:
            self._send(w.WorkerEnvelope(ping=w.Ping(token=token)))
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            self._pings.pop(token, None)
        return time.monotonic() - began
