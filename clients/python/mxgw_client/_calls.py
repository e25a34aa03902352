"""The gRPC calls of one connection: deadlines, metadata and the translation of failures, in one place."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from google.protobuf.message import Message
from grpc import aio

from mxgw.v1 import event_service_pb2 as events
from mxgw.v1.command_service_pb2_grpc import CommandServiceStub
from mxgw.v1.event_service_pb2_grpc import EventServiceStub
from mxgw.v1.gateway_service_pb2_grpc import GatewayServiceStub
from mxgw.v1.session_service_pb2_grpc import SessionServiceStub
from mxgw_client._failures import failure
from mxgw_client.errors import ConnectionOptionError
from mxgw_client.options import ConnectOptions

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
StreamCall: TypeAlias = "aio.UnaryStreamCall[events.StreamEventsRequest, events.StreamEventsResponse]"


class Calls:
    """An open channel and everything a call needs besides its request. The owner awaits `close`."""

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        self.target = options.target.text
        channel_options = options.channel_options()
        if options.tls:
            self._channel = aio.secure_channel(self.target, options.tls.credentials(), options=channel_options)
        else:
            self._channel = aio.insecure_channel(self.target, options=channel_options)
        self.sessions = SessionServiceStub(self._channel)
        self.commands = CommandServiceStub(self._channel)
        self.gateway = GatewayServiceStub(self._channel)
        self._events = EventServiceStub(self._channel)
        self._metadata = options.metadata()

    async def unary(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        doing: str,
        timeout_s: float | None = None,
    ) -> Response:
        """Call and return the answer. `doing` names the call in errors; `timeout_s` None is the connection's default.

        Raises:
            MxgwClientError: the call failed; see `errors`.
        """
        deadline_s = self.deadline_s(timeout_s)
        try:
            return await method(request, timeout=deadline_s, metadata=self._metadata)
        except aio.AioRpcError as error:
            raise failure(error, target=self.target, doing=doing, timeout_s=deadline_s) from None

    def deadline_s(self, timeout_s: float | None) -> float:
        """Return the deadline in force for a call."""
        if timeout_s is None:
            return self.options.timeout_s
        if timeout_s <= 0:
            raise ConnectionOptionError(f"timeout_s is {timeout_s}; it must be greater than 0")
        return timeout_s

    def stream(self, request: events.StreamEventsRequest) -> StreamCall:
        """Start an event stream. It has no deadline: heartbeats tell whether it is alive."""
        return self._events.StreamEvents(request, metadata=self._metadata)

    def failure(self, error: aio.AioRpcError, doing: str, *, in_stream: bool) -> Exception:
        """Return the exception for a stream that failed."""
        return failure(error, target=self.target, doing=doing, in_stream=in_stream)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close(grace=None)
