"""What callers see of a plugin that fails: one gateway, whose plugin fails in another way in each step."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from support.clients import client_of, refused
from support.plugins import InstallPlugin

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.alarm_service_pb2 import DESCRIPTOR as ALARMS
from mxgw.v1.alarm_service_pb2 import QueryActiveAlarmsRequest
from mxgw.v1.alarm_service_pb2_grpc import AlarmServiceStub
from mxgw.v1.gateway_service_pb2 import PingRequest
from mxgw.v1.session_service_pb2 import GetSessionStateRequest
from mxgw_core.api import ANONYMOUS, Gateway, GrpcService, Identity, hookimpl
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

DENIED, UNAVAILABLE = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE


class Plugin:
    """Does what it should, but for the part that is named by `failing`: this part does `fail`."""

    def __init__(self) -> None:
        self.failing = ""
        self.fail: Callable[[], object] = lambda: None

    def _do(self, part: str, value: object) -> Any:
        return self.fail() if self.failing == part else value

    @hookimpl
    def mxgw_authenticate(self, request: object) -> Identity | None:
        identity: Identity = self._do("authenticate", ANONYMOUS)
        return identity

    @hookimpl
    def mxgw_authorize(self, request: object) -> Any:
        return self._do("authorize", None)

    @hookimpl
    def mxgw_command_guard(self, session: object, identity: object) -> Any:
        return SimpleNamespace(denied=lambda command, items: self._do("guard", {}))

    @hookimpl
    def mxgw_event_filter(self, session: object, identity: object) -> Any:
        return SimpleNamespace(keep=lambda item, kind: self._do("filter", True))

    @hookimpl
    def mxgw_stream_pace(self, session: object, identity: object) -> Any:
        return SimpleNamespace(wait_s=lambda: self._do("pace", 0.0), sent=lambda events: None)

    @hookimpl
    def mxgw_grpc_services(self, gateway: Gateway) -> Any:
        async def call(*_: object) -> Any:
            return self._do("service", None)

        methods = dict.fromkeys((method.name for method in ALARMS.services_by_name["AlarmService"].methods), call)
        return [GrpcService(ALARMS.services_by_name["AlarmService"], SimpleNamespace(**methods))]


async def test_a_plugin_that_fails_is_named_to_the_caller_and_the_gateway_goes_on(
    install_plugin: InstallPlugin,
) -> None:
    plugin = Plugin()
    install_plugin("evil", plugin)
    async with running_gateway({"plugins.enabled": ["evil"]}) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        await client.register(session_id)
        await client.invoke(session_id, add_item=c.AddItemCommand(server_handle=1, item_definition="Tank_001.Level"))
        await client.invoke(session_id, advise=c.AdviseCommand(server_handle=1, item_handle=1))
        alarms = AlarmServiceStub(client.channel)  # type: ignore[no-untyped-call]

        def ping() -> Any:
            return client.gateway.Ping(PingRequest())

        def command() -> Any:
            return client.register(session_id)

        def stream() -> Any:
            return client.stream(session_id)

        def state() -> Any:
            return client.sessions.GetSessionState(GetSessionStateRequest(session_id=session_id))

        def query() -> Any:
            return alarms.QueryActiveAlarms(QueryActiveAlarmsRequest())

        def cancels() -> None:
            raise asyncio.CancelledError

        named = "plugin 'evil' failed"
        steps: list[tuple[str, Callable[[], object], Callable[[], Any], grpc.StatusCode, str]] = [
            ("authenticate", sys.exit, ping, grpc.StatusCode.UNAUTHENTICATED, "could not be authenticated"),
            ("authenticate", lambda: "root", ping, grpc.StatusCode.UNAUTHENTICATED, "could not be authenticated"),
            ("authorize", sys.exit, ping, DENIED, named),
            ("authorize", cancels, ping, DENIED, named),
            ("authorize", lambda: False, ping, DENIED, named),
            ("guard", sys.exit, command, DENIED, named),
            ("guard", lambda: None, command, DENIED, named),
            ("guard", lambda: {7: "no such input"}, command, DENIED, named),
            ("filter", sys.exit, stream, DENIED, named),
            ("filter", lambda: None, stream, DENIED, named),
            ("filter", cancels, state, DENIED, named),
            ("pace", sys.exit, stream, UNAVAILABLE, "plugin 'evil', which limits how fast this stream is, failed"),
            ("pace", lambda: float("nan"), stream, UNAVAILABLE, "plugin 'evil'"),
            ("service", sys.exit, query, grpc.StatusCode.INTERNAL, named),
            ("service", cancels, query, grpc.StatusCode.INTERNAL, named),
            ("service", lambda: 7, query, grpc.StatusCode.INTERNAL, named),
        ]
        for plugin.failing, plugin.fail, call, code, text in steps:
            refusal = await refused(call())

            assert (refusal.code, plugin.failing) == (code, plugin.failing)
            assert text in refusal.text, plugin.failing

            plugin.failing = ""
            await ping()

        assert gateway.plugins.failures == {
            ("evil", "mxgw_authenticate"): 2,
            ("evil", "mxgw_authorize"): 3,
            ("evil", "mxgw_command_guard"): 3,
            ("evil", "mxgw_event_filter"): 3,
            ("evil", "mxgw_stream_pace"): 2,
            ("evil", "mxgw_grpc_services"): 3,
        }
        assert gateway.app.gateway.observation.metrics()


async def test_a_call_is_slow_only_while_the_gateway_serves(install_plugin: InstallPlugin) -> None:
    class Slow:
        @hookimpl
        @asynccontextmanager
        async def mxgw_gateway_context(self, gateway: Gateway) -> AsyncIterator[None]:
            time.sleep(0.002)  # noqa: ASYNC251  this is the slow call
            yield

        @hookimpl
        def mxgw_session_opened(self, session: object) -> None:
            time.sleep(0.002)

    settings = {"plugins.enabled": [install_plugin("slow", Slow())], "plugins.slow_call_ms": 1}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        await client.open()
        tallies = gateway.plugins.calls.tallies

        assert tallies["slow", "mxgw_gateway_context"].slow == 0
        assert tallies["slow", "mxgw_session_opened"].slow == 1
