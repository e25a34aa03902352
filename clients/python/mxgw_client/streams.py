"""The event stream of a session and the stream of alarms, as async iterators that come back by themselves after a cut.

`resume` decides how they come back. Here their frames are handed out as single events.
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

    Iterate over it directly, or `async with` it to have it closed at the end of the block; entering waits for
    StreamOpened, so refusals are raised there. The application may leave the loop and iterate again later.

        async with session.events() as events:
            async for event in events:
                if isinstance(event, DataChange):
                    print(event.reference, event.value)

    After a cut it yields a `StreamCut`, comes back on its own as `resume` says, and yields the StreamOpened of the new
    stream; a `Gap` follows if something was lost. When it ends for good, and not because the application closed it, a
    `StreamEnded` tells why. One task at a time may read.
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
        # The events of the batch that were not handed out yet, and what they share.
        self._rest: Iterator[events_pb2.Event] = iter(())
        self._context = StreamContext(b"", references)
        # The event handed out last, if nothing was handed out since. Its position is made only when it is asked for.
        self._last_event: Event | None = None

    @property
    def opened(self) -> StreamOpened | None:
        """The first frame of the present stream, or of the last one after a cut; None before the stream is open."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position after everything handed to the application so far; None when nothing was and `start` names none.

        An event counts as handed out when it is returned, before the application has processed it: store the position
        after processing.
        """
        if self._last_event is not None:
            return self._last_event.position
        return self._point.position

    @property
    def snapshot_owed(self) -> bool:
        """Whether a snapshot was promised or begun, and has not ended yet."""
        return self._point.snapshot_owed

    @property
    def is_cut(self) -> bool:
        """Whether the stream was cut and is not back yet: what was read last may be old."""
        return self._stream.status == "cut"

    @property
    def stale_after_s(self) -> float:
        """Silence after which the stream counts as cut; until StreamOpened it is the deadline of the attempt."""
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

        A batch counts as handed out as a whole. The rest of a batch that `async for` has begun comes first.

        Raises:
            StopAsyncIteration: the application closed the stream.
            StreamEnded: it ended for another reason.
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
        """Iterate over whole batches and control frames: the fast way to read many events at once."""
        return _Batches(self)

    def _note(self) -> None:
        """Write down the position: an application that asks for more has processed what it was handed before."""
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
        """Open the stream and wait for its first frame, which iteration still returns first.

        Raises:
            GatewayRefusal, SessionEnded, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        return await self._stream.open()

    async def close(self) -> None:
        """End the stream; idempotent. A task that waits in it sees the iteration stop.

        Raises:
            PositionFileError: the last position could not be written.
        """
        await self._close(is_done=True)

    async def _close(self, *, is_done: bool) -> None:
        """`is_done`: the application has processed the last event it was handed."""
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
    """`EventStream.batches`; an object and not a generator, so that leaving the loop early leaves nothing behind."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Frame:
        return await self._stream.next_batch()


@dataclass(frozen=True, slots=True)
class _AlarmBatch:
    """Consecutive alarm events, as they came in one message."""

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

# Frames that are the same in both kinds of stream.
_SHARED = frozenset({"opened", "gap", "progress", "heartbeat", "draining"})


def _alarm_frame_from_message(
    message: alarm_service_pb2.StreamAlarmsResponse, context: StreamContext
) -> _AlarmFrame | SharedFrame | None:
    kind = message.WhichOneof("frame")
    if kind in _SHARED:
        # The contract gives these frames the same numbers and messages in both streams.
        twin = event_service_pb2.StreamEventsResponse.FromString(message.SerializeToString())
        return frame_from_message(twin, context)  # type: ignore[return-value]  # none of them is of events
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
    """Alarms in order; made by `Gateway.alarms`. Iterate over it, or `async with` it to have it closed.

    First comes a StreamOpened; unless `start` says otherwise then `AlarmSnapshot`s and a `SnapshotComplete`, and from
    there on transitions. After a cut it yields a `StreamCut`, comes back as `resume` says, and goes on after what was
    handed out last; when something was lost a `Gap` says so and a snapshot follows. One task at a time may read.
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
        # The events of the batch under way that were not handed out yet.
        self._rest: deque[alarms_pb2.AlarmEvent] = deque()

    @property
    def opened(self) -> StreamOpened | None:
        """The first frame of the present stream, or of the last one after a cut; None before the stream is open."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position after everything handed out so far; store it after processing, and start `after` it."""
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
        """Open the stream and wait for its first frame, which iteration still returns first.

        Raises:
            GatewayRefusal, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        return await self._stream.open()

    async def close(self) -> None:
        """End the stream; idempotent. A task that waits in it sees the iteration stop."""
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
