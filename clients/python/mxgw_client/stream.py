"""The event stream of a session, as an async iterator that comes back by itself after a cut.

Two rules decide the shape. `position` never runs ahead of the application: it is that of the last item handed out, and
a resume begins right behind it. And waiting may be given up (a timeout, a cancelled task) without losing anything: what
was under way goes on, and the next wait finds its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_client._attempt import Attempt, event_wire
from mxgw_client._calls import Calls
from mxgw_client.batch import EventBatch
from mxgw_client.enums import GapReason, OnGap
from mxgw_client.errors import CallTimedOut, MxgwClientError, StreamStale
from mxgw_client.events import DATA_CHANGE, OTHERS, DataChange, Event, StreamContext, UnknownEvent
from mxgw_client.frames import (
    Frame,
    Gap,
    Heartbeat,
    Progress,
    Snapshot,
    SnapshotEnd,
    StreamCut,
    StreamItem,
    StreamOpened,
)
from mxgw_client.position import Position, Start, after
from mxgw_client.position_file import PositionFile, close_quietly
from mxgw_client.references import ReferenceMap
from mxgw_client.resume import Ladder, ResumePolicy, is_temporary

log = logging.getLogger(__name__)

# The policy whose gaps a snapshot follows.
_RESYNC = "resync"


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    CUT = enum.auto()
    ENDED = enum.auto()
    CLOSED = enum.auto()


class EventStream(AsyncIterator[StreamItem]):
    """Events and control frames of one session, in order; made by `Session.events`.

    Iterate over it directly, or `async with` it to have it closed at the end of the block; entering waits for
    StreamOpened, so refusals are raised there. Iterating may stop and go on at will.

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
        self._calls = calls
        self._request = request
        self._references = references
        self._tasks = tasks
        self._resume = resume
        self._ladder = Ladder(resume, _now_s) if resume is not None else None
        self._file = position_file
        # Writes the last place when the stream is dropped without being closed.
        self._finalizer = None if position_file is None else weakref.finalize(self, close_quietly, position_file)
        self._state = _State.NEW
        # Set by `close`, for whoever waits for the next attempt.
        self._closed = asyncio.Event()
        self._attempt: Attempt[Frame] | None = None
        self._next_attempt_at_s = 0.0
        # The generation of a channel that must be replaced before the next attempt.
        self._dead_generation: int | None = None
        self._has_reader = False
        self._failure: Exception | None = None
        self._opened: StreamOpened | None = None
        # Where the stream stands once the gap that its StreamOpened announced was handed out.
        self._behind_gap: Position | None = None
        # A snapshot was promised or begun, and its end was not handed out.
        self._snapshot_owed = start.kind == Start.SNAPSHOT.kind or request.with_snapshot
        # A frame that was read and not handed out yet.
        self._pushed_back: Frame | None = None
        self._batch: EventBatch | None = None
        # What is left of it, and what its events share.
        self._rest: Iterator[events_pb2.Event] = iter(())
        self._context = StreamContext(b"", references)
        self._last_event: Event | None = None
        self._position: Position | None = start.position

    # What is known about the stream

    @property
    def opened(self) -> StreamOpened | None:
        """The first frame of the present stream, or of the last one after a cut; None before the stream is open."""
        return self._opened

    @property
    def position(self) -> Position | None:
        """The place after everything handed to the application so far; None when nothing was and `start` names none.

        An event counts as handed out when it is returned, before the application is done with it: store the position
        after processing.
        """
        if self._last_event is not None:
            return self._last_event.position
        return self._position

    @property
    def snapshot_owed(self) -> bool:
        """Whether a snapshot was promised or begun, and did not end yet."""
        return self._snapshot_owed

    @property
    def is_cut(self) -> bool:
        """Whether the stream was cut and is not back yet: what was read last may be old."""
        return self._state is _State.CUT

    @property
    def stale_after_s(self) -> float:
        """Silence after which the stream counts as cut; until StreamOpened it is the deadline of the attempt."""
        return self._attempt.stale_after_s if self._attempt is not None else self._open_timeout_s

    @property
    def _open_timeout_s(self) -> float:
        if self._resume is None or self._opened is None:
            return self._calls.options.timeout_s
        return self._resume.attempt_timeout_s

    @property
    def _is_closed(self) -> bool:
        return self._state is _State.CLOSED

    # Reading

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
                self._account_for(frame)
                return frame
            self._batch, self._rest, self._context = frame, iter(frame.raw), frame.context

    async def next_batch(self) -> Frame:
        """Return the next batch of events, or the next control frame.

        A batch counts as handed out as a whole. What is left of a batch that `async for` began comes first.

        Raises:
            StopAsyncIteration: the application closed the stream.
            StreamEnded: it ended for another reason.
        """
        if self._file is not None:
            self._note()
        frame = self._rest_of_batch() or await self._next_frame()
        if isinstance(frame, EventBatch):
            self._last_event, self._position = None, frame.position
        else:
            self._account_for(frame)
        return frame

    def batches(self) -> AsyncIterator[Frame]:
        """Iterate over whole batches and control frames: the fast way for those who take many events at once."""
        return _Batches(self)

    def _note(self) -> None:
        """Whoever asks for more is done with what it has."""
        assert self._file is not None
        self._file.note(self.position, snapshot_owed=self._snapshot_owed)

    def _rest_of_batch(self) -> EventBatch | None:
        batch, last = self._batch, self._last_event
        self._batch, self._rest = None, iter(())
        if batch is None or last is None or last.sequence >= batch.last_sequence:
            return None
        return batch.after(last.sequence)

    async def _next_frame(self) -> Frame:
        """Return the next frame without counting it as handed out."""
        if self._pushed_back is not None:
            frame, self._pushed_back = self._pushed_back, None
            return frame
        if self._has_reader:
            raise RuntimeError("another task reads this stream already; open a second stream, or share what is read")
        self._has_reader = True
        try:
            while True:
                frame_or_none = await self._try_frame()
                if frame_or_none is not None:
                    return frame_or_none
        finally:
            self._has_reader = False

    async def _try_frame(self) -> Frame | None:
        """Return the next frame; None when an attempt failed that nobody need be told of."""
        if self._failure is not None and not self._is_closed:
            raise self._failure
        if self._attempt is None:
            await self._wait_for_next_attempt()
        if self._is_closed:
            raise StopAsyncIteration
        attempt = self._attempt = self._attempt or self._new_attempt()
        try:
            frame = await attempt.next_frame()
        except MxgwClientError as error:
            return self._after(attempt, error)
        if frame is None:
            raise StopAsyncIteration
        if isinstance(frame, StreamOpened):
            self._opened, self._state = frame, _State.OPEN
        elif attempt.is_proved and self._ladder is not None:
            self._ladder.works()
        return frame

    # Coming back

    async def _wait_for_next_attempt(self) -> None:
        if self._state is not _State.CUT:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_attempt_at_s):
                await self._closed.wait()
        generation, self._dead_generation = self._dead_generation, None
        if generation is not None and not self._is_closed:
            await self._calls.renew(generation)

    def _new_attempt(self) -> Attempt[Frame]:
        request = self._request
        if self._state is _State.CUT:
            request = event_service_pb2.StreamEventsRequest()
            request.CopyFrom(self._request)
            if self.position is not None:
                request.start.CopyFrom(after(self.position).to_message())
                request.with_snapshot = self._snapshot_owed
        context = StreamContext(b"", self._references)
        return Attempt(self._calls, event_wire(request), context, self._tasks, self._open_timeout_s)

    def _after(self, attempt: Attempt[Frame], error: MxgwClientError) -> StreamCut | None:
        """Decide what the end of an attempt means; raise it when it is the end of the stream."""
        attempt.cancel()
        if self._is_closed:
            raise StopAsyncIteration
        delay_s = None
        if self._ladder is not None and is_temporary(error, was_open=self._opened is not None):
            delay_s = self._ladder.step(error)
        if delay_s is None:
            self._state, self._failure = _State.ENDED, error
            raise error
        self._state, self._attempt, self._behind_gap = _State.CUT, None, None
        self._next_attempt_at_s = _now_s() + delay_s
        if isinstance(error, StreamStale | CallTimedOut):
            self._dead_generation = attempt.generation
        if attempt.opened is None:
            log.info("session %s: no stream yet, another attempt in %.1f s: %s", self._session, delay_s, error)
            return None
        log.info("session %s: the stream was cut, it comes back in %.1f s: %s", self._session, delay_s, error)
        return StreamCut(error, self.position, delay_s)

    @property
    def _session(self) -> str:
        return self._request.session_id

    # Position

    def _account_for(self, frame: Frame) -> None:
        """Count a control frame as handed out."""
        match frame:
            case StreamOpened(position=position):
                if frame.was_resuming and not frame.recovered:
                    # Not before the gap was handed out: a cut in between would swallow it.
                    self._behind_gap = position
                    self._snapshot_owed |= int(self._request.on_gap) == OnGap.SNAPSHOT
                else:
                    self._move_to(position)
            case Progress(position=position) | Heartbeat(position=position):
                self._move_to(position)
            case Snapshot():
                self._snapshot_owed = True
            case SnapshotEnd(position=position):
                self._snapshot_owed = False
                self._move_to(position)
            case Gap():
                self._account_for_gap(frame)
            case _:
                pass

    def _account_for_gap(self, gap: Gap) -> None:
        behind, self._behind_gap = self._behind_gap, None
        if gap.covers_its_range:
            self._move_to(Position(gap.epoch, gap.last_lost))
        elif behind is not None and not gap.last_lost:
            self._last_event, self._position = None, behind
        if gap.reason is GapReason.QUEUE_DROPPED and self._opened is not None and self._opened.policy == _RESYNC:
            self._snapshot_owed = True

    def _move_to(self, position: Position) -> None:
        assert self._opened is not None
        before = self.position
        if position.epoch != self._opened.position.epoch:
            return
        if before is None or before.epoch != position.epoch or position.sequence > before.sequence:
            self._last_event, self._position = None, position

    # Opening and closing

    async def open(self) -> StreamOpened:
        """Open the stream and wait for its first frame, which iteration still returns as the first item.

        Raises:
            GatewayRefusal, SessionEnded, GatewayUnreachable, CallTimedOut: the stream could not be opened.
        """
        if self._opened is None:
            self._pushed_back = await self._next_frame()
        assert self._opened is not None
        return self._opened

    async def close(self) -> None:
        """End the stream; idempotent. A task that waits in it sees the iteration stop.

        Raises:
            PositionFileError: the last place could not be written.
        """
        await self._close(is_done=True)

    async def _close(self, *, is_done: bool) -> None:
        """`is_done`: the application is done with the last item it was handed."""
        was_closed, self._state = self._is_closed, _State.CLOSED
        self._closed.set()
        position = self.position
        self._batch, self._rest, self._pushed_back = None, iter(()), None
        if self._attempt is not None:
            self._attempt.cancel()
            await self._attempt.wait_cancelled()
        if self._file is not None and not was_closed:
            file = self._file
            assert self._finalizer is not None
            self._finalizer.detach()
            try:
                if is_done:
                    file.note(position, snapshot_owed=self._snapshot_owed)
            finally:
                await asyncio.to_thread(file.close)

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
        await self._close(is_done=error is None or error is self._failure)

    def __repr__(self) -> str:
        return f"<EventStream {self._state.name.lower()} at {self.position}>"


class _Batches(AsyncIterator[Frame]):
    """`EventStream.batches`; an object and not a generator, so that leaving the loop leaves nothing behind."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Frame:
        return await self._stream.next_batch()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
