"""Makes the gRPC calls of one connection: adds deadline and metadata, and converts failures into exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from grpc import aio

from mxgw.v1.alarm_service_pb2_grpc import AlarmServiceStub
from mxgw.v1.command_service_pb2_grpc import CommandServiceStub
from mxgw.v1.event_service_pb2_grpc import EventServiceStub
from mxgw.v1.gateway_service_pb2_grpc import GatewayServiceStub
from mxgw.v1.session_service_pb2_grpc import SessionServiceStub
from mxgw_client._failures import failure
from mxgw_client.errors import ConnectionOptionError
from mxgw_client.options import ConnectOptions

if TYPE_CHECKING:  # the types of the stubs on a grpc.aio channel, which exist only in the .pyi files
    from mxgw.v1.alarm_service_pb2_grpc import AlarmServiceAsyncStub
    from mxgw.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from mxgw.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from mxgw.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub
    from mxgw.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class PagedRequest(Protocol):
    """A request for one page of a list. An empty `page_token` asks for the first page."""

    page_token: str


class Page(Protocol):
    """One page of a list. `next_page_token` asks for the page after it, and is empty on the last page."""

    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=Page)


class _Channel:
    """One gRPC channel with its stubs. `calls` is the number of calls on the channel that have not ended."""

    def __init__(self, options: ConnectOptions) -> None:
        channel_options = options.channel_options()
        if options.tls:
            self.channel = aio.secure_channel(options.target.text, options.tls.credentials(), options=channel_options)
        else:
            self.channel = aio.insecure_channel(options.target.text, options=channel_options)
        self.sessions = SessionServiceStub(self.channel)
        self.commands = CommandServiceStub(self.channel)
        self.gateway = GatewayServiceStub(self.channel)
        self.events = EventServiceStub(self.channel)
        self.alarms = AlarmServiceStub(self.channel)
        self.calls = 0

    def done(self, _: object) -> None:
        self.calls -= 1


class Calls:
    """The connection to a gateway: the channel, the metadata and the deadlines for all calls. `close` must be awaited.

    A channel whose connection is dead can be replaced by a new one; see `renew`.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        self.target = options.target.text
        self._metadata = options.metadata()
        self._channel = _Channel(options)
        # How many times the channel was replaced.
        self.generation = 0
        # The channels that were replaced. A channel is closed when the last call on it has ended.
        self._retired: list[_Channel] = []

    @property
    def sessions(self) -> SessionServiceAsyncStub:
        return self._channel.sessions

    @property
    def commands(self) -> CommandServiceAsyncStub:
        return self._channel.commands

    @property
    def events(self) -> EventServiceAsyncStub:
        return self._channel.events

    @property
    def alarms(self) -> AlarmServiceAsyncStub:
        return self._channel.alarms

    @property
    def gateway(self) -> GatewayServiceAsyncStub:
        return self._channel.gateway

    async def unary(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        doing: str,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a unary call and return its answer.

        `doing` is the name of the call in error texts. `timeout_s` is the deadline in seconds; None means the
        `timeout_s` given to `connect`.

        Raises:
            MxgwClientError: the call failed; see `errors`.
        """
        deadline_s = self.deadline_s(timeout_s)
        channel = self._channel
        channel.calls += 1
        try:
            return await method(request, timeout=deadline_s, metadata=self._metadata)
        except aio.AioRpcError as error:
            raise failure(error, target=self.target, doing=doing, timeout_s=deadline_s) from None
        finally:
            channel.calls -= 1

    def deadline_s(self, timeout_s: float | None) -> float:
        """Return the argument `timeout_s`; when it is None, return the `timeout_s` that was given to `connect`.

        Raises:
            ConnectionOptionError: `timeout_s` is not greater than 0.
        """
        if timeout_s is None:
            return self.options.timeout_s
        if timeout_s <= 0:
            raise ConnectionOptionError(f"timeout_s is {timeout_s}; it must be greater than 0")
        return timeout_s

    def stream(
        self, method: aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> aio.UnaryStreamCall[Request, Response]:
        """Start a streaming call. It has no deadline; the heartbeats of the gateway show that the stream works."""
        call: aio.UnaryStreamCall[Request, Response] = method(request, metadata=self._metadata)
        self._channel.calls += 1
        call.add_done_callback(self._channel.done)
        return call

    def failure(self, error: aio.AioRpcError, doing: str, *, in_stream: bool) -> Exception:
        """Return the exception for a stream that failed. `in_stream` says whether its StreamOpened had come before."""
        return failure(error, target=self.target, doing=doing, in_stream=in_stream)

    async def renew(self, generation: int) -> None:
        """Replace the channel, because its connection is dead and gRPC has not noticed.

        Nothing is replaced when `generation` is not the present generation any more, because another stream has already
        called this. The calls on the old channel are not cancelled, because some of them perhaps still work.
        """
        if generation == self.generation:
            self._retired.append(self._channel)
            self._channel = _Channel(self.options)
            self.generation += 1
        for idle in [retired for retired in self._retired if not retired.calls]:
            await idle.channel.close(grace=None)
            if idle in self._retired:
                self._retired.remove(idle)

    async def close(self) -> None:
        """Close the channel and cancel all calls that have not ended."""
        for one in (*self._retired, self._channel):
            await one.channel.close(grace=None)
        self._retired.clear()


class Pages(AsyncIterator[PageT]):
    """Iterates over the pages of a list, and requests each page only when the loop needs it.

    `ask` sends `request` and returns a page; the `page_token` of `request` is set here before each call of `ask`. This
    is a class and not a generator, because a generator would have to be closed after a `break`.
    """

    def __init__(self, request: PagedRequest, ask: Callable[[], Awaitable[PageT]]) -> None:
        self._request = request
        self._ask = ask
        self._was_last = False

    async def __anext__(self) -> PageT:
        if self._was_last:
            raise StopAsyncIteration
        page = await self._ask()
        self._request.page_token = page.next_page_token
        self._was_last = not page.next_page_token
        return page
