"""Calls that a plugin serves. For plugins with a gRPC service of their own, and for those that look at open streams."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from mxgw_core.api.types import Identity, Peer

# Set by the core as a call begins; it follows the call into the threads and tasks that it starts.
current_call: ContextVar[str] = ContextVar("mxgw_current_call", default="")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a service sees it: who makes it, from where, how long it may take (None: no deadline), and how many
    bytes its request has.
    """

    method: str
    identity: Identity
    peer: Peer
    deadline_s: float | None
    request_bytes: int = 0


class ResponseStream(Protocol):
    """Where a streaming RPC writes its answers."""

    async def write(self, message: Message | bytes) -> None:
        """Send one message, or its encoded form; waits while the transport is full."""


@dataclass(frozen=True, slots=True)
class GrpcService:
    """A gRPC service: its descriptor, and an object with one coroutine method per RPC, named as in the contract.

    A unary method is `async def Name(self, request, call: Call) -> Message`; a server-streaming one is
    `async def Name(self, request, call: Call, stream: ResponseStream) -> None`. Client streaming is not supported.
    Identity, authorization, limits and the mapping of `GatewayError` apply to all services alike. `scopes` says, by the
    name of the method, what a caller needs; what the words mean is up to the plugin that authorizes (docs/securing.md).
    A method without one is refused wherever a plugin authorizes by scope. A method with the scope `ADMINISTRATOR` is
    never called for a session of the gateway's own.
    """

    descriptor: ServiceDescriptor
    implementation: object
    scopes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class OpenStream:
    """A streaming call that is being served; an object stands for the same call for as long as it lasts."""

    method: str
    identity: Identity
    peer: Peer
    session_id: str


def correlation_id() -> str:
    """Return the id of the call that is being served, "" outside of one.

    A caller may have chosen it: it proves nothing. What goes on after its call, such as a session, is to be recorded
    without it.
    """
    return current_call.get()
