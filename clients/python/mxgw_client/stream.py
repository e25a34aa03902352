"""The event stream of a session, as an async iterator.

Two rules decide the shape. `position` never runs ahead of the application: it is that of the last item handed out.
And waiting may be given up (a timeout, a cancelled task) without losing anything: a read goes on in a task of its own
until it is done, and the next wait finds its result.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from grpc import aio

from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_client._calls import Calls, StreamCall
from mxgw_client.batch import VIEWS, EventBatch
from mxgw_client.errors import (
    CallTimedOut,
    MxgwClientError,
    ProtocolViolation,
    StreamEnded,
    StreamStale,
)
from mxgw_client.events import Event, StreamContext
from mxgw_client.frames import (
    Frame,
    Gap,
    Heartbeat,
    Progress,
    SnapshotEnd,
    StreamItem,
    StreamOpened,
    frame_from_message,
)
from mxgw_client.position import Position
from mxgw_client.references import ReferenceMap

log = logging.getLogger(__name__)

# A stream is stale after this many heartbeat intervals of silence. Source: the contract, StreamOpened.
STALE_INTERVALS = 2.5
# However long the application was away, a read gets this long before its stream counts as stale: what came meanwhile
# is still to be taken from the socket.
MINIMUM_WAIT_S = 0.25


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()
    CLOSED = enum.auto()


class EventStream(AsyncIterator[StreamItem]):
    """Events and control frames of one session, in order; made by `Session.events`.

    Iterate over it directly, or `async with` it to have it closed at the end of the block; entering waits for
    StreamOpened, so refusals are raised there. Iterating may stop and go on at will. When the stream ends for a
    reason that is not the application's own, a `StreamEnded` tells which; after `close` iteration just stops.
    One task at a time may read.
    """

    def __init__(
        self,
        calls: Calls,
        request: event_service_pb2.StreamEventsRequest,
        references: ReferenceMap,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._calls = calls
        self._request = request
        self._tasks = tasks
        self._state = _State.NEW
        self._call: StreamCall | None = None
        # The read under way; the task itself completes it, with a message or the exception that ends the stream.
        self._read: asyncio.Task[event_service_pb2.StreamEventsResponse | BaseException | None] | None = None
        self._read_since_s = 0.0
        self._has_reader = False
        self._failure: Exception | None = None
        self._context = StreamContext(b"", references)
        self._opened: StreamOpened | None = None
        # A frame that was read and not handed out yet.
        self._pushed_back: Frame | None = None
        self._batch: EventBatch | None = None
        self._raws: Iterator[events_pb2.Event] = iter(())
        self._last_event: Event | None = None
        self._position: Position | None = None

    # What is known about the stream

    @property
    def opened(self) -> StreamOpened | None:
        """The first frame; None before the stream is open."""
        return self._opened

    @property
    def position(self) -> Position | None:
        """The place after everything handed to the application so far; None before the first frame.

        An event counts as handed out when it is returned, before the application is done with it: store the position
        after processing.
        """
        if self._last_event is not None:
            return self._last_event.position
        return self._position

    @property
    def stale_after_s(self) -> float:
        """Silence after which reading raises StreamStale; until StreamOpened it is the connection's deadline."""
        if self._opened is None or self._opened.heartbeat_interval_s <= 0:
            return self._calls.options.timeout_s
        return STALE_INTERVALS * self._opened.heartbeat_interval_s

    @property
    def _is_closed(self) -> bool:
        return self._state is _State.CLOSED

    # Reading

    async def __anext__(self) -> StreamItem:
        for raw in self._raws:
            event = self._last_event = VIEWS[raw.kind](raw, self._context)
            return event
        frame = await self._next_frame()
        if not isinstance(frame, EventBatch):
            self._account_for(frame)
            return frame
        self._batch, self._raws = frame, iter(frame.raw)
        raw = next(self._raws)
        event = self._last_event = VIEWS[raw.kind](raw, self._context)
        return event

    async def next_batch(self) -> Frame:
        """Return the next batch of events, or the next control frame.

        A batch counts as handed out as a whole. What is left of a batch that `async for` began comes first.

        Raises:
            StopAsyncIteration: the application closed the stream.
            StreamEnded: it ended for another reason.
        """
        frame = self._rest_of_batch() or await self._next_frame()
        if isinstance(frame, EventBatch):
            self._last_event, self._position = None, frame.position
        else:
            self._account_for(frame)
        return frame

    def batches(self) -> AsyncIterator[Frame]:
        """Iterate over whole batches and control frames: the fast way for those who take many events at once."""
        return _Batches(self)

    def _rest_of_batch(self) -> EventBatch | None:
        batch, last = self._batch, self._last_event
        self._batch, self._raws = None, iter(())
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
                message = await self._next_message()
                read = frame_from_message(message, self._context)
                if read is not None:
                    self._check(read)
                    return read
        except ProtocolViolation as violation:
            self._end(violation)
            raise
        finally:
            self._has_reader = False

    async def _next_message(self) -> event_service_pb2.StreamEventsResponse:
        if self._state is _State.NEW:
            self._start()
        if self._is_closed:
            raise StopAsyncIteration
        if self._failure is not None:
            raise self._failure
        assert self._call is not None
        if self._read is None:
            self._read = self._tasks.create_task(_read_message(self._call), name="mxgw-client:stream-read")
            self._read_since_s = _now_s()
        remaining_s = self._read_since_s + self.stale_after_s - _now_s()
        done, _ = await asyncio.wait((self._read,), timeout=max(remaining_s, MINIMUM_WAIT_S))
        if self._is_closed:
            raise StopAsyncIteration
        if not done:
            raise self._end(self._silence())
        outcome = None if self._read.cancelled() else self._read.result()
        self._read = None
        if isinstance(outcome, event_service_pb2.StreamEventsResponse):
            return outcome
        raise self._end(self._ending(outcome))

    def _start(self) -> None:
        self._call = self._calls.stream(self._request)
        self._state = _State.OPEN

    def _silence(self) -> MxgwClientError:
        if self._opened is None:
            return CallTimedOut(
                f"StreamEvents got no answer from {self._calls.target} within {self.stale_after_s:g} s",
            )
        return StreamStale(
            f"no event and no heartbeat from {self._calls.target} for {self.stale_after_s:g} s; what was read last may "
            "be old. Open another stream, started after(stream.position)"
        )

    def _ending(self, outcome: BaseException | None) -> Exception:
        is_open = self._opened is not None
        if isinstance(outcome, aio.AioRpcError):
            return self._calls.failure(outcome, "StreamEvents", in_stream=is_open)
        if isinstance(outcome, Exception):
            return ProtocolViolation(f"a frame from {self._calls.target} could not be read: {type(outcome).__name__}")
        return StreamEnded(f"the stream from {self._calls.target} ended without a reason")

    def _end(self, failure: Exception) -> Exception:
        if self._state is _State.OPEN:
            self._state, self._failure = _State.ENDED, failure
            self._cancel()
        return failure

    # Order and position

    def _check(self, frame: Frame) -> None:
        """Refuse what the contract rules out: going back, repeating, or frames before StreamOpened."""
        if isinstance(frame, StreamOpened):
            if self._opened is not None:
                raise ProtocolViolation("a second StreamOpened in one stream")
            self._opened, self._context.epoch = frame, frame.position.epoch
            return
        if self._opened is None:
            raise ProtocolViolation(f"the stream began with {type(frame).__name__} instead of StreamOpened")
        if isinstance(frame, EventBatch):
            behind = self.position
            first, last = frame.first_sequence, frame.last_sequence
            if behind is not None and first <= behind.sequence:
                raise ProtocolViolation(f"event {first} came after everything up to {behind.sequence}")
            if last - first + 1 < len(frame):
                raise ProtocolViolation(f"{len(frame)} events between {first} and {last}: some came twice or back")

    def _account_for(self, frame: Frame) -> None:
        """Count a control frame as handed out."""
        before = self.position
        after = before
        match frame:
            case StreamOpened(position=position):
                after = position
            case Progress(position=position) | Heartbeat(position=position) | SnapshotEnd(position=position):
                after = position
            case Gap() if frame.covers_its_range and frame.epoch == self._context.epoch:
                after = Position(frame.epoch, frame.last_lost)
        if after is None or after is before or after.epoch != self._context.epoch:
            return
        if before is None or after.sequence > before.sequence:
            self._last_event, self._position = None, after

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
        """End the stream; idempotent. A task that waits in it sees the iteration stop."""
        self._state = _State.CLOSED
        self._batch, self._raws, self._pushed_back = None, iter(()), None
        read = self._read
        self._cancel()
        if read is not None:
            await asyncio.wait((read,))

    def _cancel(self) -> None:
        if self._read is not None:
            self._read.cancel()
        if self._call is not None:
            self._call.cancel()

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

    def __del__(self) -> None:
        # A loop left by `break` drops its stream without closing it. The call cancels itself when nobody holds it,
        # but a read under way does; garbage may be collected in any thread.
        read: asyncio.Task[object] | None = getattr(self, "_read", None)
        if read is not None and not read.get_loop().is_closed():
            read.get_loop().call_soon_threadsafe(read.cancel)

    def __repr__(self) -> str:
        return f"<EventStream {self._state.name.lower()} at {self.position}>"


class _Batches(AsyncIterator[Frame]):
    """`EventStream.batches`; an object and not a generator, so that leaving the loop leaves nothing behind."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Frame:
        return await self._stream.next_batch()


async def _read_message(call: StreamCall) -> event_service_pb2.StreamEventsResponse | BaseException | None:
    """Return the next message, None at the end of the stream, or the exception that ended it.

    It holds the call and not the stream, so that a stream which nobody holds any more can go. It raises nothing but
    its own cancellation: a failure must reach the reader, not the task group.
    """
    try:
        message = await call.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None
    except Exception as error:
        return error
    return message if isinstance(message, event_service_pb2.StreamEventsResponse) else None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
