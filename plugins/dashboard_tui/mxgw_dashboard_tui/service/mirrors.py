"""The events of watched sessions. Each watched session has one mirror, which all its watchers share.

A watcher is a dashboard that shows the events of one session. A mirror is an internal reader of the session's events,
which conflates them. The mirror starts when the first watcher comes, and ends when the last watcher has left. It works
whether or not a client reads the session's events too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mxgw.convert import timestamp_from_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import Event, Gap, GapReason
from mxgw_core.api import Observation
from mxgw_core.api.errors import GatewayError, InternalError

log = logging.getLogger(__name__)

# Events that arrive within this time are sent as one message.
_GATHER_S = 0.05
# The limits of one message. A person cannot read more events at once, so only the newest events are kept.
_MESSAGE_EVENTS = 500
_MESSAGE_BYTES = 512 * 1024
_MESSAGE_GAPS = 50
# How many messages can wait for one watcher; when there are more, the oldest message is dropped.
_READER_MESSAGES = 8
# A gap with one of these reasons is in the mirror only: the watchers see fewer events, but no subscriber lost any.
_OWN_GAPS = frozenset({GapReason.GAP_REASON_CONFLATED, GapReason.GAP_REASON_QUEUE_DROPPED})


class Reader:
    """The bounded queue of messages for one watcher. When it is full, the oldest message is dropped."""

    def __init__(self) -> None:
        self._messages: deque[pb.WatchEventsResponse] = deque()
        self._skipped = 0
        self._arrived = asyncio.Event()
        self._error: GatewayError | None = None

    def offer(self, message: pb.WatchEventsResponse) -> None:
        """Add a message; drop the oldest message when the queue is full."""
        if len(self._messages) == _READER_MESSAGES:
            self._messages.popleft()
            self._skipped += 1
        self._messages.append(message)
        self._arrived.set()

    def end(self, error: GatewayError) -> None:
        """End the queue: `next` returns the messages that still wait, and then raises `error`."""
        self._error = error
        self._arrived.set()

    async def next(self, timeout_s: float) -> pb.WatchEventsResponse | None:
        """Return the next message; None when no message arrived within `timeout_s`.

        Raises:
            GatewayError: the session has ended, or its mirror failed.
        """
        if not self._messages and self._error is None:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if not self._messages:
            assert self._error is not None
            raise self._error
        message = pb.WatchEventsResponse(skipped=self._skipped)
        message.MergeFrom(self._messages.popleft())
        return message


class Mirror:
    """The mirror of one session: reads the session's events, and passes them to the `Reader` of every watcher."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._gaps: list[Gap] = []
        self._left_out = 0
        self._head = 0
        # The timer that ends the gathering: after `_GATHER_S` the gathered events are sent as one message.
        self._timer: asyncio.TimerHandle | None = None
        # The task of `run`; `Mirrors` starts and cancels it.
        self.task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.done()

    async def run(self, seen: Observation, session_id: str, interval_s: float) -> None:
        """Read the session's events until the session has ended; then end the `Reader` of every watcher.

        When the mirror fails, only the watchers of this session get an error. They call again, which starts a new
        mirror.
        """
        try:
            async with seen.watch(session_id, interval_s) as frames:
                async for frame in frames:
                    self._take(frame)
        except GatewayError as error:
            self._end(error)
        except Exception:
            log.exception("the mirror of session %s broke", session_id)
            self._end(InternalError("the view of this session's events broke: it begins anew"))
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _end(self, error: GatewayError) -> None:
        self._flush()
        for reader in self.readers:
            reader.end(error)

    def _take(self, frame: StreamEventsResponse) -> None:
        if frame.HasField("gap"):
            self._take_gap(frame.gap)
        for event in frame.events.events:
            self._events.append(event)
            self._bytes += event.ByteSize()
            self._head = event.sequence
            while len(self._events) > 1 and (len(self._events) > _MESSAGE_EVENTS or self._bytes > _MESSAGE_BYTES):
                self._bytes -= self._events.popleft().ByteSize()
                self._left_out += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self._flush)

    def _take_gap(self, gap: Gap) -> None:
        self._head = max(self._head, gap.last_lost)
        if gap.reason in _OWN_GAPS:
            self._left_out += gap.count
        elif len(self._gaps) < _MESSAGE_GAPS:
            self._gaps.append(gap)

    def _flush(self) -> None:
        self._timer = None
        if not (self._events or self._gaps or self._left_out):
            return
        message = pb.WatchEventsResponse(
            as_of=timestamp_from_ns(time.time_ns()),
            events=self._events,
            gaps=self._gaps,
            head_sequence=self._head,
            conflated_events=self._left_out,
        )
        self._events.clear()
        self._gaps.clear()
        self._bytes = self._left_out = 0
        for reader in self.readers:
            reader.offer(message)


class Mirrors:
    """The mirrors of all watched sessions. The mirrors run as tasks of the task group `tasks`."""

    def __init__(self, seen: Observation, interval_s: float, tasks: asyncio.TaskGroup) -> None:
        self._seen = seen
        self._interval_s = interval_s
        self._tasks = tasks
        self._mirrors: dict[str, Mirror] = {}

    def __len__(self) -> int:
        return len(self._mirrors)

    def close(self) -> None:
        """Cancel the tasks of all mirrors."""
        for mirror in self._mirrors.values():
            if mirror.task is not None:
                mirror.task.cancel()

    @asynccontextmanager
    async def reading(self, session_id: str) -> AsyncIterator[Reader]:
        """Watch a session while the block runs: yield a reader that gets the session's events from now on."""
        mirror = self._mirrors.get(session_id)
        if mirror is None or mirror.is_over:
            mirror = self._mirrors[session_id] = Mirror()
            mirror.task = self._tasks.create_task(
                mirror.run(self._seen, session_id, self._interval_s), name=f"dashboard:mirror:{session_id}"
            )
        reader = Reader()
        mirror.readers.add(reader)
        try:
            yield reader
        finally:
            mirror.readers.discard(reader)
            if not mirror.readers:
                assert mirror.task is not None
                mirror.task.cancel()
                if self._mirrors.get(session_id) is mirror:
                    del self._mirrors[session_id]
