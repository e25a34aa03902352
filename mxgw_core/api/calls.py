"""Calls that a plugin serves. For plugins with a gRPC service, and for plugins that look at open streams."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from mxgw_core.api.types import Identity, Peer

# Set by core when a call begins; threads and tasks that the call starts inherit it.
current_call: ContextVar[str] = ContextVar("mxgw_current_call", default="")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as a service sees it.

    `deadline_s` is the time that is left for it, None without a deadline; `request_bytes` is the size of its request.
    """

    method: str
    identity: Identity
    peer: Peer
    deadline_s: float | None
    request_bytes: int = 0


class ResponseStream(Protocol):
    """Where a streaming RPC writes its responses."""

    async def write(self, message: Message | bytes) -> None:
        """Send one message, or its encoded form; wait while the transport is full."""


@dataclass(frozen=True, slots=True)
class GrpcService:
    """A gRPC service: its descriptor, and an object with one coroutine method per RPC, named as in the contract.

    A unary method is `async def Name(self, request, call: Call) -> Message`; a server-streaming one is `async def
    Name(self, request, call: Call, stream: ResponseStream) -> None`. Client streaming is not supported. Identity,
    authorization, limits and the mapping of `GatewayError` apply to all services alike.

    `scopes` has, by the name of the method, the scope that a caller needs; the plugin that authorizes decides what each
    scope means (docs/securing.md). Where a plugin authorizes by scope, a method without one is refused. A method with
    the scope `ADMINISTRATOR` is never called for a session of the gateway's own.
    """

    descriptor: ServiceDescriptor
    implementation: object
    scopes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class OpenStream:
    """A streaming call that is being served; the same object from its begin to its end."""

    method: str
    identity: Identity
    peer: Peer
    session_id: str


def correlation_id() -> str:
    """Return the id of the call that is being served, "" outside of a call.

    The caller may have chosen the id, so it proves nothing. What outlives the call, such as a session, is recorded
    without it.
    """
    return current_call.get()
