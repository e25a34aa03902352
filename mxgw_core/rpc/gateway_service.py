"""GatewayService: describes this gateway, and answers pings."""

from __future__ import annotations

import math
import time
from importlib.metadata import version

from mxgw.convert import duration_from_seconds, timestamp_from_ns
from mxgw.v1 import gateway_service_pb2 as pb
from mxgw_core.api.access import ADMINISTRATOR, as_operator
from mxgw_core.api.calls import Call
from mxgw_core.api.errors import CommandTimedOut
from mxgw_core.api.slices import in_slices
from mxgw_core.api.types import ANONYMOUS, Identity
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.sessions.registry import SessionRegistry


class GatewayService:
    """Implements mxgw.v1.GatewayService."""

    def __init__(
        self,
        settings: Settings,
        registry: SessionRegistry,
        plugins: PluginHost,
        access: AccessControl,
        instance_id: str,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._plugins = plugins
        self._access = access
        self._instance_id = instance_id
        self._started_at = timestamp_from_ns(time.time_ns())

    async def GetGatewayInfo(self, request: pb.GetGatewayInfoRequest, call: Call) -> pb.GetGatewayInfoResponse:
        del request
        limits, shows_details = self._settings.limits, _may_see_details(call.identity)
        return pb.GetGatewayInfoResponse(
            version=version("mxgw"),
            contract="mxgw.v1",
            instance_id=self._instance_id,
            started_at=self._started_at,
            plugins=[
                pb.PluginInfo(
                    name=record.name,
                    state=pb.PluginState.Value(f"PLUGIN_STATE_{record.state.name}"),
                    distribution=record.distribution,
                    version=record.version,
                    required=record.required,
                    detail=record.detail if shows_details else "",
                    controls_access=record.controls_access,
                )
                for record in self._plugins.records
            ],
            backends=sorted(self._settings.backends),
            default_backend=self._settings.default_backend,
            limits=pb.GatewayLimits(
                sessions=limits.sessions,
                pending_commands=limits.pending_commands,
                command_timeout=duration_from_seconds(limits.command_timeout_s),
                default_lease=duration_from_seconds(limits.lease_s),
                maximum_lease=duration_from_seconds(limits.maximum_lease_s),
                maximum_message_bytes=limits.message_bytes,
            ),
            open_sessions=await self._seen_by(call),
            draining=self._registry.draining,
            identity=call.identity.id,
            spare_workers=self._registry.pool.ready,
        )

    async def _seen_by(self, call: Call) -> int:
        """Return how many live sessions are in this caller's list of sessions."""
        seen = 0
        async for some in in_slices(self._registry.live()):
            for session in some:
                seen += self._access.may_see(call.identity, call.peer, session.id, session.info)
        return seen

    async def Ping(self, request: pb.PingRequest, call: Call) -> pb.PingResponse:
        response = pb.PingResponse(payload=request.payload)
        if request.session_id:
            session = self._registry.get(request.session_id)
            session.require_ready()
            session.touch()
            timeout_s = min(self._settings.limits.command_timeout_s, call.deadline_s or math.inf)
            try:
                round_trip_s = await session.worker.health.ping(timeout_s)
            except TimeoutError:
                raise CommandTimedOut(f"the worker did not answer a ping within {timeout_s:g} s") from None
            response.worker_round_trip.CopyFrom(duration_from_seconds(round_trip_s))
        response.gateway_time.CopyFrom(timestamp_from_ns(time.time_ns()))
        return response


def _may_see_details(identity: Identity) -> bool:
    """Return whether a caller may see why a plugin failed: an administrator, or anybody where nobody authenticates."""
    operator = as_operator(identity)
    return identity == ANONYMOUS or (operator is not None and ADMINISTRATOR in operator.roles)
