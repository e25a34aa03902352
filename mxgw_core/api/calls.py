"""gRPC services of plugins, and calls. For plugins that add a gRPC service or look at open streams."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from mxgw_core.api.types import Identity, Peer

# The correlation id of the call that is being served. The gateway sets it when a call begins. Tasks and threads that
# serve the call inherit it.
current_call: ContextVar[str] = ContextVar("mxgw_current_call", default="")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as a service sees it.

    `deadline_s` is the number of seconds until the deadline of the call, None when the call has no deadline.
    `request_bytes` is the size of the request.
    """

    method: str
    identity: Identity
    peer: Peer
    deadline_s: float | None
    request_bytes: int = 0


class ResponseStream(Protocol):
    """Sends the responses of a streaming call."""

    async def write(self, message: Message | bytes) -> None:
        """Send one message, decoded or encoded. Wait as long as the transport accepts no more messages."""


@dataclass(frozen=True, slots=True)
class GrpcService:
    """A gRPC service: its descriptor, and an object that implements it with one coroutine method per RPC.

    The methods have the names of the RPCs. The method of a unary RPC is `async def Name(self, request, call: Call) ->
    Message`. The method of a server-streaming RPC is `async def Name(self, request, call: Call, stream: ResponseStream)
    -> None`. Client streaming is not supported. As for any service, the gateway authenticates and authorizes the
    caller, applies the limits, and turns a `GatewayError` into a gRPC status.

    `scopes` says which scope a caller needs. Key: the name of an RPC. Value: its scope. The plugin that authorizes
    decides what a scope means (docs/securing.md); a plugin that authorizes by scope refuses an RPC without a scope. An
    RPC with the scope `ADMINISTRATOR` is never called for a session of the gateway's own.
    """

    descriptor: ServiceDescriptor
    implementation: object
    scopes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class OpenStream:
    """A streaming call that the gateway is serving. It is the same object from the begin of the call to its end."""

    method: str
    identity: Identity
    peer: Peer
    session_id: str


def correlation_id() -> str:
    """Return the correlation id of the call that is being served; "" outside of a call.

    A caller can choose this id, so it proves nothing. Entries about things that live longer than the call, for example
    the end of a session, have no correlation id.
    """
    return current_call.get()
