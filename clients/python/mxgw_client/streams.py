"""The event stream of a session and the stream of alarms, as async iterators.

The module `resume` reads the frames and opens a stream again after a cut. The classes here pass the frames to the
application, and take batches apart into single events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from mxgw.v1 import alarm_service_pb2, alarms_pb2, event_service_pb2, events_pb2
from mxgw_client._attempt import StreamKind
from mxgw_client._calls import Calls
from mxgw_client.alarms import (
    AlarmItem,
    AlarmSnapshot,
    SnapshotComplete,
    alarm_from_message,
    event_from_message,
    provider_from_message,
)
from mxgw_client.enums import OnGap
from mxgw_client.events import DATA_CHANGE, OTHERS, DataChange, Event, EventBatch, StreamContext, UnknownEvent
from mxgw_client.frames import Frame, SharedFrame, Snapshot, SnapshotEnd, StreamItem, StreamOpened, frame_from_message
from mxgw_client.position import Position, Start
from mxgw_client.position_file import PositionFile
from mxgw_client.references import ReferenceMap
from mxgw_client.resume import ResumePolicy, ResumingStream

_EventFrame: TypeAlias = EventBatch | Snapshot | SnapshotEnd

EVENTS: StreamKind[_EventFrame] = StreamKind(
    name="StreamEvents",
    start=lambda calls, request: calls.stream(calls.events.StreamEvents, request),
    response=event_service_pb2.StreamEventsResponse,
    frame_of=frame_from_message,
    batch=EventBatch,
    snapshot=Snapshot,
    snapshot_end=SnapshotEnd,
    default_on_gap=OnGap.DELIVER_RETAINED,
)


class EventStream(AsyncIterator[StreamItem]):
    """Events and control frames of one session, in order; made by `Session.events`.

    Use the stream in an `async with` block, which closes it at the end. The block begins when StreamOpened has come, so
    a refusal of the gateway is raised by `async with`. The application can leave the `async for` loop and begin another
    one later, which goes on with the next event.

        async with session.events() as events:
            async for event in events:
                if isinstance(event, DataChange):
                    print(event.reference, event.value)

    When the stream is cut, the loop gets a `StreamCut`. The client then opens the stream again (see `ResumePolicy`),
    and the loop gets the StreamOpened of the new stream, followed by a `Gap` if events were lost. When the stream ends
    and the application did not close it, the loop raises an `MxgwClientError`, in most cases a `StreamEnded`, that says
    why. Only one task at a time is allowed to read.
    """

    def __init__(
        self,
        calls: Calls,
        request: event_service_pb2.StreamEventsRequest,
        references: ReferenceMap,
        tasks: asyncio.TaskGroup,
        *,
        start: Start = Start.OLDEST,
        resume: ResumePolicy | None = None,
        position_file: PositionFile | None = None,
    ) -> None:
        subject = f"session {request.session_id}"
        self._stream = ResumingStream(
            EVENTS, calls, request, references, tasks, start=start, resume=resume, subject=subject
        )
        self._point = self._stream.point
        self._file = position_file
        if position_file is not None:
            position_file.close_when_dropped(self)
        self._batch: EventBatch | None = None
        # The events of the present batch that the application has not got yet, and the epoch and references for them.
        self._rest: Iterator[events_pb2.Event] = iter(())
        self._context = StreamContext(b"", references)
        # The event that the application got last; None when a control frame or a batch came after it. It is kept so
        # that a Position object is made only when the application reads `position`, not for every event.
        self._last_event: Event | None = None

    @property
    def opened(self) -> StreamOpened | None:
        """The newest StreamOpened, also while the stream is cut; None before the first one."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position of the last event or control frame that the application got.

        It is None when the application got nothing yet and `start` names no position. It moves as soon as an event is
        returned, so store it only after the event is processed.
        """
        if self._last_event is not None:
            return self._last_event.position
        return self._point.position

    @property
    def snapshot_owed(self) -> bool:
        """True while the application waits for a snapshot, or for the rest of one."""
        return self._point.snapshot_owed

    @property
    def is_cut(self) -> bool:
        """True while the stream is cut and not yet open again; the last values are perhaps out of date."""
        return self._stream.status == "cut"

    @property
    def stale_after_s(self) -> float:
        """The number of seconds without any frame after which the stream counts as cut.

        Until StreamOpened has come, it is the number of seconds that an attempt waits for StreamOpened.
        """
        return self._stream.stale_after_s

    async def __anext__(self) -> StreamItem:
        if self._file is not None:
            self._note()
        while True:
            for raw in self._rest:
                view = DataChange() if raw.kind == DATA_CHANGE else OTHERS.get(raw.kind, UnknownEvent)()
                view.raw, view._context, view.sequence = raw, self._context, raw.sequence
                self._last_event = view
                return view
            frame = await self._next_frame()
            if not isinstance(frame, EventBatch):
                self._point.hand_out(frame)
                return frame
            self._batch, self._rest, self._context = frame, iter(frame.raw), frame.context

    async def next_batch(self) -> Frame:
        """Return the next batch of events, or the next control frame.

        When `async for` has read a part of a batch, this method first returns the rest of that batch. `position` moves
        to the last event of the batch at once.

        Raises:
            StopAsyncIteration: the application closed the stream.
            MxgwClientError: the stream ended for another reason; in most cases a StreamEnded.
        """
        if self._file is not None:
            self._note()
        frame = self._rest_of_batch() or await self._next_frame()
        if isinstance(frame, EventBatch):
            self._last_event, self._point.position = None, frame.position
        else:
            self._point.hand_out(frame)
        return frame

    def batches(self) -> AsyncIterator[Frame]:
        """Iterate over batches of events and control frames. This is the fastest way to read many events."""
        return _Batches(self)

    def _note(self) -> None:
        """Store the position in the position file. This is called when the application asks for the next event or
        frame, which shows that it has processed everything before.
        """
        assert self._file is not None
        self._file.note(self.position, snapshot_owed=self.snapshot_owed)

    def _rest_of_batch(self) -> EventBatch | None:
        batch, last = self._batch, self._last_event
        self._batch, self._rest = None, iter(())
        if batch is None or last is None or last.sequence >= batch.last_sequence:
            return None
        return batch.after(last.sequence)

    async def _next_frame(self) -> Frame:
        self._point.position, self._last_event = self.position, None
        return await self._stream.next_frame()

    async def open(self) -> StreamOpened:
        """Open the stream and return its StreamOpened. An iteration over the stream begins with the same frame.

        Raises:
            GatewayRefusal, SessionEnded, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        return await self._stream.open()

    async def close(self) -> None:
        """End the stream; idempotent. An `async for` that waits in another task ends normally.

        Raises:
            PositionFileError: the last position could not be written to the position file.
        """
        await self._close(is_done=True)

    async def _close(self, *, is_done: bool) -> None:
        """End the stream. `is_done` says whether the application has processed the last event that it got.

        If it has not, the position of that event is not stored in the position file.
        """
        file, self._file = self._file, None
        position, snapshot_owed = self.position, self.snapshot_owed
        self._batch, self._rest = None, iter(())
        await self._stream.close()
        if file is not None:
            await asyncio.to_thread(file.end, position if is_done else None, snapshot_owed=snapshot_owed)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self._close(is_done=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close(is_done=error is None or error is self._stream.failure)

    def __repr__(self) -> str:
        return f"<EventStream {self._stream.status} at {self.position}>"


class _Batches(AsyncIterator[Frame]):
    """The iterator that `EventStream.batches` returns.

    This is a class and not a generator, because a generator would have to be closed after a `break`.
    """

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Frame:
        return await self._stream.next_batch()


@dataclass(frozen=True, slots=True)
class _AlarmBatch:
    """The alarm events of one message, in order."""

    raw: tuple[alarms_pb2.AlarmEvent, ...]

    @property
    def first_sequence(self) -> int:
        return self.raw[0].sequence

    @property
    def last_sequence(self) -> int:
        return self.raw[-1].sequence

    def __len__(self) -> int:
        return len(self.raw)


_AlarmFrame: TypeAlias = _AlarmBatch | AlarmSnapshot | SnapshotComplete

# The names of the frames that exist in both kinds of stream.
_SHARED = frozenset({"opened", "gap", "progress", "heartbeat", "draining"})


def _alarm_frame_from_message(
    message: alarm_service_pb2.StreamAlarmsResponse, context: StreamContext
) -> _AlarmFrame | SharedFrame | None:
    kind = message.WhichOneof("frame")
    if kind in _SHARED:
        # The field numbers and messages of these frames are the same in both contracts, so a message of the alarm
        # stream can be decoded as one of the event stream.
        twin = event_service_pb2.StreamEventsResponse.FromString(message.SerializeToString())
        return frame_from_message(twin, context)  # type: ignore[return-value]  # no frame of _SHARED holds events
    match kind:
        case "events":
            return _AlarmBatch(tuple(message.events.events)) if message.events.events else None
        case "snapshot":
            alarms = tuple(alarm_from_message(active.alarm) for active in message.snapshot.alarms)
            return AlarmSnapshot(Position.from_message(message.snapshot.position), alarms)
        case "snapshot_complete":
            complete = message.snapshot_complete
            return SnapshotComplete(Position.from_message(complete.position), provider_from_message(complete.provider))
    return None


ALARMS: StreamKind[_AlarmFrame] = StreamKind(
    name="StreamAlarms",
    start=lambda calls, request: calls.stream(calls.alarms.StreamAlarms, request),
    response=alarm_service_pb2.StreamAlarmsResponse,
    frame_of=_alarm_frame_from_message,
    batch=_AlarmBatch,
    snapshot=AlarmSnapshot,
    snapshot_end=SnapshotComplete,
    default_on_gap=OnGap.SNAPSHOT,
)


class AlarmStream(AsyncIterator[AlarmItem]):
    """The alarms of the plant, in order; made by `Gateway.alarms`.

    Use the stream in an `async with` block, which closes it at the end. The stream begins with a StreamOpened. With the
    default `start` the active alarms follow, as some `AlarmSnapshot`s and a `SnapshotComplete`, and then the changes.

    When the stream is cut, the loop gets a `StreamCut`. The client then opens the stream again (see `ResumePolicy`) and
    goes on after the last alarm change or frame that the application got. If changes were lost, a `Gap` comes, and then
    a new snapshot of the active alarms (unless `on_gap` was set to something else). Only one task at a time is allowed
    to read.
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
        self._stream = ResumingStream(
            ALARMS, calls, request, ReferenceMap(), tasks, start=start, resume=resume, subject="alarms"
        )
        self._point = self._stream.point
        # The events of the present batch that the application has not got yet.
        self._rest: deque[alarms_pb2.AlarmEvent] = deque()

    @property
    def opened(self) -> StreamOpened | None:
        """The newest StreamOpened, also while the stream is cut; None before the first one."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position of the last alarm change or control frame that the application got.

        It is None when the application got nothing yet and `start` names no position. Store it only after the alarm
        change is processed.
        """
        return self._point.position

    async def __anext__(self) -> AlarmItem:
        while True:
            while self._rest:
                raw = self._rest.popleft()
                assert self.opened is not None
                self._point.position = Position(self.opened.position.epoch, raw.sequence)
                event = event_from_message(raw, self._point.position.epoch)
                if event is not None:
                    return event
            frame = await self._stream.next_frame()
            if not isinstance(frame, _AlarmBatch):
                self._point.hand_out(frame)
                return frame
            self._rest.extend(frame.raw)

    async def open(self) -> StreamOpened:
        """Open the stream and return its StreamOpened. An iteration over the stream begins with the same frame.

        Raises:
            GatewayRefusal, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        return await self._stream.open()

    async def close(self) -> None:
        """End the stream; idempotent. An `async for` that waits in another task ends normally."""
        self._rest.clear()
        await self._stream.close()

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
        return f"<AlarmStream at {self.position}>"
