"""A client that reads the events of a session only as fast as a test wants, and checks every frame.

It is made of the contract's stubs alone. The client library would not do: it reads ahead, and resumes by itself. And
core imports no client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from mxgw.v1.event_service_pb2 import OverflowPolicyChoice, StartPosition, StreamEventsRequest, StreamEventsResponse
from mxgw.v1.event_service_pb2_grpc import EventServiceStub
from mxgw.v1.events_pb2 import Event, Gap, StreamOpened
from mxgw.v1.events_pb2 import Position as EncodedPosition
from mxgw.v1.session_service_pb2 import ListSubscribersRequest, Subscriber
from mxgw.v1.session_service_pb2_grpc import SessionServiceStub
from mxgw_core.api.types import Position
from mxgw_core.testing.checker import Content, Lost, Oracle, StreamChecker, observed, value_of

# The connection buffers little, so that a reader that stops is behind after some 100 KB, and not after some megabytes.
_SMALL_WINDOWS = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 * 1024))
_READ_S = 60.0
# How often the gateway is asked about the reader while a test waits for a condition.
_ASK_S = 0.01


class SlowReader:
    """Reads one stream of a session. It reads nothing until a method is called that reads.

    Use it as an asynchronous context manager: it attaches at the begin of the block, and leaves at its end. After a
    restart of the gateway it waits until the gateway has the session back. When the gateway refuses the stream,
    entering the block raises `grpc.aio.AioRpcError`.

    Example:
        async with SlowReader(gateway.target, session_id, policy="keep_alarms") as reader:
            await advise_many_items()
            await reader.until(lambda subscriber: subscriber.backlog_bytes)  # meanwhile it reads nothing
            await reader.read_until(1_000)
            reader.check()

    Args:
        target: the address of the gateway.
        policy, parameters: the overflow policy to ask for, and its parameters.
        after: the position after which the stream resumes; None begins with the oldest retained event.
        client_name: the name that the gateway shows.
        metadata: the metadata of every call, for example `(("authorization", "Bearer ..."),)`.
        credentials: for TLS; None connects without.
        oracle, content, may_lose: what the checker of the stream compares (see `mxgw_core.testing.checker`).
        visible, permitted: say of an item, `(server handle, item handle)`, whether the reader's filter lets it pass,
            and whether the reader's key is allowed to see it. Give both for a key that sees a part of the items: events
            of other items are then not missing, and one that comes is a violation. None means all items.

    Attributes:
        opened: the first frame of the stream.
        events: the events that were read, by sequence.
        gaps: the gaps that were read, oldest first.
        lost: the sequences that these gaps name as lost.
        checker: checks every frame that is read. `check` asserts that it found no violation.
        end: the reason with which the gateway ended the stream, for example "SUBSCRIBER_OVERFLOW"; "" before.
    """

    def __init__(
        self,
        target: str,
        session_id: str,
        *,
        policy: str = "",
        parameters: Mapping[str, str] | None = None,
        after: Position | None = None,
        client_name: str = "slow reader",
        metadata: Sequence[tuple[str, str]] = (),
        credentials: grpc.ChannelCredentials | None = None,
        oracle: Oracle | None = None,
        content: Content = value_of,
        may_lose: Callable[[Lost], bool] | None = None,
        visible: Callable[[Hashable], bool] | None = None,
        permitted: Callable[[Hashable], bool] | None = None,
    ) -> None:
        self._target = target
        self._session_id = session_id
        self._policy = OverflowPolicyChoice(name=policy, parameters=parameters or {})
        self._after = after
        self._client_name = client_name
        self._metadata = tuple(metadata)
        self._credentials = credentials
        self._content = content
        self.opened = StreamOpened()
        self.events: dict[int, Event] = {}
        self.gaps: list[Gap] = []
        self.lost: set[int] = set()
        self.checker = StreamChecker(oracle, visible=visible, permitted=permitted, may_lose=may_lose)
        self.end = ""
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    async def __aenter__(self) -> SlowReader:
        options = (("grpc.use_local_subchannel_pool", 1), *_SMALL_WINDOWS)
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=options)
        request = StreamEventsRequest(session_id=self._session_id, client_name=self._client_name, policy=self._policy)
        if self._after is not None:
            after = EncodedPosition(epoch=self._after.epoch, sequence=self._after.sequence)
            request.start.CopyFrom(StartPosition(after=after))
        try:
            async with asyncio.timeout(_READ_S):
                first = await self._attached(request)
        except BaseException:
            await self._channel.close()
            raise
        self.opened = first.opened
        self.checker.attach(self._after)
        self._take(first)
        return self

    async def _attached(self, request: StreamEventsRequest) -> StreamEventsResponse:
        """Open the stream, and return its first frame. Wait while a restarted gateway has not got its session back."""
        assert self._channel is not None
        while True:
            self._call = EventServiceStub(self._channel).StreamEvents(request, metadata=self._metadata)
            try:
                first: StreamEventsResponse = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if _reason_of(error) != "SESSION_ADOPTING":
                    raise
                await asyncio.sleep(_ASK_S)
            else:
                return first

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._channel is not None
        if not self.end:
            self._call.cancel()
            self.checker.end("CLIENT")
        await self._channel.close()

    @property
    def position(self) -> Position:
        """The position up to which every event was read, or lies in a gap that was read."""
        position = self.checker.position
        assert position is not None, "the reader has not attached"
        return position

    # The next methods read.

    async def read(self, frames: int = 1) -> Sequence[StreamEventsResponse]:
        """Read so many frames and return them; fewer when the stream ends before.

        Raises:
            TimeoutError: no frame came for a minute.
        """
        found: list[StreamEventsResponse] = []
        while len(found) < frames and not self.end:
            async with asyncio.timeout(_READ_S):
                try:
                    frame = await self._call.read()
                except grpc.aio.AioRpcError as error:
                    self.end = _reason_of(error)
                    self.checker.end(self.end)
                    break
            if frame is grpc.aio.EOF:
                self.end = "OK"
                self.checker.end("")
                break
            self._take(frame)
            found.append(frame)
        return found

    async def read_until(self, sequence: int) -> None:
        """Read until every event up to `sequence` was read, or lies in a gap that was read.

        Raises:
            EOFError: the stream ended before.
        """
        while self.position.sequence < sequence:
            if not await self.read():
                raise EOFError(f"the stream ended with {self.end} at event {self.position.sequence}")

    async def read_to_end(self) -> str:
        """Read until the gateway ends the stream, and return the reason (`end`)."""
        while await self.read():
            pass
        return self.end

    async def read_slowly(self, events_per_s: float, until: int) -> None:
        """Read like `read_until(until)`, but at most about `events_per_s` events per second.

        The reader waits after each frame, and reading takes time too, so that the pace is an upper bound: on a busy
        machine it is a quarter less. A test must not need the exact pace.

        Raises:
            EOFError: the stream ended before.
        """
        while self.position.sequence < until:
            frames = await self.read()
            if not frames:
                raise EOFError(f"the stream ended with {self.end} at event {self.position.sequence}")
            await asyncio.sleep(sum(len(frame.events.events) for frame in frames) / events_per_s)

    # The next methods ask the gateway about the reader; they read nothing.

    async def subscriber(self) -> Subscriber:
        """Return what the gateway says of this reader: its lag, what it lost, whether its stream is ending.

        Raises:
            LookupError: the gateway knows no such reader any more.
        """
        assert self._channel is not None
        request = ListSubscribersRequest(session_id=self._session_id)
        answer = await SessionServiceStub(self._channel).ListSubscribers(
            request, metadata=self._metadata, timeout=_READ_S
        )
        for subscriber in answer.subscribers:
            if subscriber.subscriber_id == self.opened.subscriber_id:
                return subscriber
        raise LookupError("the gateway has detached this reader")

    async def until(self, condition: Callable[[Subscriber], object], timeout_s: float = 60) -> Subscriber:
        """Wait, without reading, until `condition` returns a true value for what the gateway says of this reader.

        Example:
            await reader.until(lambda subscriber: subscriber.lag_events > 500)

        Raises:
            TimeoutError: the condition did not become true in time.
            LookupError: the gateway knows no such reader any more.
        """
        async with asyncio.timeout(timeout_s):
            while not condition(subscriber := await self.subscriber()):  # noqa: ASYNC110  another process's state
                await asyncio.sleep(_ASK_S)
        return subscriber

    def check(self) -> None:
        """Assert that every frame so far kept the promises of a stream.

        Raises:
            AssertionError: the text has the first violations.
        """
        if self.checker.violations:
            raise AssertionError(self.checker.report())

    def _take(self, frame: StreamEventsResponse) -> None:
        for observation in observed(frame, self._content):
            self.checker.observe(observation)
            if isinstance(observation, Lost) and observation.first:
                self.lost.update(s for first, last in observation.ranges() for s in range(first, last + 1))
        self.events.update((event.sequence, event) for event in frame.events.events)
        if frame.HasField("gap"):
            self.gaps.append(frame.gap)


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in the status of a call; the name of its code when the gateway gave no reason."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    info = ErrorInfo()
    if isinstance(details, bytes):
        for packed in Status.FromString(details).details:
            packed.Unpack(info)
    return info.reason or error.code().name
