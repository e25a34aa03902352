"""One try at a stream: one call, read frame by frame until it ends. `EventStream` strings tries together.

Waiting may be given up without losing anything: a read goes on in a task of its own until it is done, and the next
wait finds its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc import aio

from mxgw.v1 import event_service_pb2
from mxgw_client._calls import Calls
from mxgw_client.batch import EventBatch
from mxgw_client.errors import CallTimedOut, MxgwClientError, ProtocolViolation, StreamEnded, StreamStale
from mxgw_client.events import StreamContext
from mxgw_client.frames import Frame, Gap, Heartbeat, Progress, StreamOpened, frame_from_message

# A stream is stale after this many heartbeat intervals of silence. Source: the contract, StreamOpened.
STALE_INTERVALS = 2.5
# However long the application was away, a read gets this long before its stream counts as stale: what came meanwhile
# is still to be taken from the socket.
MINIMUM_WAIT_S = 0.25


F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Wire(Generic[F]):
    """How one kind of stream is called and read. `span` is of batches: first and last sequence, and how many events."""

    name: str
    start: Callable[[Calls], Any]
    response: type[Message]
    read: Callable[[Any, StreamContext], F | StreamOpened | Gap | Progress | Heartbeat | None]
    span: Callable[[object], tuple[int, int, int] | None]


def event_wire(request: event_service_pb2.StreamEventsRequest) -> Wire[Frame]:
    """Return the wire of a session's events."""
    return Wire(
        "StreamEvents",
        lambda calls: calls.stream(request),
        event_service_pb2.StreamEventsResponse,
        frame_from_message,
        lambda f: (f.first_sequence, f.last_sequence, len(f)) if isinstance(f, EventBatch) else None,
    )


class Attempt(Generic[F]):
    """Made in the event loop; the call starts with the first read. One task at a time may read."""

    def __init__(
        self,
        calls: Calls,
        wire: Wire[F],
        context: StreamContext,
        tasks: asyncio.TaskGroup,
        open_timeout_s: float,
    ) -> None:
        self._calls = calls
        self._wire = wire
        self._context = context
        self._tasks = tasks
        self._open_timeout_s = open_timeout_s
        self._call: Any = None
        # The read under way; the task itself completes it, with a message or the exception that ends the stream.
        self._read: asyncio.Task[Message | BaseException | None] | None = None
        self._read_since_s = 0.0
        self._behind = 0
        # The loop it reads in, once it does.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Which of the connection's channels it runs on.
        self.generation = calls.generation
        self.is_cancelled = False
        self.opened: StreamOpened | None = None
        # Whether a frame came after StreamOpened: the stream works.
        self.is_proved = False

    @property
    def stale_after_s(self) -> float:
        """Silence after which reading fails."""
        if self.opened is None or self.opened.heartbeat_interval_s <= 0:
            return self._open_timeout_s
        return STALE_INTERVALS * self.opened.heartbeat_interval_s

    async def next_frame(self) -> F | StreamOpened | Gap | Progress | Heartbeat | None:
        """Return the next frame; None once `cancel` was called.

        Raises:
            MxgwClientError: the stream is over, and why. It stays over.
        """
        while not self.is_cancelled:
            message = await self._next_message()
            if message is None:
                return None
            frame = self._wire.read(message, self._context)
            if frame is not None:
                self._check(frame)
                return frame
        return None

    async def _next_message(self) -> Message | None:
        if self._call is None:
            self._loop = asyncio.get_running_loop()
            self.generation = self._calls.generation
            self._call = self._wire.start(self._calls)
        if self._read is None:
            self._read = self._tasks.create_task(_read_message(self._call), name="mxgw-client:stream-read")
            self._read_since_s = _now_s()
        remaining_s = self._read_since_s + self.stale_after_s - _now_s()
        done, _ = await asyncio.wait((self._read,), timeout=max(remaining_s, MINIMUM_WAIT_S))
        if self.is_cancelled:
            return None
        if not done:
            raise self._silence()
        outcome = None if self._read.cancelled() else self._read.result()
        self._read = None
        if isinstance(outcome, self._wire.response):
            return outcome
        raise self._ending(outcome)

    def _silence(self) -> MxgwClientError:
        if self.opened is None:
            return CallTimedOut(
                f"{self._wire.name} got no answer from {self._calls.target} within {self.stale_after_s:g} s",
            )
        return StreamStale(
            f"no event and no heartbeat from {self._calls.target} for {self.stale_after_s:g} s; what was read last may "
            "be old. Open another stream, started after(stream.position)"
        )

    def _ending(self, outcome: Message | BaseException | None) -> Exception:
        if isinstance(outcome, aio.AioRpcError):
            return self._calls.failure(outcome, self._wire.name, in_stream=self.opened is not None)
        if isinstance(outcome, Exception):
            return ProtocolViolation(f"a frame from {self._calls.target} could not be read: {type(outcome).__name__}")
        return StreamEnded(f"the stream from {self._calls.target} ended without a reason")

    def _check(self, frame: F | StreamOpened | Gap | Progress | Heartbeat) -> None:
        """Refuse what the contract rules out: going back, repeating, or frames before StreamOpened."""
        if isinstance(frame, StreamOpened):
            if self.opened is not None:
                raise ProtocolViolation("a second StreamOpened in one stream")
            self.opened, self._context.epoch = frame, frame.position.epoch
            self._behind = frame.position.sequence
            return
        if self.opened is None:
            raise ProtocolViolation(f"the stream began with {type(frame).__name__} instead of StreamOpened")
        self.is_proved = True
        if (span := self._wire.span(frame)) is not None:
            first, last, events = span
            if first <= self._behind:
                raise ProtocolViolation(f"event {first} came after everything up to {self._behind}")
            if last - first + 1 < events:
                raise ProtocolViolation(f"{events} events between {first} and {last}: some came twice or back")
            self._behind = last
            return
        match frame:
            case Gap() if frame.covers_its_range and frame.epoch == self._context.epoch:
                self._behind = max(self._behind, frame.last_lost)
            case Progress() | Heartbeat() if frame.position.epoch == self._context.epoch:
                self._behind = max(self._behind, frame.position.sequence)

    def cancel(self) -> None:
        """End it from this side; a reader that waits returns None."""
        self.is_cancelled = True
        if self._read is not None:
            self._read.cancel()
        if self._call is not None:
            self._call.cancel()

    async def wait_cancelled(self) -> None:
        """Return once nothing of it runs; call `cancel` first."""
        if self._read is not None:
            await asyncio.wait((self._read,))

    def __del__(self) -> None:
        # A loop left by `break` drops its stream without closing it; garbage may be collected in any thread.
        loop: asyncio.AbstractEventLoop | None = getattr(self, "_loop", None)
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_cancel, self._read, self._call)


def _cancel(read: asyncio.Task[Any] | None, call: Any) -> None:
    if read is not None:
        read.cancel()
    if call is not None:
        call.cancel()


async def _read_message(call: Any) -> Message | BaseException | None:
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
    return message if isinstance(message, Message) else None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
