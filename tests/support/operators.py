"""A plugin that knows two operators and shows them sessions by tag, and a client of the dashboard's service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.dashboard.v1 import dashboard_service_pb2_grpc
from mxgw_core.api import (
    ANONYMOUS,
    AuthenticationRequest,
    Identity,
    Operator,
    OperatorCredentials,
    SessionPredicate,
    hookimpl,
)

PASSWORDS = {"anna": "correct horse", "vera": "battery staple", "nobody": "no role"}


class OperatorsPlugin:
    """Knows three operators: anna is an administrator, vera sees the sessions with the tag line1, and nobody has no
    role.

    `tags` can be changed while the gateway runs. None as tags means all sessions.
    """

    def __init__(self) -> None:
        self.tags: dict[str, set[str] | None] = {"anna": None, "vera": {"line1"}, "nobody": None}
        self._known = {
            "token-anna": Operator("anna", ("administrator",), token="token-anna", expires_at=4e9),
            "token-vera": Operator("vera", ("viewer",), token="token-vera", expires_at=4e9),
            "token-nobody": Operator("nobody", ("guest",), token="token-nobody", expires_at=4e9),
        }

    @hookimpl
    def mxgw_authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        if PASSWORDS.get(credentials.user) == credentials.password:
            return replace(self._known[f"token-{credentials.user}"])
        return None

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
        operator = self._known.get(request.metadata.get("authorization", "").removeprefix("Bearer "))
        return ANONYMOUS if operator is None else Identity(operator.name, "operator", operator.name, operator)

    @hookimpl
    def mxgw_operator_sessions(self, operator: Operator) -> SessionPredicate:
        tags = self.tags[operator.name]
        return lambda session: tags is None or session.tag in tags


class DashboardClient:
    """A client of the dashboard's service. It sends a token if it has one."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "") -> None:
        self.stub: Any = dashboard_service_pb2_grpc.DashboardServiceStub(channel)
        self.metadata: Sequence[tuple[str, str]] = (("authorization", f"Bearer {token}"),) if token else ()

    def call(self, method: str, request: Any) -> Any:
        """Start a call."""
        return getattr(self.stub, method)(request, metadata=self.metadata, timeout=60)

    async def snapshot(self) -> pb.WatchGatewayResponse:
        """Return the first message of the stream WatchGateway."""
        stream = self.call("WatchGateway", pb.WatchGatewayRequest())
        message: pb.WatchGatewayResponse = await stream.read()
        stream.cancel()
        return message


@asynccontextmanager
async def dashboard_client(target: str, token: str = "") -> AsyncIterator[DashboardClient]:
    """Connect to the dashboard's service of a gateway."""
    async with grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        yield DashboardClient(channel, token)
