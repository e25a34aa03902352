"""The gRPC calls of one connection: deadlines, metadata, and the errors that failures become."""

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

if TYPE_CHECKING:  # what the stubs are on a grpc.aio channel; these names exist in the .pyi files only
    from mxgw.v1.alarm_service_pb2_grpc import AlarmServiceAsyncStub
    from mxgw.v1.command_service_pb2_grpc import CommandServiceAsyncStub
    from mxgw.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from mxgw.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub
    from mxgw.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class PagedRequest(Protocol):
    """A request for one page of an answer; an empty token asks for the first."""

    page_token: str


class Page(Protocol):
    """One page of an answer; the token is empty on the last one."""

    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=Page)


class _Channel:
    """One gRPC channel with its stubs, and how many calls are under way on it."""

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
    """The connection to a gateway and what a call needs besides its request. Its owner must await `close`."""

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        self.target = options.target.text
        self._metadata = options.metadata()
        self._channel = _Channel(options)
        # How often the channel was replaced.
        self.generation = 0
        # Channels that were replaced; each is closed once no call is under way on it.
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
        """Call and return the answer. `doing` names the call in errors; `timeout_s` None is the default of `connect`.

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
        """Return the deadline of a call in seconds.

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
        """Start a stream. It has no deadline: heartbeats show that it is alive."""
        call: aio.UnaryStreamCall[Request, Response] = method(request, metadata=self._metadata)
        self._channel.calls += 1
        call.add_done_callback(self._channel.done)
        return call

    def failure(self, error: aio.AioRpcError, doing: str, *, in_stream: bool) -> Exception:
        """Return the exception for a stream that failed."""
        return failure(error, target=self.target, doing=doing, in_stream=in_stream)

    async def renew(self, generation: int) -> None:
        """Replace the channel, if it still is the one of this generation: its connection is dead, unnoticed by gRPC.

        Calls under way on the old channel are left alone, because some of them may still work.
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
        """Close the channel; calls under way are cancelled."""
        for one in (*self._retired, self._channel):
            await one.channel.close(grace=None)
        self._retired.clear()


class Pages(AsyncIterator[PageT]):
    """The pages of an answer; each is asked for when the loop comes to it.

    `ask` sends `request`, whose `page_token` is kept up to date here. An object and not a generator, so that leaving a
    loop early leaves nothing to clean up.
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
