"""Plugins whose contexts fail while the gateway serves: what the gateway does without them, and what it denies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.clients import client_of, read_to_the_end, refused, running_calls
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import gateway_service_pb2
from mxgw.v1.alarm_service_pb2 import DESCRIPTOR as ALARMS
from mxgw.v1.alarm_service_pb2 import QueryActiveAlarmsRequest, QueryActiveAlarmsResponse, StreamAlarmsRequest
from mxgw.v1.alarm_service_pb2_grpc import AlarmServiceStub
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw.v1.event_service_pb2 import ON_GAP_UNSPECIFIED, OverflowPolicyChoice, StartPosition
from mxgw.v1.events_pb2 import SOURCE_HEALTH_UNSPECIFIED, WORKER_STATE_READY
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest
from mxgw_cli.options import GatewayTarget
from mxgw_cli.plugins.run import ask_gateway, plugins_table
from mxgw_core.api import (
    Allow,
    Call,
    Decision,
    FeedDescription,
    FeedFilter,
    FeedRequest,
    Follower,
    Gateway,
    GrpcService,
    QueueLimits,
    ResponseStream,
    Retention,
    SessionInfo,
    SubscriberLimits,
    hookimpl,
)
from mxgw_core.api.errors import PluginError, PluginFailed
from mxgw_core.plugins import PluginState
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ALARM_SERVICE = "mxgw.v1.AlarmService"


class Failing:
    """Has a context with a background task that fails when `fail` is set."""

    def __init__(self) -> None:
        self.fail = asyncio.Event()
        self.left = asyncio.Event()

    @hookimpl
    @asynccontextmanager
    async def mxgw_gateway_context(self, gateway: Gateway) -> AsyncIterator[None]:
        self.opened(gateway)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._background())
                yield
        finally:
            self.left.set()

    def opened(self, gateway: Gateway) -> None:
        pass

    async def _background(self) -> None:
        await self.fail.wait()
        raise ConnectionError("the historian is away")


class NoSnapshot:
    def frames(self, filters: Sequence[FeedFilter], limit_bytes: int) -> Iterator[bytes]:
        return iter(())


class Serving(Failing):
    """Serves a feed and a slow call, follows each session, and has a session of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[str] = []
        self.followers: list[Follower] = []
        self.called = asyncio.Event()

    def opened(self, gateway: Gateway) -> None:
        self.gateway = gateway
        limits = SubscriberLimits(5, QueueLimits(100, 100_000, 10.0))
        health = WORKER_STATE_READY, SOURCE_HEALTH_UNSPECIFIED
        description = FeedDescription("own", limits, Retention(0, 0, 0.0), NoSnapshot, lambda: health)
        self.feed = gateway.open_feed(description)

    @hookimpl
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        self.sessions.append(session.session_id)
        self.followers.append(self.gateway.follow(session.session_id, name="all"))

    @hookimpl
    def mxgw_grpc_services(self) -> Sequence[GrpcService]:
        return [GrpcService(ALARMS.services_by_name["AlarmService"], self)]

    async def QueryActiveAlarms(self, request: QueryActiveAlarmsRequest, call: Call) -> QueryActiveAlarmsResponse:  # noqa: N802
        self.called.set()
        await asyncio.Event().wait()
        return QueryActiveAlarmsResponse()

    async def AcknowledgeAlarm(self, request: object, call: Call) -> None:  # noqa: N802
        raise NotImplementedError

    async def StreamAlarms(self, request: StreamAlarmsRequest, call: Call, stream: ResponseStream) -> None:  # noqa: N802
        start = StartPosition(now=StartPosition().now)
        await self.feed.serve(
            FeedRequest(start, ON_GAP_UNSPECIFIED, "me", OverflowPolicyChoice(), None, with_snapshot=False),
            call,
            stream,
        )


class Deciding(Failing):
    """Allows every call."""

    @hookimpl
    def mxgw_authorize(self) -> Decision:
        return Allow()


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = (await stub.Check(request)).status
    return status


async def watched(channel: grpc.aio.Channel, service: str, status: int) -> None:
    """Wait until a health check reports a status."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(20):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
            if answer.status == status:
                return


def gauges(gateway: RunningGateway, name: str) -> list[object]:
    (metric,) = [metric for metric in gateway.api.observation.metrics() if metric.name == name]
    return [sample.value for sample in metric.samples]


def followers(gateway: RunningGateway) -> dict[str, object]:
    (metric,) = [metric for metric in gateway.api.observation.metrics() if metric.name == "mxgw_followers"]
    return {sample.labels[0]: sample.value for sample in metric.samples}


async def test_a_plugin_that_fails_is_taken_down_and_the_gateway_serves_on(
    install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Serving()
    install_plugin("own", plugin)
    async with running_gateway({"plugins.enabled": ["own"]}) as gateway, client_of(gateway.target) as client:
        alarms = AlarmServiceStub(client.channel)
        first = await client.open()
        events = client.stream(first.session_id)
        await events.read()
        following = alarms.StreamAlarms(StreamAlarmsRequest())
        await following.read()
        waiting = alarms.QueryActiveAlarms(QueryActiveAlarmsRequest())
        await plugin.called.wait()
        # These calls are not made by code of the plugin, just as a thread of the plugin makes them.
        own = await plugin.gateway.open_internal_session("own")
        other = await gateway.api.open_internal_session("other")
        gateway.api.follow(first.session_id, name="of no plugin")
        assert followers(gateway) == {"own/all": 3, "of no plugin": 1}

        plugin.fail.set()
        stream_end = (await read_to_the_end(following))[2]
        refusals = [
            stream_end,
            await refused(waiting),
            await refused(alarms.QueryActiveAlarms(QueryActiveAlarmsRequest())),
            await refused(alarms.StreamAlarms(StreamAlarmsRequest())),
        ]
        await watched(client.channel, ALARM_SERVICE, NOT_SERVING)
        await own.wait_closed()
        second = await client.open()
        info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest())
        (record,) = [record for record in gateway.plugins.records if record.name == "own"]
        shown = await ask_gateway(GatewayTarget(gateway.target, None, None, None, None, 20.0), must_answer=True)
        table = plugins_table(gateway.plugins.records, {}, shown.plugins, {})

        assert shown.plugins["own"].detail == record.detail
        assert [str(cell) for cell in table.columns[2].cells][:1] == ["failed"]
        assert {(refusal.code, refusal.reason) for refusal in refusals} == {
            (grpc.StatusCode.UNAVAILABLE, "PLUGIN_FAILED")
        }
        assert refusals[0].metadata == {"plugin": "own"}
        assert "the plugin 'own' of the gateway has failed; it works again after a restart" in refusals[0].text
        assert record.state is PluginState.FAILED
        assert record.detail.startswith("its context raised ConnectionError: the historian is away (")
        assert plugin.sessions == [first.session_id, own.session_id, other.session_id]
        assert [[followed async for followed in follower] for follower in plugin.followers] == [[], [], []]
        assert followers(gateway) == {"of no plugin": 1}
        assert own.info().close_detail == "the plugin 'own', which has opened it, has failed"
        assert gateway.api.session(other.session_id) is not None
        for call in (lambda: plugin.gateway.follow(first.session_id), lambda: plugin.opened(plugin.gateway)):
            with pytest.raises(PluginFailed, match="the plugin 'own' of the gateway has failed"):
                call()
        with pytest.raises(PluginFailed):
            await plugin.gateway.open_internal_session("own")
        assert [p.state for p in info.plugins if p.name == "own"] == [gateway_service_pb2.PLUGIN_STATE_FAILED]
        assert gauges(gateway, "mxgw_plugin_up") == [0]
        assert gauges(gateway, "mxgw_access_control_up") == [1]
        assert [await health(client.channel), await health(client.channel, "mxgw.v1.EventService")] == [SERVING] * 2
        assert not events.done()
        assert second.session_id
    (line,) = [r.getMessage() for r in caplog.records if "not called any more" in r.getMessage()]
    assert line.startswith(f"plugin 'own' of {record.distribution} 1.0 cannot be used: its context raised Connection")


async def test_a_plugin_that_decides_about_access_and_fails_denies_everything(
    install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Deciding()
    install_plugin("tokens", plugin)
    async with running_gateway({"plugins.enabled": ["tokens"]}) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        events = client.stream(session.session_id)
        await events.read()
        (info,) = gateway.api.sessions()
        os.kill(info.worker_pid, signal.SIGSTOP)
        register = c.MxCommand(register=c.RegisterCommand(client_name="test"))
        command = client.commands.Invoke(InvokeRequest(session_id=session.session_id, command=register))
        await until(lambda: "Invoke" in running_calls(gateway.api))

        plugin.fail.set()
        end = (await read_to_the_end(events))[2]
        unknown = await refused(command)
        os.kill(info.worker_pid, signal.SIGCONT)
        refusal = await refused(client.gateway.GetGatewayInfo(GetGatewayInfoRequest()))
        await watched(client.channel, "", NOT_SERVING)

        assert [end.reason, refusal.reason, unknown.reason] == ["PLUGIN_FAILED"] * 3
        # Proxies repeat a call that is UNAVAILABLE, and the command could then take effect twice.
        assert [end.code, unknown.code] == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN]
        assert unknown.metadata["outcome"] == "unknown"
        assert unknown.text.endswith("whether it takes effect is unknown)")
        assert end.text.endswith("and until then all that it decides is denied")
        names = [f"mxgw.v1.{name}Service" for name in ("Session", "Command", "Event", "Gateway")]
        assert {await health(client.channel, name) for name in names} == {NOT_SERVING}
        assert gauges(gateway, "mxgw_plugin_up") == gauges(gateway, "mxgw_access_control_up") == [0]
        assert gateway.api.session(session.session_id) is not None  # it is not ended
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "'tokens'" in line.getMessage()
    assert line.getMessage().endswith("Correct the cause, and restart the gateway")


@pytest.mark.parametrize("decides", [False, True])
async def test_a_required_plugin_that_fails_ends_the_gateway_in_order(
    install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture, *, decides: bool
) -> None:
    caplog.set_level(logging.INFO, "mxgw_core.app")
    plugin = Deciding() if decides else Failing()
    install_plugin("vital", plugin)
    keys = {"plugins.enabled": ["vital"], "plugins.required": ["vital"]}

    async def serve() -> None:
        async with running_gateway(keys) as gateway, client_of(gateway.target) as client:
            await client.open()
            plugin.fail.set()
            await asyncio.Event().wait()

    with pytest.raises(PluginError, match=r"'vital' of .* cannot be used: its context raised ConnectionError"):
        await serve()

    assert "1 sessions closed, 0 left to the next gateway" in caplog.text


async def test_a_required_plugin_that_fails_before_the_gateway_serves_stops_the_start(
    install_plugin: InstallPlugin,
) -> None:
    class Patient:
        @hookimpl
        @asynccontextmanager
        async def mxgw_gateway_context(self) -> AsyncIterator[None]:
            early.fail.set()
            await early.left.wait()
            yield

    early = Deciding()
    install_plugin("early", early)
    install_plugin("patient", Patient())
    with pytest.raises(PluginError, match=r"'early' of .*, which decides about access, cannot be used: its context"):
        async with running_gateway({"plugins.enabled": ["early", "patient"]}):
            raise AssertionError("it serves")


async def test_what_cannot_start_is_left_out_or_stops_the_start(install_plugin: InstallPlugin) -> None:
    class Exits:
        @hookimpl
        @asynccontextmanager
        async def mxgw_gateway_context(self) -> AsyncIterator[None]:
            raise asyncio.CancelledError
            yield

    class ExitsDeciding(Exits):
        @hookimpl
        def mxgw_authorize(self) -> Decision:
            return Allow()

    install_plugin("optional", Exits())
    install_plugin("tokens", ExitsDeciding())
    async with running_gateway({"plugins.enabled": ["optional"]}) as gateway:
        assert gauges(gateway, "mxgw_plugin_up") == [0]
    with pytest.raises(PluginError, match=r"'tokens' of .* cannot be used: entering its context raised CancelledError"):
        async with running_gateway({"plugins.enabled": ["tokens"]}):
            raise AssertionError("it serves")
