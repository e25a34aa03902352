"""One gRPC call of a stream: reads the frames one by one, and checks them.

An `Attempt` detects when the gateway has become silent, when the call has ended, and when a frame breaks the contract.
`resume.ResumingStream` makes one attempt after another. A reader that is cancelled while it waits for a frame loses
nothing: the message is read by a separate task, and the next call of `next_frame` gets its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message
from grpc import aio

from mxgw.v1 import alarm_service_pb2, event_service_pb2
from mxgw_client._calls import Calls
from mxgw_client.enums import OnGap
from mxgw_client.errors import CallTimedOut, MxgwClientError, ProtocolViolation, StreamEnded, StreamStale
from mxgw_client.events import StreamContext
from mxgw_client.frames import Gap, Heartbeat, Progress, SharedFrame, StreamOpened
from mxgw_client.position import Position

# A stream is stale after this many heartbeat intervals of silence. Source: the contract, StreamOpened.
STALE_INTERVALS = 2.5
# Every read waits at least this many seconds before the stream counts as stale. An application can be busy for longer
# than the time of silence that is allowed; frames that came meanwhile are then still unread in the socket.
MINIMUM_WAIT_S = 0.25

F = TypeVar("F")
StreamRequest: TypeAlias = event_service_pb2.StreamEventsRequest | alarm_service_pb2.StreamAlarmsRequest


class Batch(Protocol):
    """The events of one message, in order."""

    @property
    def first_sequence(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    def __len__(self) -> int: ...


class SnapshotEndFrame(Protocol):
    """The last frame of a snapshot."""

    @property
    def position(self) -> Position: ...


@dataclass(frozen=True, slots=True)
class StreamKind(Generic[F]):
    """Describes one of the two kinds of stream: events or alarms. `F` is the type of the frames that only this kind of
    stream has.

    Attributes:
        name: the name of the RPC, for error texts.
        start: starts the gRPC call for a request.
        response: the class of the messages of the stream.
        frame_of: returns the frame that is in a message; None when the message is to be skipped.
        batch: the class of the frame that carries events.
        snapshot: the class of the frame that carries a part of a snapshot.
        snapshot_end: the class of the frame that ends a snapshot.
        default_on_gap: what the gateway does at a gap when the request leaves `on_gap` unspecified.
    """

    name: str
    start: Callable[[Calls, Any], Any]
    response: type[Message]
    frame_of: Callable[[Any, StreamContext], F | SharedFrame | None]
    batch: type[Batch]
    snapshot: type[object]
    snapshot_end: type[SnapshotEndFrame]
    default_on_gap: OnGap


class Attempt(Generic[F]):
    """One call of a stream, read frame by frame until the call ends.

    The first `next_frame` starts the call. Only one task at a time is allowed to wait in `next_frame`.
    """

    def __init__(
        self,
        kind: StreamKind[F],
        calls: Calls,
        request: StreamRequest,
        context: StreamContext,
        tasks: asyncio.TaskGroup,
        open_timeout_s: float,
    ) -> None:
        self._kind = kind
        self._calls = calls
        self._request = request
        self._context = context
        self._tasks = tasks
        self._open_timeout_s = open_timeout_s
        self._call: Any = None
        # Reads the next message. Its result is the message, the exception that ended the call, or None at the end.
        self._read: asyncio.Task[Message | BaseException | None] | None = None
        self._read_since_s = 0.0
        # The next event must have a greater sequence than this number.
        self._last_sequence = 0
        # The event loop in which the call runs; None before the call starts.
        self._loop: asyncio.AbstractEventLoop | None = None
        # The generation of the gRPC channel on which the call runs; see `Calls.generation`.
        self.generation = calls.generation
        self.is_cancelled = False
        self.opened: StreamOpened | None = None
        # True when another frame has followed StreamOpened, which shows that the stream works.
        self.is_proved = False

    @property
    def stale_after_s(self) -> float:
        """The number of seconds without any frame after which `next_frame` raises StreamStale.

        Until StreamOpened has come, it is the number of seconds after which `next_frame` raises CallTimedOut.
        """
        if self.opened is None or self.opened.heartbeat_interval_s <= 0:
            return self._open_timeout_s
        return STALE_INTERVALS * self.opened.heartbeat_interval_s

    async def next_frame(self) -> F | SharedFrame | None:
        """Return the next frame; None after `cancel` was called.

        Raises:
            MxgwClientError: the call has ended, and no further frame will come; the error says why.
        """
        while not self.is_cancelled:
            message = await self._next_message()
            if message is None:
                return None
            frame = self._kind.frame_of(message, self._context)
            if frame is not None:
                self._check(frame)
                return frame
        return None

    async def _next_message(self) -> Message | None:
        if self._call is None:
            self._loop = asyncio.get_running_loop()
            self.generation = self._calls.generation
            self._call = self._kind.start(self._calls, self._request)
        if self._read is None:
            self._read = self._tasks.create_task(_read_message(self._call), name="mxgw-client:stream-read")
            self._read_since_s = now_s()
        remaining_s = self._read_since_s + self.stale_after_s - now_s()
        done, _ = await asyncio.wait((self._read,), timeout=max(remaining_s, MINIMUM_WAIT_S))
        if self.is_cancelled:
            return None
        if not done:
            raise self._silence()
        outcome = None if self._read.cancelled() else self._read.result()
        self._read = None
        if isinstance(outcome, self._kind.response):
            return outcome
        raise self._ending(outcome)

    def _silence(self) -> MxgwClientError:
        if self.opened is None:
            return CallTimedOut(
                f"{self._kind.name} got no answer from {self._calls.target} within {self.stale_after_s:g} s",
            )
        return StreamStale(
            f"no event and no heartbeat from {self._calls.target} for {self.stale_after_s:g} s; what was read last may "
            "be old. Open another stream, started after(stream.position)"
        )

    def _ending(self, outcome: Message | BaseException | None) -> Exception:
        if isinstance(outcome, aio.AioRpcError):
            return self._calls.failure(outcome, self._kind.name, in_stream=self.opened is not None)
        if isinstance(outcome, Exception):
            return ProtocolViolation(f"a frame from {self._calls.target} could not be read: {type(outcome).__name__}")
        return StreamEnded(f"the stream from {self._calls.target} ended without a reason")

    def _check(self, frame: F | SharedFrame) -> None:
        """Raise ProtocolViolation when a frame breaks the contract.

        This is so when a sequence is not greater than all before it, when a frame comes before StreamOpened, or when a
        second StreamOpened comes.
        """
        if isinstance(frame, StreamOpened):
            if self.opened is not None:
                raise ProtocolViolation("a second StreamOpened in one stream")
            self.opened, self._context.epoch = frame, frame.position.epoch
            self._last_sequence = frame.position.sequence
            return
        if self.opened is None:
            raise ProtocolViolation(f"the stream began with {type(frame).__name__} instead of StreamOpened")
        self.is_proved = True
        if isinstance(frame, self._kind.batch):
            first, last, events = frame.first_sequence, frame.last_sequence, len(frame)
            if first <= self._last_sequence:
                raise ProtocolViolation(f"event {first} came after everything up to {self._last_sequence}")
            if last - first + 1 < events:
                raise ProtocolViolation(f"{events} events between {first} and {last}: some came twice or back")
            self._last_sequence = last
            return
        match frame:
            case Gap() if frame.covers_its_range and frame.epoch == self._context.epoch:
                self._last_sequence = max(self._last_sequence, frame.last_lost)
            case Progress() | Heartbeat() if frame.position.epoch == self._context.epoch:
                self._last_sequence = max(self._last_sequence, frame.position.sequence)

    def cancel(self) -> None:
        """Cancel the call; a task that waits in `next_frame` gets None."""
        self.is_cancelled = True
        _cancel(self._read, self._call)

    async def wait_cancelled(self) -> None:
        """Call this after `cancel`. It returns when the task that waits for the next message has ended."""
        if self._read is not None:
            await asyncio.wait((self._read,))

    def __del__(self) -> None:
        # When an application leaves its `async for` by `break`, the stream is dropped without `close`, and the call is
        # cancelled here. Python can run this in any thread, so the event loop is asked to do it.
        loop: asyncio.AbstractEventLoop | None = getattr(self, "_loop", None)
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_cancel, self._read, self._call)


def _cancel(read: asyncio.Task[Any] | None, call: Any) -> None:
    if read is not None:
        read.cancel()
    if call is not None:
        call.cancel()


async def _read_message(call: Any) -> Message | BaseException | None:
    """Return the next message of the call, None at the end of the stream, or the exception that ended the stream.

    The task of this function has a reference to the call and none to the stream object, so that Python can collect a
    stream that the application dropped. An exception is returned and not raised, because a task that raises would make
    the task group cancel the reads of all other streams. Only the task's own cancellation is raised.
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
    return message if isinstance(message, Message) else None


def now_s() -> float:
    """Return the time of the running event loop."""
    return asyncio.get_running_loop().time()
