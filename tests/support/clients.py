"""gRPC clients made of the generated stubs only, without the client library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mxgw.v1 import (
    command_service_pb2_grpc,
    event_service_pb2_grpc,
    gateway_service_pb2_grpc,
    session_service_pb2_grpc,
)
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.event_service_pb2 import StartPosition, StreamEventsRequest, StreamEventsResponse
from mxgw_core.api import Gateway


@dataclass(frozen=True)
class Refusal:
    """The status of a failed call: code, reason and text."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    text: str
    retry_after_s: float | None = None


class Client:
    """The stubs of all services on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.sessions: Any = session_service_pb2_grpc.SessionServiceStub(channel)
        self.commands: Any = command_service_pb2_grpc.CommandServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.gateway: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)

    async def open(self, *, name: str = "test", tag: str = "", backend: str = "", lease_s: float = 0) -> ss.Session:
        """Open a session."""
        request = ss.OpenSessionRequest(client_name=name, tag=tag, backend=backend)
        if lease_s:
            request.lease.CopyFrom(Duration(seconds=int(lease_s), nanos=int(lease_s % 1 * 1e9)))
        session: ss.Session = (await self.sessions.OpenSession(request, timeout=60)).session
        return session

    async def close(self, session_id: str) -> ss.Session:
        """Close a session."""
        request = ss.CloseSessionRequest(session_id=session_id)
        session: ss.Session = (await self.sessions.CloseSession(request, timeout=60)).session
        return session

    async def invoke(self, session_id: str, timeout: float = 20, **command: Any) -> c.MxReply:
        """Run one command, for example `invoke(id, register=RegisterCommand())`, and return the reply."""
        request = InvokeRequest(session_id=session_id, command=c.MxCommand(**command))
        reply: c.MxReply = (await self.commands.Invoke(request, timeout=timeout)).reply
        return reply

    async def register(self, session_id: str) -> int:
        """Register, and return the server handle."""
        return (await self.invoke(session_id, register=c.RegisterCommand(client_name="test"))).server_handle

    async def subscribe(self, session_id: str, references: Iterable[str], server_handle: int = 0) -> Sequence[int]:
        """Add and advise items in one call, and return their handles."""
        server_handle = server_handle or await self.register(session_id)
        command = c.SubscribeBulkCommand(
            server_handle=server_handle, items=[c.ItemReference(item_definition=r) for r in references]
        )
        reply = await self.invoke(session_id, subscribe_bulk=command)

        assert all(item.hresult == 0 for item in reply.bulk.items)

        return [item.item_handle for item in reply.bulk.items]

    def stream(self, session_id: str, start: StartPosition | None = None, **fields: Any) -> Any:
        """Open a stream of the events of a session."""
        return self.events.StreamEvents(StreamEventsRequest(session_id=session_id, start=start, **fields))


def running_calls(gateway: Gateway) -> dict[str, object]:
    """Return how many calls a gateway is serving. Key: the name of a method. Methods without calls are left out."""
    (metric,) = [metric for metric in gateway.observation.metrics() if metric.name == "mxgw_rpc_running"]
    return {sample.labels[0].rpartition("/")[2]: sample.value for sample in metric.samples if sample.value}


@asynccontextmanager
async def client_of(
    target: str,
    *,
    options: Sequence[tuple[str, Any]] = (),
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[Client]:
    """Connect to a gateway."""
    options = (("grpc.use_local_subchannel_pool", 1), *options)
    channel = (
        grpc.aio.insecure_channel(target, options=options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options=options)
    )
    try:
        yield Client(channel)
    finally:
        await channel.close()


async def refused(call: Any) -> Refusal:
    """Return the status with which a call was refused. If the call is a stream, read it to its end.

    Raises:
        AssertionError: the call was not refused.
    """
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call was not refused")


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Return the status of a failed call."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    info, retry = ErrorInfo(), RetryInfo()
    retry_after_s = None
    if details:
        for packed in Status.FromString(details).details:
            packed.Unpack(info)
            if packed.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return Refusal(error.code(), info.reason, dict(info.metadata), error.details() or "", retry_after_s)


async def read_events(stream: Any, count: int) -> tuple[list[StreamEventsResponse], list[int]]:
    """Read frames until `count` events have come. Return all frames, and the sequences of the events."""
    frames: list[StreamEventsResponse] = []
    sequences: list[int] = []
    while len(sequences) < count:
        frame = await stream.read()

        assert frame is not grpc.aio.EOF, "the stream ended before the events came"

        frames.append(frame)
        sequences += [event.sequence for event in frame.events.events]
    return frames, sequences


async def read_to_the_end(
    stream: Any, on_frame: Callable[[StreamEventsResponse], object] = lambda _: None
) -> tuple[list[StreamEventsResponse], list[int], Refusal]:
    """Read a stream until the gateway ends it.

    Return its frames, the sequences of its events, and the status at its end.

    For a stream of a plugin's service the list of sequences is empty.

    Raises:
        AssertionError: the stream ended without an error status.
    """
    frames: list[StreamEventsResponse] = []
    try:
        while (frame := await stream.read()) is not grpc.aio.EOF:
            frames.append(frame)
            on_frame(frame)
    except grpc.aio.AioRpcError as error:
        events = [frame.events.events for frame in frames if isinstance(frame, StreamEventsResponse)]
        return frames, [event.sequence for batch in events for event in batch], refusal_of(error)
    raise AssertionError("the stream ended without a reason")
