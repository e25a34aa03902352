"""The plant's alarms as an async iterator that comes back by itself after a cut.

As with events, `position` never runs ahead of the application, and waiting may be given up without losing anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from mxgw.v1 import alarm_service_pb2, alarms_pb2, event_service_pb2
from mxgw_client._attempt import Attempt, Wire
from mxgw_client._calls import Calls
from mxgw_client.alarms import (
    AlarmControl,
    AlarmItem,
    AlarmSnapshot,
    SnapshotComplete,
    alarm_from_message,
    event_from_message,
    provider_from_message,
)
from mxgw_client.errors import CallTimedOut, MxgwClientError, StreamStale
from mxgw_client.events import StreamContext
from mxgw_client.frames import Gap, Heartbeat, Progress, StreamCut, StreamOpened, frame_from_message
from mxgw_client.position import Position, Start, after
from mxgw_client.references import ReferenceMap
from mxgw_client.resume import Ladder, ResumePolicy, is_temporary

# Frames that are the same in both kinds of stream.
_SHARED = frozenset({"opened", "gap", "progress", "heartbeat", "draining"})


@dataclass(frozen=True, slots=True)
class _Batch:
    """Consecutive events as they came."""

    raw: tuple[alarms_pb2.AlarmEvent, ...]


_Frame: TypeAlias = "_Batch | AlarmControl"


class AlarmStream(AsyncIterator["AlarmItem"]):
    """Alarms in order; made by `Gateway.alarms`. Iterate over it, or `async with` it to have it closed.

    First comes a StreamOpened; unless `start` says otherwise then `AlarmSnapshot`s and a `SnapshotComplete`, and from
    there on transitions. After a cut it yields a `StreamCut`, comes back as `resume` says, and goes on after the last
    item; when something was lost a `Gap` says so and a snapshot follows. One task at a time may read.
    """

    def __init__(
        self,
        calls: Calls,
        request: alarm_service_pb2.StreamAlarmsRequest,
        tasks: asyncio.TaskGroup,
        *,
        start: Start = Start.SNAPSHOT,
        resume: ResumePolicy | None = None,
    ) -> None:
        self._calls = calls
        self._request = request
        self._tasks = tasks
        self._resume = resume
        self._ladder = Ladder(resume, _now_s) if resume is not None else None
        self._attempt: Attempt[_Frame] | None = None
        self._waiting: deque[alarms_pb2.AlarmEvent] = deque()
        # Read by `open`, and still to be handed out.
        self._first: StreamOpened | None = None
        # Set by `close`, for whoever waits for the next attempt.
        self._closed = asyncio.Event()
        self._failure: MxgwClientError | None = None
        self._retry_at_s: float | None = None
        self._dead_generation: int | None = None
        self._snapshot_owed = start.kind == Start.SNAPSHOT.kind or request.with_snapshot
        self._position: Position | None = start.position
        self._is_read = False
        self.opened: StreamOpened | None = None

    @property
    def position(self) -> Position | None:
        """The place after everything handed out so far; store it after processing, and start `after` it."""
        return self._position

    async def __anext__(self) -> AlarmItem:
        while True:
            if self._waiting:
                raw = self._waiting.popleft()
                assert self.opened is not None
                self._position = Position(self.opened.position.epoch, raw.sequence)
                event = event_from_message(raw, self._position.epoch)
                if event is not None:
                    return event
                continue
            if self._first is not None:
                opened, self._first = self._first, None
                self._account_for(opened)
                return opened
            frame = await self._next_frame()
            if isinstance(frame, _Batch):
                self._waiting.extend(frame.raw)
                continue
            self._account_for(frame)
            return frame

    async def _next_frame(self) -> _Frame:
        if self._is_read:
            raise RuntimeError("another task reads this stream already; open a second one, or share what is read")
        self._is_read = True
        try:
            while True:
                frame = await self._try_frame()
                if frame is not None:
                    return frame
        finally:
            self._is_read = False

    async def _try_frame(self) -> _Frame | None:
        if self._failure is not None:
            raise self._failure
        if self._attempt is None and self._retry_at_s is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._retry_at_s):
                    await self._closed.wait()
            generation, self._dead_generation = self._dead_generation, None
            if generation is not None and not self._closed.is_set():
                await self._calls.renew(generation)
        if self._closed.is_set():
            raise StopAsyncIteration
        attempt = self._attempt = self._attempt or self._new_attempt()
        try:
            frame = await attempt.next_frame()
        except MxgwClientError as error:
            return self._after(attempt, error)
        if frame is None:
            raise StopAsyncIteration
        if isinstance(frame, StreamOpened):
            self.opened = frame
        elif attempt.is_proved and self._ladder is not None:
            self._ladder.works()
        return frame

    def _new_attempt(self) -> Attempt[_Frame]:
        request = alarm_service_pb2.StreamAlarmsRequest()
        request.CopyFrom(self._request)
        if self._retry_at_s is not None and self._position is not None:
            request.start.CopyFrom(after(self._position).to_message())
            request.with_snapshot = self._snapshot_owed
        timeout_s = self._calls.options.timeout_s
        if self._resume is not None and self.opened is not None:
            timeout_s = self._resume.attempt_timeout_s
        wire: Wire[_Frame] = Wire(
            "StreamAlarms",
            lambda calls: calls.alarm_stream(request),
            alarm_service_pb2.StreamAlarmsResponse,
            _frame_of,
            _span_of,
        )
        return Attempt(self._calls, wire, StreamContext(b"", ReferenceMap()), self._tasks, timeout_s)

    def _after(self, attempt: Attempt[_Frame], error: MxgwClientError) -> StreamCut | None:
        attempt.cancel()
        if self._closed.is_set():
            raise StopAsyncIteration
        delay_s = None
        if self._ladder is not None and is_temporary(error, was_open=self.opened is not None):
            delay_s = self._ladder.step(error)
        if delay_s is None:
            self._failure = error
            raise error
        self._attempt, self._retry_at_s = None, _now_s() + delay_s
        if isinstance(error, StreamStale | CallTimedOut):
            self._dead_generation = attempt.generation
        return StreamCut(error, self._position, delay_s) if attempt.opened is not None else None

    def _account_for(self, frame: AlarmControl) -> None:
        match frame:
            case StreamOpened(position=position):
                if frame.was_resuming and not frame.recovered:
                    # A snapshot follows the gap, unless another answer to gaps was asked for.
                    asked = self._request.on_gap
                    self._snapshot_owed |= asked in (
                        event_service_pb2.ON_GAP_UNSPECIFIED,
                        event_service_pb2.ON_GAP_SNAPSHOT,
                    )
                elif self._position is None or not frame.was_resuming:
                    self._position = position
            case Progress(position=position) | Heartbeat(position=position):
                self._position = position
            case AlarmSnapshot():
                self._snapshot_owed = True
            case SnapshotComplete(position=position):
                self._snapshot_owed = False
                self._position = position
            case Gap() if frame.covers_its_range:
                self._position = Position(frame.epoch, frame.last_lost)
            case _:
                pass

    async def open(self) -> StreamOpened:
        """Open the stream and wait for its first frame, which iteration still returns as the first item.

        Raises:
            GatewayRefusal, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        while self.opened is None:
            frame = await self._next_frame()
            if isinstance(frame, StreamOpened):
                self._first = frame
        return self.opened

    async def close(self) -> None:
        """End the stream; idempotent. A task that waits in it sees the iteration stop."""
        self._closed.set()
        self._waiting.clear()
        self._first = None
        if self._attempt is not None:
            self._attempt.cancel()
            await self._attempt.wait_cancelled()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AlarmStream at {self._position}>"


def _frame_of(message: alarm_service_pb2.StreamAlarmsResponse, context: StreamContext) -> _Frame | None:
    kind = message.WhichOneof("frame")
    if kind in _SHARED:
        # The contract gives these frames the same numbers and messages in both streams.
        twin = event_service_pb2.StreamEventsResponse.FromString(message.SerializeToString())
        return frame_from_message(twin, context)  # type: ignore[return-value]  # none of them is of events
    match kind:
        case "events":
            return _Batch(tuple(message.events.events)) if message.events.events else None
        case "snapshot":
            alarms = tuple(alarm_from_message(active.alarm) for active in message.snapshot.alarms)
            return AlarmSnapshot(Position.from_message(message.snapshot.position), alarms)
        case "snapshot_complete":
            complete = message.snapshot_complete
            return SnapshotComplete(Position.from_message(complete.position), provider_from_message(complete.provider))
    return None


def _span_of(frame: object) -> tuple[int, int, int] | None:
    return (frame.raw[0].sequence, frame.raw[-1].sequence, len(frame.raw)) if isinstance(frame, _Batch) else None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
