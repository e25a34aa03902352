"""The health of one worker: when its last message arrived, the health of its source, and how quickly it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mxgw.v1.events_pb2 import SourceHealth
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.printable import printable

# A worker that has sent nothing for 2.5 heartbeat intervals counts as silent (docs/reference/streams.md#silence).
# Silence is counted in ticks, which are quarters of an interval. Nine ticks without a message are 2.25 to 2.5
# intervals, because the last message arrived somewhere within the tick before them.
TICKS_PER_HEARTBEAT = 4
_SILENT_TICKS = 9
# After this many heartbeat intervals without a message the state of the worker is shown as SILENT. The worker is killed
# a little later.
_QUIET_HEARTBEATS = 1.5


class Health:
    """Decides whether a worker still lives.

    Call `heard` for every message of the worker, and `pong` for each Pong. Call `ask` and then `tick` every `tick_s`
    seconds.
    """

    def __init__(self, interval_s: float, send: Callable[[w.WorkerEnvelope], None]) -> None:
        self._interval_s = interval_s
        self._send = send
        self._last_heard = time.perf_counter()
        self._heard = False
        self._silent_ticks = 0
        self._ticks = 0
        # Key: the token of a Ping. Value: a future that the Pong with the same token completes.
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._next_token = 1
        self.source: SourceHealth.ValueType = SourceHealth.SOURCE_HEALTH_UNSPECIFIED
        self.source_detail = ""

    @property
    def silence_s(self) -> float:
        """Seconds since the worker's last message."""
        return time.perf_counter() - self._last_heard

    @property
    def is_quiet(self) -> bool:
        """Whether a message of the worker is overdue."""
        return self.silence_s > _QUIET_HEARTBEATS * self._interval_s

    @property
    def tick_s(self) -> float:
        """Seconds between two calls of `tick`."""
        return self._interval_s / TICKS_PER_HEARTBEAT

    def heard(self) -> None:
        """Call this when a message of the worker has arrived. The silence then starts again from zero."""
        self._heard = True
        self._last_heard = time.perf_counter()

    def ask(self) -> None:
        """Send a Ping, but only at every fourth call: one per heartbeat interval. Call this before each `tick`."""
        if self._ticks % TICKS_PER_HEARTBEAT == 0:
            self._send(w.WorkerEnvelope(ping=w.Ping(token=0)))
        self._ticks += 1

    def tick(self, *, excused: bool) -> bool:
        """Count a quarter of a heartbeat interval that has passed. Return whether the worker counts as dead.

        `excused` is true when the worker cannot be expected to send messages now; the silence then starts again from
        zero. Silence is counted in ticks and not in seconds, because while the gateway's own process is suspended, no
        tick passes, and the worker must not be blamed for this time.
        """
        self._silent_ticks = 0 if self._heard or excused else self._silent_ticks + 1
        self._heard = False
        return self._silent_ticks >= _SILENT_TICKS

    def pong(self, pong: w.Pong) -> None:
        """Store the health of the source that a Pong reports, and complete the `ping` that waits for this Pong."""
        self.source = SourceHealth.ValueType(pong.source_health)
        self.source_detail = printable(pong.source_detail, 300)
        waiter = self._pings.pop(pong.token, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def ping(self, timeout_s: float) -> float:
        """Send a Ping, and return after how many seconds the worker answered.

        Raises:
            TimeoutError: the worker did not answer in time.
        """
        token = self._next_token
        self._next_token += 1
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings[token] = waiter
        began = time.perf_counter()
        try:
            self._send(w.WorkerEnvelope(ping=w.Ping(token=token)))
            async with asyncio.timeout(timeout_s):
                await waiter
        finally:
            self._pings.pop(token, None)
        return time.perf_counter() - began
