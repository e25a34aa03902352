"""A real OPC UA server with Alarms and Conditions: alarms of a test's making, refresh and acknowledgement by method."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua

_O = ua.ObjectIds
RAISED_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Condition:
    """One alarm on the server."""

    name: str
    node: Any
    active: bool = False
    acked: bool = True
    severity: int = 700
    comment: str = ""
    enabled: bool = True
    retain: bool | None = None  # None: as the standard says, while somebody has to look at the alarm
    event_id: bytes = b""

    @property
    def is_retained(self) -> bool:
        return (self.active or not self.acked) if self.retain is None else self.retain


class AlarmServer:
    """Made by `alarm_server`. `refreshes` counts, `can_refresh` is what the server answers to a refresh."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self.url = url
        self.conditions: dict[str, Condition] = {}
        self.refreshes = 0
        self.can_refresh = True
        server.link_method(server.get_node(_O.AcknowledgeableConditionType_Acknowledge), self._acknowledge)
        server.link_method(server.get_node(_O.ConditionType_ConditionRefresh), self._refresh)

    def reset(self) -> None:
        """Forget all alarms without a word."""
        self.conditions.clear()
        self.refreshes, self.can_refresh = 0, True

    async def add(self, name: str, **state: Any) -> None:
        """Add an alarm without a word."""
        node = await self._server.nodes.objects.add_object(2, name)
        self.conditions[name] = Condition(name, node, **state)

    async def expose(self, name: str, *, active: bool) -> None:
        """Let clients read whether an alarm is active, without a word. Not all servers do."""
        node = self.conditions[name].node
        state = await node.add_variable(ua.NodeId(f"{name}.ActiveState", 2), ua.QualifiedName("ActiveState", 0), "")
        await state.add_property(ua.NodeId(f"{name}.ActiveState.Id", 2), ua.QualifiedName("Id", 0), active)

    @property
    def subscriptions(self) -> int:
        return len(self._server.iserver.subscription_service.subscriptions)

    async def set(self, name: str, **state: Any) -> None:
        """Change an alarm, and tell."""
        for key, value in state.items():
            setattr(self.conditions[name], key, value)
        await self._tell(self.conditions[name])

    async def trigger(self, kind: int, subscription_id: int | None = None) -> None:
        """Send an event that is no alarm."""
        generator = await self._server.get_event_generator(kind, _O.Server)
        await generator.trigger(subscription_id=subscription_id)

    async def _tell(self, condition: Condition, subscription_id: int | None = None) -> None:
        generator = await self._server.get_event_generator(_O.AlarmConditionType, _O.Server)
        event = generator.event
        event.NodeId, event.SourceName, event.ConditionName = condition.node.nodeid, "Tank", condition.name
        event.Severity, event.Retain = condition.severity, condition.is_retained
        event.Comment, event.ClientUserId = ua.LocalizedText(condition.comment), "session user"
        setattr(event, "ActiveState/Id", condition.active)
        setattr(event, "AckedState/Id", condition.acked)
        event.add_property("EnabledState/Id", condition.enabled, ua.VariantType.Boolean)
        event.add_property("ActiveState/TransitionTime", RAISED_AT, ua.VariantType.DateTime)
        await generator.trigger(message=f"{condition.name} is high", subscription_id=subscription_id)
        condition.event_id = event.EventId.Value

    async def _refresh(self, _parent: ua.NodeId, subscription_id: ua.Variant) -> Any:
        if not self.can_refresh:
            return ua.StatusCode(ua.StatusCodes.BadNothingToDo)
        self.refreshes += 1
        await self.trigger(_O.RefreshStartEventType, subscription_id.Value)
        for condition in self.conditions.values():
            if condition.is_retained:
                await self._tell(condition, subscription_id.Value)
        await self.trigger(_O.RefreshEndEventType, subscription_id.Value)
        return []

    async def _acknowledge(self, parent: ua.NodeId, event_id: ua.Variant, comment: ua.Variant) -> Any:
        (condition,) = [one for one in self.conditions.values() if one.node.nodeid == parent]
        if condition.acked:
            return ua.StatusCode(ua.StatusCodes.BadConditionBranchAlreadyAcked)
        if event_id.Value != condition.event_id:
            return ua.StatusCode(ua.StatusCodes.BadEventIdUnknown)
        await self.set(condition.name, acked=True, comment=comment.Value.Text)
        return []


@asynccontextmanager
async def alarm_server() -> AsyncIterator[AlarmServer]:
    """Serve while the block runs."""
    server = Server()
    gc.disable()  # it would go through the half million objects that this makes again and again: see demo_server.py
    try:
        await server.init()
    finally:
        gc.enable()
    server.set_endpoint("opc.tcp://127.0.0.1:0/mxgw/alarms")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await server.register_namespace("urn:mxgw:alarms")
    async with server:
        port = server.bserver.port if server.bserver is not None else 0
        yield AlarmServer(server, f"opc.tcp://127.0.0.1:{port}/mxgw/alarms")
