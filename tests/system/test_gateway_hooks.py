"""Every hook, one by one, on a real gateway: called when it says, with what it says, and an exception stays its own.

Plugins are objects of a test, installed as distributions with real entry points. `mxgw_settings` and `mxgw_cli` have
their tests beside the plugin host.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.clients import Client, client_of, read_events, refused
from support.clock import advance
from support.events import batch, serial_of
from support.peers import scripted_worker
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import gateway_service_pb2
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest, PingRequest, PingResponse
from mxgw.v1.session_service_pb2 import GetSessionRequest
from mxgw_core.api import (
    AccessRequest,
    Allow,
    AuditEntry,
    AuthenticationRequest,
    BufferLimit,
    Call,
    CloseReason,
    Decision,
    Deny,
    DropOldest,
    EndedSession,
    Gateway,
    GrpcService,
    HistoryPage,
    Identity,
    ItemRecord,
    Lag,
    Operator,
    OperatorCredentials,
    Orphan,
    OrphanVerdict,
    Peer,
    PolicyRequest,
    QueueLimits,
    Retention,
    SessionInfo,
    SessionState,
    SubscriberLimits,
    WorkerExit,
    WorkerIdentity,
    WorkerProof,
    WorkerRefusal,
    WorkerSpawn,
    hookimpl,
)
from mxgw_core.api.errors import (
    AccessDenied,
    DependencyUnavailable,
    GatewayError,
    InvalidRequest,
    PluginError,
    Unauthenticated,
)
from mxgw_core.plugins.loading import HOOKS
from mxgw_core.testing import RunningGateway, running_gateway, session_info
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION
from mxgw_worker.platform import boot_id, pid_scope, start_ticks

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[2]
LOAD: dict[str, object] = {"backends.sim.profile": "load", "backends.sim.items": 50, "backends.sim.rate": 0}
BROKEN = RuntimeError("this plugin is broken")

Run = Callable[..., Any]


def names(count: int) -> list[str]:
    return [f"Load.Item{number:05d}" for number in range(1, count + 1)]


@pytest.fixture
def running(install_plugin: InstallPlugin) -> Run:
    """Run a gateway with these plugins, the first named first in the settings, and a client of it.

    They are called p0, p1, … in the order in which the test brings them.
    """
    numbers = itertools.count()

    @asynccontextmanager
    async def run(*plugins: object, **settings: object) -> AsyncIterator[tuple[RunningGateway, Client]]:
        enabled = [install_plugin(f"p{next(numbers)}", plugin) for plugin in plugins]
        async with (
            running_gateway({**LOAD, "plugins.enabled": enabled, **settings}) as gateway,
            client_of(gateway.target) as client,
        ):
            yield gateway, client

    return run


def hook(name: str, function: Callable[..., Any]) -> object:
    """Return a plugin with one hook."""
    function.__name__ = name
    return type("OneHook", (), {name: hookimpl(function)})()


def raising(name: str, arguments: str = "") -> object:
    """Return a plugin whose one hook raises."""
    scope: dict[str, Any] = {"BROKEN": BROKEN}
    exec(f"def {name}(self, {arguments}): raise BROKEN", scope)
    return hook(name, scope[name])


# all hooks


async def test_every_hook_has_a_test_of_its_name_and_a_heading_in_the_documentation() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tested = set(re.findall(r"def test_hook_(\w+)", sources))
    page = (ROOT / "docs" / "plugins" / "hooks.md").read_text(encoding="utf-8")

    for name in HOOKS:
        longer = [other for other in HOOKS if other != name and other.startswith(name)]
        own = [t for t in tested if t.startswith(name) and not any(t.startswith(other) for other in longer)]

        assert own, f"no test_hook_{name}"
        assert f"### {name}\n" in page


# life cycle


async def test_hook_mxgw_gateway_context_is_entered_in_the_order_of_the_settings_and_left_after_the_last_session(
    running: Run,
) -> None:
    told: list[str] = []

    class Context:
        def __init__(self, name: str) -> None:
            self._name = name

        @hookimpl
        @asynccontextmanager
        async def mxgw_gateway_context(self, gateway: Gateway) -> AsyncIterator[None]:
            assert gateway.sessions() == []
            told.append(f"{self._name} enters")
            yield
            told.append(f"{self._name} leaves")

        @hookimpl
        def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
            told.append(f"{self._name} closed {reason.name}")

    async with running(Context("one"), Context("two")) as (_, client):
        assert told == ["one enters", "two enters"]

        await client.open()

    assert told[2:4] == ["two closed GATEWAY_SHUTDOWN", "one closed GATEWAY_SHUTDOWN"]
    assert told[4:] == ["two leaves", "one leaves"]


async def test_hook_mxgw_gateway_context_that_cannot_be_entered_fails_its_plugin_alone(running: Run) -> None:
    @asynccontextmanager
    async def broken(self: object, gateway: Gateway) -> AsyncIterator[None]:
        raise BROKEN
        yield

    opened: list[str] = []
    well = hook("mxgw_session_opened", lambda self, session: opened.append(session.session_id))
    async with running(hook("mxgw_gateway_context", broken), well) as (_, client):
        info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest())
        session = await client.open()

        assert opened == [session.session_id]
        states = {plugin.name: (plugin.state, plugin.detail) for plugin in info.plugins}
        assert states["p0"][0] == gateway_service_pb2.PLUGIN_STATE_FAILED
        assert "broken" in states["p0"][1]
        assert states["p1"][0] == gateway_service_pb2.PLUGIN_STATE_LOADED

    with pytest.raises(PluginError, match="broken"):
        async with running(hook("mxgw_gateway_context", broken), **{"plugins.required": ["p2"]}):
            pass


class Pinger:
    """A plugin's own service: it implements GatewayService's Ping under its own name."""

    async def GetGatewayInfo(self, request: Any, call: Call) -> Any:  # noqa: N802  named as in the contract
        raise NotImplementedError

    async def Ping(self, request: PingRequest, call: Call) -> PingResponse:  # noqa: N802  named as in the contract
        return PingResponse(payload=f"{call.identity.id} {call.method}".encode())


def _own_service() -> Any:
    """Return the descriptor of a service that only this plugin has."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.Default()
    proto = descriptor_pb2.FileDescriptorProto(
        name="mxgw_test_own.proto", package="mxgw.test", syntax="proto3",
        dependency=["mxgw/v1/gateway_service.proto"],
    )  # fmt: skip
    service = proto.service.add(name="OwnService")
    service.method.add(name="Ping", input_type=".mxgw.v1.PingRequest", output_type=".mxgw.v1.PingResponse")
    pool.Add(proto) if hasattr(pool, "Add") else pool.AddSerializedFile(proto.SerializeToString())
    return pool.FindServiceByName("mxgw.test.OwnService")


async def test_hook_mxgw_grpc_services_are_served_like_the_gateways_own(running: Run) -> None:
    service = GrpcService(_own_service(), Pinger())
    async with running(hook("mxgw_grpc_services", lambda self, gateway: [service])) as (_, client):
        call = client.channel.unary_unary(
            "/mxgw.test.OwnService/Ping",
            request_serializer=PingRequest.SerializeToString,
            response_deserializer=PingResponse.FromString,
        )

        assert (await call(PingRequest())).payload == b"anonymous /mxgw.test.OwnService/Ping"

        refusal = await refused(call(PingRequest(session_id="a\nb")))

        assert refusal.reason == "INVALID_REQUEST"


async def test_hook_mxgw_grpc_services_whose_own_wait_is_cancelled_answer_that_the_gateway_failed(
    running: Run,
) -> None:
    class Cancelled:
        async def Ping(self, request: PingRequest, call: Call) -> PingResponse:  # noqa: N802
            raise asyncio.CancelledError

    service = GrpcService(_own_service(), Cancelled())
    async with running(hook("mxgw_grpc_services", lambda self, gateway: [service])) as (_, client), asyncio.timeout(60):
        call = client.channel.unary_unary(
            "/mxgw.test.OwnService/Ping",
            request_serializer=PingRequest.SerializeToString,
            response_deserializer=PingResponse.FromString,
        )
        refusal = await refused(call(PingRequest()))

        assert refusal.code is grpc.StatusCode.INTERNAL


class OtherGateway(Pinger):
    async def GetGatewayInfo(self, request: GetGatewayInfoRequest, call: Call) -> None:  # noqa: N802
        raise AssertionError("the gateway's own service answers")


async def test_hook_mxgw_grpc_services_that_clash_fail_their_plugin_alone(running: Run) -> None:
    own = GrpcService(_own_service(), Pinger())
    clashing = GrpcService(gateway_service_pb2.DESCRIPTOR.services_by_name["GatewayService"], OtherGateway())

    def giving(service: GrpcService) -> object:
        return hook("mxgw_grpc_services", lambda self, gateway: [service])

    async with running(giving(own), giving(clashing), giving(own)) as (_, client):
        info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest())
        ping = client.channel.unary_unary(
            "/mxgw.test.OwnService/Ping",
            request_serializer=PingRequest.SerializeToString,
            response_deserializer=PingResponse.FromString,
        )

        states = {plugin.name: (plugin.state, plugin.detail) for plugin in info.plugins}
        failed = gateway_service_pb2.PLUGIN_STATE_FAILED
        assert states["p0"][0] == gateway_service_pb2.PLUGIN_STATE_LOADED
        assert states["p1"] == (failed, "it adds the gRPC service mxgw.v1.GatewayService, which the gateway has")
        assert states["p2"] == (failed, "it adds the gRPC service mxgw.test.OwnService, which plugin 'p0' has")
        assert (await ping(PingRequest())).payload.startswith(b"anonymous")


async def test_hook_mxgw_grpc_services_that_raises_fails_its_plugin_alone(running: Run) -> None:
    async with running(raising("mxgw_grpc_services", "gateway")) as (_, client):
        info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest())

        assert [plugin.state for plugin in info.plugins if plugin.name == "p0"] == [
            gateway_service_pb2.PLUGIN_STATE_FAILED
        ]


# sessions


async def test_hook_mxgw_session_opened_is_told_once_when_ready_and_an_exception_stays_its_own(running: Run) -> None:
    told: list[SessionInfo] = []
    listening = hook("mxgw_session_opened", lambda self, session: told.append(session))
    async with running(listening, raising("mxgw_session_opened", "session")) as (gateway, client):
        session = await client.open(name="line 3", tag="north")

        assert [(s.session_id, s.state, s.client_name, s.tag) for s in told] == [
            (session.session_id, SessionState.READY, "line 3", "north")
        ]
        assert gateway.plugins.failures == {("p1", "mxgw_session_opened"): 1}


async def test_hook_mxgw_session_attached_is_told_when_a_session_gets_a_subscriber_and_had_none(running: Run) -> None:
    told: list[int] = []
    listening = hook("mxgw_session_attached", lambda self, session: told.append(session.subscribers))
    two = hook("mxgw_subscriber_limits", lambda self, session: SubscriberLimits(2, QueueLimits(1000, 1 << 20, 0.0)))
    async with running(listening, raising("mxgw_session_attached", "session"), two) as (gateway, client):
        session = await client.open()

        assert told == []

        for count in (1, 2):
            streams = [client.stream(session.session_id) for _ in range(2)]
            for stream in streams:
                await stream.read()

            assert told == [1] * count

            for stream in streams:
                stream.cancel()
            await until(lambda: gateway.api.sessions()[0].subscribers == 0)


async def test_hook_mxgw_session_detached_is_not_told_while_the_gateway_drains(running: Run) -> None:
    told: list[str] = []
    listening = hook("mxgw_session_detached", lambda self, session: told.append(session.session_id))
    async with running(listening) as (_, client):
        await client.stream((await client.open()).session_id).read()

    assert told == []


async def test_hook_mxgw_session_detached_is_told_when_the_last_subscriber_left(running: Run) -> None:
    told: list[int] = []
    listening = hook("mxgw_session_detached", lambda self, session: told.append(session.subscribers))
    two = hook("mxgw_subscriber_limits", lambda self, session: SubscriberLimits(2, QueueLimits(1000, 1 << 20, 0.0)))
    async with running(listening, raising("mxgw_session_detached", "session"), two) as (gateway, client):
        session = await client.open()
        first, second = client.stream(session.session_id), client.stream(session.session_id)
        await first.read()
        await second.read()
        first.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 1)

        assert told == []

        second.cancel()
        await until(lambda: told == [0])

        assert gateway.api.sessions()[0].state is SessionState.READY


async def test_hook_mxgw_session_closed_is_told_once_when_the_worker_is_gone(running: Run) -> None:
    told: list[tuple[SessionState, CloseReason, bool]] = []

    def closed(self: object, session: SessionInfo, reason: CloseReason) -> None:
        told.append((session.state, reason, Path(f"/proc/{session.worker_pid}").exists()))

    broken = raising("mxgw_session_closed", "session, reason")
    async with running(hook("mxgw_session_closed", closed), broken) as (_, client):
        one, other = await client.open(), await client.open()
        await client.close(one.session_id)
        os.kill(other.worker_pid, signal.SIGKILL)
        await until(lambda: len(told) == 2)

        assert told == [
            (SessionState.CLOSED, CloseReason.CLIENT, False),
            (SessionState.FAULTED, CloseReason.WORKER_EXITED, False),
        ]


async def test_hook_mxgw_detach_grace_ends_a_session_that_stays_alone(running: Run) -> None:
    async with running(hook("mxgw_detach_grace", lambda self, session: 100.0)) as (gateway, client):
        session = await client.open()
        stream = client.stream(session.session_id)
        await stream.read()
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        stream = client.stream(session.session_id)  # who comes back in time keeps it
        await stream.read()
        advance(101)
        await client.register(session.session_id)

        assert gateway.api.session(session.session_id) is not None

        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        advance(101)
        await until(lambda: not gateway.api.sessions(), 60)
        refusal = await refused(client.stream(session.session_id))

        assert refusal.metadata["close_reason"] == "DETACH_GRACE_EXPIRED"


@pytest.mark.parametrize("grace", [float("inf"), None, BROKEN, "soon"])
async def test_hook_mxgw_detach_grace_without_a_time_leaves_the_session_to_its_lease(
    running: Run, grace: object
) -> None:
    def answer(self: object, session: SessionInfo) -> Any:
        if isinstance(grace, Exception):
            raise grace
        return grace

    async with running(hook("mxgw_detach_grace", answer)) as (gateway, client):
        session = await client.open()
        stream = client.stream(session.session_id)
        await stream.read()
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        await client.register(session.session_id)

        assert gateway.api.sessions()[0].state is SessionState.READY


async def test_hook_mxgw_detach_grace_of_zero_ends_a_session_at_once(running: Run) -> None:
    async with running(hook("mxgw_detach_grace", lambda self, session: 0)) as (gateway, client):
        session = await client.open()
        stream = client.stream(session.session_id)
        await stream.read()
        stream.cancel()
        await until(lambda: not gateway.api.sessions(), 60)


# identity and access


async def test_hook_mxgw_authenticate_is_asked_at_every_call_and_decides_who_the_caller_is(running: Run) -> None:
    asked: list[str] = []

    def authenticate(self: object, request: AuthenticationRequest) -> Identity | None:
        asked.append(request.method)
        key = request.metadata.get("authorization", "")
        if key == "revoked":
            raise Unauthenticated("this key was revoked")
        if key == "broken":
            raise BROKEN
        return Identity(key, "key") if key else None

    async with running(hook("mxgw_authenticate", authenticate)) as (_, client):
        info = client.gateway.GetGatewayInfo
        alice = (("authorization", "alice"),)

        assert (await info(GetGatewayInfoRequest(), metadata=alice)).identity == "alice"

        for metadata, text in ((None, "no accepted credentials"), ("revoked", "revoked"), ("broken", "could not be")):
            key = (("authorization", metadata),) if metadata else ()
            refusal = await refused(info(GetGatewayInfoRequest(), metadata=key))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert text in refusal.text
        refusal = await refused(client.stream("nobody"))

        assert refusal.reason == "UNAUTHENTICATED"
        assert asked == ["/mxgw.v1.GatewayService/GetGatewayInfo"] * 4 + ["/mxgw.v1.EventService/StreamEvents"]


async def test_hook_mxgw_authorize_is_asked_at_every_call_and_again_as_a_stream_attaches(running: Run) -> None:
    asked: list[AccessRequest] = []
    decisions: dict[str, Decision | Exception] = {}

    def authorize(self: object, request: AccessRequest) -> Decision | None:
        asked.append(request)
        decision = decisions.get(request.method.rpartition("/")[2])
        if isinstance(decision, Exception):
            raise decision
        return decision

    async with running(hook("mxgw_authorize", authorize), hook("mxgw_authorize", lambda self, request: Allow())) as (
        _,
        client,
    ):
        session = await client.open()
        stream = client.stream(session.session_id)
        await stream.read()
        stream.cancel()

        assert [(r.method.rpartition("/")[2], r.session_id) for r in asked] == [
            ("OpenSession", ""),
            ("StreamEvents", session.session_id),
            ("StreamEvents", session.session_id),
        ]
        assert asked[1].session is not None
        assert asked[1].session.owner == "anonymous"

        for decision in (Deny("you lack the scope events"), BROKEN):
            decisions["StreamEvents"] = decision
            refusal = await refused(client.stream(session.session_id))

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
            assert ("scope events" in refusal.text) == (decision is not BROKEN)
        refusal = await refused(client.stream("nobody"))

        assert refusal.reason == "ACCESS_DENIED"  # who may not ask does not learn what is there
        assert asked[-1].session is None
        assert asked[-1].session_id == "nobody"


async def test_hook_mxgw_decided_learns_once_what_became_of_each_call_and_refuses_what_it_cannot_record(
    running: Run,
) -> None:
    learnt: list[tuple[str, str, dict[int, str]]] = []
    refusals: set[str] = set()

    def decided(self: object, request: AccessRequest, refusal: GatewayError | None, denied: Mapping[int, str]) -> None:
        name = request.method.rpartition("/")[2]
        learnt.append((name, refusal.message if refusal else "", dict(denied)))
        if name in refusals:
            raise BROKEN

    late = hook("mxgw_authorize", lambda self, request: Deny("no") if request.method.endswith("/Ping") else None)
    guard = hook("mxgw_command_guard", lambda self, session, identity: Guard({"B": "not B"}))
    async with running(hook("mxgw_decided", decided), late, guard) as (_, client):
        session_id = (await client.open()).session_id
        stream = client.stream(session_id)
        await stream.read()
        stream.cancel()
        await refused(client.gateway.Ping(PingRequest(), timeout=10))
        await client.register(session_id)
        items = [c.ItemReference(item_definition=name) for name in ("A", "B")]
        await client.invoke(session_id, subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=items))

        assert learnt == [
            ("OpenSession", "", {}),
            ("StreamEvents", "", {}),
            ("Ping", "no", {}),
            ("Invoke", "", {}),
            ("Invoke", "", {1: "not B"}),
        ]

        refusals |= {"GetSession", "Invoke", "Ping"}

        assert (await refused(client.sessions.GetSession(GetSessionRequest(session_id=session_id)))).text == (
            "the decision could not be recorded: plugin 'p0' failed"
        )
        assert (await refused(client.register(session_id))).reason == "ACCESS_DENIED"
        assert (await refused(client.gateway.Ping(PingRequest(), timeout=10))).text == "no"


async def test_hook_mxgw_authorize_hides_foreign_sessions_from_a_list(running: Run) -> None:
    def authorize(self: object, request: AccessRequest) -> Decision | None:
        foreign = request.session is not None and request.session.tag == "south"
        return Deny("not yours") if foreign else None

    async with running(hook("mxgw_authorize", authorize)) as (_, client):
        ids = [(await client.open(tag=tag)).session_id for tag in ("north", "south", "north")]
        from mxgw.v1.session_service_pb2 import ListSessionsRequest

        listed = await client.sessions.ListSessions(ListSessionsRequest())

        assert [session.session_id for session in listed.sessions] == [ids[0], ids[2]]


class Guard:
    """Denies writes and the items it was given."""

    def __init__(self, items: Mapping[str, str]) -> None:
        self._items = items

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        if command.HasField("unregister"):
            raise BROKEN
        if command.HasField("add_item"):
            item = command.add_item.item_definition
            return {0: self._items[item]} if item in self._items else {}
        added = command.subscribe_bulk.items
        return {n: self._items[i.item_definition] for n, i in enumerate(added) if i.item_definition in self._items}


async def test_hook_mxgw_command_guard_is_asked_at_a_callers_first_command_and_judges_input_by_input(
    running: Run,
) -> None:
    asked: list[tuple[str, str]] = []

    def guard(self: object, session: SessionInfo, identity: Identity) -> Guard:
        asked.append((session.session_id, identity.id))
        return Guard({"Load.Item00002": "item 2 is not for you"})

    other = hook("mxgw_command_guard", lambda self, session, identity: Guard({"Load.Item00004": "nor is item 4"}))
    authenticate = hook(
        "mxgw_authenticate", lambda self, request: Identity(request.metadata.get("who", "alice"), "key")
    )
    async with running(hook("mxgw_command_guard", guard), other, authenticate) as (_, client):
        session = await client.open()

        assert asked == []

        handle = await client.register(session.session_id)
        subscribe = c.SubscribeBulkCommand(
            server_handle=handle, items=[c.ItemReference(item_definition=name) for name in names(5)]
        )
        reply = await client.invoke(session.session_id, subscribe_bulk=subscribe)
        results = [(item.reason, item.message) for item in reply.bulk.items]

        assert results == [
            ("", ""),
            ("ITEM_DENIED", "item 2 is not for you"),
            ("", ""),
            ("ITEM_DENIED", "nor is item 4"),
            ("", ""),
        ]
        assert all(reply.bulk.items[n].item_handle > 0 for n in (0, 2, 4))
        assert asked == [(session.session_id, "alice")]

        item = c.AddItemCommand(server_handle=handle, item_definition="Load.Item00002")
        refusal = await refused(client.invoke(session.session_id, add_item=item))

        assert (refusal.reason, refusal.text) == ("ACCESS_DENIED", "item 2 is not for you")

        refusal = await refused(client.invoke(session.session_id, unregister=c.UnregisterCommand(server_handle=handle)))

        assert refusal.reason == "ACCESS_DENIED"  # a guard that fails denies

        command = c.MxCommand(register=c.RegisterCommand(client_name="x"))
        request = cs.InvokeRequest(session_id=session.session_id, command=command)
        await client.commands.Invoke(request, metadata=(("who", "bob"),))

        assert asked[1:] == [(session.session_id, "bob")]


async def test_hook_mxgw_command_guard_is_asked_again_when_a_caller_may_claim_something_else(running: Run) -> None:
    claims: list[object] = [object()]
    asked: list[object] = []

    def guard(self: object, session: SessionInfo, identity: Identity) -> Guard:
        asked.append(identity.claims)
        return Guard({})

    authenticate = hook("mxgw_authenticate", lambda self, request: Identity("alice", "key", claims=claims[-1]))
    async with running(hook("mxgw_command_guard", guard), authenticate) as (_, client):
        session = await client.open()
        for _ in range(2):
            await client.register(session.session_id)
        claims.append(object())
        for _ in range(2):
            await client.register(session.session_id)

    assert asked == claims


async def test_hook_mxgw_command_guard_that_raises_refuses_the_command(running: Run) -> None:
    async with running(raising("mxgw_command_guard", "session, identity")) as (_, client):
        session = await client.open()
        refusal = await refused(client.register(session.session_id))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")


class Only:
    """A filter for some items."""

    def __init__(self, handles: set[int]) -> None:
        self._handles = handles

    def keep(self, item: ItemRecord, kind: int) -> bool:
        assert kind == e.EVENT_KIND_DATA_CHANGE
        return item.item_handle in self._handles


async def test_hook_mxgw_event_filter_is_asked_as_a_subscriber_attaches_and_all_must_agree(running: Run) -> None:
    handles: list[int] = []
    asked: list[str] = []

    def first(self: object, session: SessionInfo, identity: Identity) -> Only:
        asked.append(identity.id)
        return Only(set(handles[:6]))

    second = hook("mxgw_event_filter", lambda self, session, identity: Only(set(handles[4:])))
    none = hook("mxgw_event_filter", lambda self, session, identity: None)
    async with running(hook("mxgw_event_filter", first), second, none) as (_, client):
        session = await client.open()
        handles += await client.subscribe(session.session_id, names(10))

        assert asked == []

        stream = client.stream(session.session_id)
        frames, sequences = await read_events(stream, 2)
        stream.cancel()

        assert asked == ["anonymous"]
        assert sequences == [5, 6]
        assert not any(frame.HasField("gap") for frame in frames)


async def test_hook_mxgw_event_filter_that_raises_refuses_the_stream(running: Run) -> None:
    async with running(raising("mxgw_event_filter", "session, identity")) as (gateway, client):
        session = await client.open()
        refusal = await refused(client.stream(session.session_id))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
        assert gateway.api.sessions()[0].subscribers == 0


CREDENTIALS = OperatorCredentials("carol", "secret", Peer("127.0.0.1:1", is_local=True))


async def test_hook_mxgw_authenticate_operator_may_block_and_the_first_answer_counts(running: Run) -> None:
    threads: list[threading.Thread] = []

    def operator(self: object, credentials: OperatorCredentials) -> Operator | None:
        threads.append(threading.current_thread())
        if credentials.user == "broken":
            raise BROKEN
        return Operator(credentials.user, ["viewer"]) if credentials.password == "secret" else None

    async with running(hook("mxgw_authenticate_operator", operator)) as (gateway, _):
        assert await gateway.api.authenticate_operator(CREDENTIALS) == Operator("carol", ["viewer"])
        for user, password in (("carol", "wrong"), ("broken", "secret")):
            credentials = OperatorCredentials(user, password, CREDENTIALS.peer)

            assert await gateway.api.authenticate_operator(credentials) is None

    assert threading.main_thread() not in threads


async def test_hook_mxgw_renew_operator_may_block_and_refuse_on_purpose(running: Run) -> None:
    carol = Operator("carol", ["viewer"], token="old")
    threads: list[threading.Thread] = []

    def renewed(self: object, operator: Operator) -> Operator | None:
        threads.append(threading.current_thread())
        match operator.name:
            case "broken":
                raise BROKEN
            case "away":
                raise DependencyUnavailable("the directory is not there")
        return Operator(operator.name, ["administrator"], token="new") if operator.token == "old" else None

    async with running(hook("mxgw_renew_operator", renewed)) as (gateway, _):
        assert await gateway.api.renew_operator(carol) == Operator("carol", ["administrator"], token="new")
        assert await gateway.api.renew_operator(Operator("carol", ["viewer"])) is None
        assert await gateway.api.renew_operator(Operator("broken", ["viewer"])) is None
        with pytest.raises(DependencyUnavailable):
            await gateway.api.renew_operator(Operator("away", ["viewer"]))

    assert threading.main_thread() not in threads


async def test_hook_mxgw_operator_left_tells_every_plugin(running: Run) -> None:
    told: list[str] = []
    one = hook("mxgw_operator_left", lambda self, operator: told.append(f"one {operator.name}"))
    other = hook("mxgw_operator_left", lambda self, operator: told.append(f"other {operator.name}"))
    async with running(one, raising("mxgw_operator_left", "operator"), other) as (gateway, _):
        gateway.api.forget_operator(Operator("carol", ["viewer"]))

    assert sorted(told) == ["one carol", "other carol"]


async def test_hook_mxgw_operator_sessions_must_all_agree_and_nobody_sees_anything_without_one(running: Run) -> None:
    carol = Operator("carol", ["viewer"], ["north"])
    by_tag = hook("mxgw_operator_sessions", lambda self, operator: lambda session: session.tag in operator.tags)
    by_name = hook("mxgw_operator_sessions", lambda self, operator: lambda session: session.client_name != "hidden")
    async with running(by_tag, by_name) as (gateway, client):
        session = await client.open(tag="north")
        await client.open(tag="south")
        await client.open(name="hidden", tag="north")

        assert [info.session_id for info in gateway.api.sessions_visible_to(carol)] == [session.session_id]

    for plugins in ((), (by_tag, raising("mxgw_operator_sessions", "operator"))):
        async with running(*plugins) as (gateway, client):
            await client.open(tag="north")

            assert gateway.api.sessions_visible_to(carol) == []


async def test_hook_mxgw_audit_tail_is_answered_by_the_first_that_keeps_a_log(running: Run) -> None:
    entry = AuditEntry(1, "key:a", "OpenSession", "allowed")
    keeps = hook("mxgw_audit_tail", lambda self, limit: [entry] * limit)
    keeps_none = hook("mxgw_audit_tail", lambda self, limit: None)

    def unreadable(self: object, limit: int) -> None:
        raise DependencyUnavailable("the audit log cannot be read")

    async with running(keeps, keeps_none, raising("mxgw_audit_tail", "limit")) as (gateway, _):
        assert gateway.api.observation.audit_tail(2) == [entry, entry]

    async with running(keeps_none) as (gateway, _):
        assert gateway.api.observation.audit_tail(2) is None

    async with running(hook("mxgw_audit_tail", unreadable)) as (gateway, _):
        with pytest.raises(DependencyUnavailable):
            gateway.api.observation.audit_tail(2)


# events


async def test_hook_mxgw_subscriber_limits_says_how_many_may_attach(running: Run) -> None:
    asked: list[str] = []

    def limits(self: object, session: SessionInfo) -> SubscriberLimits:
        asked.append(session.session_id)
        return SubscriberLimits(2, QueueLimits(events=77, bytes=1 << 20, seconds=0.0))

    async with running(hook("mxgw_subscriber_limits", limits)) as (gateway, client):
        session = await client.open()

        assert asked == [session.session_id]

        streams = [client.stream(session.session_id) for _ in range(2)]
        for stream in streams:
            await stream.read()
        refusal = await refused(client.stream(session.session_id))

        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "EVENT_SUBSCRIBER_LIMIT_REACHED",
        )
        registry = gateway.app.gateway._registry
        assert registry is not None
        subscribers = registry.get(session.session_id).distributor.subscribers.values()
        assert {subscriber.limits.events for subscriber in subscribers} == {77}

        await client.subscribe(session.session_id, names(20))
        for stream in streams:
            _, sequences = await read_events(stream, 20)
            stream.cancel()

            assert sequences == list(range(1, 21))


async def test_hook_mxgw_subscriber_limits_that_raises_leaves_the_cores_own(running: Run) -> None:
    async with running(raising("mxgw_subscriber_limits", "session")) as (_, client):
        session = await client.open()
        stream = client.stream(session.session_id)
        await stream.read()

        assert (await refused(client.stream(session.session_id))).reason == "SUBSCRIBER_EXISTS"

        stream.cancel()


class KeepNewest:
    """A policy that keeps what the client asked for."""

    def __init__(self, keep_events: int) -> None:
        self._keep_events = keep_events

    @property
    def name(self) -> str:
        return "keep_newest"

    def on_overflow(self, lag: Lag) -> DropOldest:
        return DropOldest(self._keep_events)


async def test_hook_mxgw_overflow_policy_brings_policies_by_name_with_the_clients_parameters(running: Run) -> None:
    asked: list[PolicyRequest] = []

    def policy(self: object, request: PolicyRequest) -> KeepNewest | None:
        asked.append(request)
        if request.name != "keep_newest":
            return None
        if not request.parameters.get("keep", "").isdigit():
            raise InvalidRequest("keep must be a number", metadata={"field": "policy.parameters.keep"})
        return KeepNewest(int(request.parameters["keep"]))

    settings = {"events.queue_events": 100}
    async with running(hook("mxgw_overflow_policy", policy), **settings) as (_, client):
        session = await client.open()
        chosen = es.OverflowPolicyChoice(name="keep_newest", parameters={"keep": "40"})
        stream = client.stream(session.session_id, policy=chosen, client_name="trend")
        opened = (await stream.read()).opened

        assert opened.policy == "keep_newest"
        assert [(r.name, dict(r.parameters), r.client_name, r.limits.events) for r in asked] == [
            ("keep_newest", {"keep": "40"}, "trend", 100)
        ]
        assert asked[0].session.session_id == session.session_id

        stream.cancel()
        bad = es.OverflowPolicyChoice(name="keep_newest", parameters={"keep": "many"})
        refusal = await refused(client.stream(session.session_id, policy=bad))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "policy.parameters.keep")

        refusal = await refused(client.stream(session.session_id, policy=es.OverflowPolicyChoice(name="other")))

        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", "policy")

        default = client.stream(session.session_id)

        assert (await default.read()).opened.policy == "disconnect"

        default.cancel()


async def test_hook_mxgw_buffer_limit_bounds_what_is_kept_and_the_smallest_counts(running: Run) -> None:
    generous = hook("mxgw_buffer_limit", lambda self, session: BufferLimit(1 << 30, "elsewhere"))
    strict = hook("mxgw_buffer_limit", lambda self, session: BufferLimit(20_000, "a setting of ours"))

    class Held:
        def wait_s(self) -> float:
            return 60.0

        def sent(self, events: int) -> None:
            pass

    held = hook("mxgw_stream_pace", lambda self: Held())
    keeps = hook("mxgw_retention", lambda self, session: Retention(events=100_000, bytes=1 << 20, seconds=0.0))
    limits = SubscriberLimits(2, QueueLimits(events=0, bytes=0, seconds=0.0))
    subscribers = hook("mxgw_subscriber_limits", lambda self, session: limits)
    plugins = (generous, strict, keeps, subscribers, held, raising("mxgw_buffer_limit", "session"))
    load = {"backends.sim.rate": 20_000}
    async with running(*plugins, **load) as (gateway, client):
        session = await client.open()
        await client.subscribe(session.session_id, names(50))

        def kept() -> tuple[int, int]:
            (info,) = gateway.api.sessions()
            return info.head_sequence, info.head_sequence - info.oldest_sequence

        # Before the first reader.
        await until(lambda: kept()[0] > 5_000)

        assert kept()[1] < 2_000

        # A reader far behind is cut, and told which limit it was.
        refusal = await refused(client.stream(session.session_id))

        assert refusal.reason == "SUBSCRIBER_OVERFLOW"
        assert "a setting of ours" in refusal.text
        # After the last.
        assert kept()[1] < 2_000


async def test_hook_mxgw_stream_pace_holds_events_back_and_nothing_else(running: Run) -> None:
    class Slow:
        """A piece, and then none for a second and a half."""

        def __init__(self) -> None:
            self.held_until = 0.0
            self.counted = 0

        def wait_s(self) -> float:
            return max(0.0, self.held_until - asyncio.get_running_loop().time())

        def sent(self, events: int) -> None:
            self.counted += events
            self.held_until = asyncio.get_running_loop().time() + 1.5

    class Free:
        def wait_s(self) -> float:
            return 0.0

        def sent(self, events: int) -> None:
            pass

    slow = Slow()
    plugins = (
        hook("mxgw_stream_pace", lambda self, session, identity: slow),
        hook("mxgw_stream_pace", lambda self: Free()),
    )
    async with running(*plugins, **{"backends.sim.rate": 2_000, "events.heartbeat_interval_s": 1.0}) as (_, client):
        session = await client.open()
        await client.subscribe(session.session_id, names(50))
        stream = client.stream(session.session_id)
        frames = [await stream.read() for _ in range(4)]
        kinds = [frame.WhichOneof("frame") for frame in frames]

        assert kinds == ["opened", "events", "heartbeat", "events"]
        assert slow.counted == sum(len(frame.events.events) for frame in frames)
        assert frames[2].heartbeat.head_sequence > frames[1].events.events[-1].sequence

        # Whoever is told to go is not held back.
        began = asyncio.get_running_loop().time()
        await client.close(session.session_id)
        while (await _kind_or_end(stream)) is not None:
            pass

        assert asyncio.get_running_loop().time() - began < 1.4


async def _kind_or_end(stream: Any) -> str | None:
    try:
        return str((await stream.read()).WhichOneof("frame"))
    except grpc.aio.AioRpcError:
        return None


async def test_hook_mxgw_stream_pace_that_raises_refuses_the_stream(running: Run) -> None:
    async with running(raising("mxgw_stream_pace", "session")) as (_, client):
        session = await client.open()
        refusal = await refused(client.stream(session.session_id))

        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_hook_mxgw_retention_keeps_what_the_largest_answer_wants(running: Run) -> None:
    asked: list[str] = []

    def little(self: object, session: SessionInfo) -> Retention:
        asked.append(session.session_id)
        return Retention(10, 1 << 10, 1.0)

    much = hook("mxgw_retention", lambda self, session: Retention(1000, 1 << 20, 60.0))
    broken = raising("mxgw_retention", "session")
    async with running(hook("mxgw_retention", little), much, broken) as (gateway, client):
        session = await client.open()

        assert asked == [session.session_id]

        await client.subscribe(session.session_id, names(50))
        stream = client.stream(session.session_id)
        await read_events(stream, 50)
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        position = e.Position(epoch=session.epoch, sequence=20)
        stream = client.stream(session.session_id, es.StartPosition(after=position))
        frames, sequences = await read_events(stream, 30)
        stream.cancel()

        assert frames[0].opened.recovered
        assert sequences == list(range(21, 51))


class Store:
    """Has everything of any session; may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        if self._error:
            raise self._error
        return 1, 1_000_000

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        for first in range(after + 1, until + 1, 7):
            last = min(first + 6, until)
            yield HistoryPage(first, last, batch(range(first, last + 1)))


@pytest.mark.parametrize("error", [None, BROKEN])
async def test_hook_mxgw_history_is_asked_as_somebody_resumes_from_before_the_log(
    running: Run, error: Exception | None
) -> None:
    asked: list[str] = []

    def history(self: object, session: SessionInfo) -> Store:
        asked.append(session.session_id)
        return Store(error)

    async with running(hook("mxgw_history", history)) as (gateway, client):
        session = await client.open()
        await client.subscribe(session.session_id, names(50))
        stream = client.stream(session.session_id)
        await read_events(stream, 50)
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].oldest_sequence == 51)

        assert asked == []

        position = e.Position(epoch=session.epoch, sequence=20)
        stream = client.stream(session.session_id, es.StartPosition(after=position))
        opened = (await stream.read()).opened

        assert asked == [session.session_id]
        assert (opened.was_resuming, opened.recovered) == (True, error is None)

        if error is None:
            _, sequences = await read_events(stream, 30)

            assert sequences == list(range(21, 51))
        else:
            gap = (await stream.read()).gap

            assert (gap.first_lost, gap.last_lost, gap.reason) == (21, 50, e.GAP_REASON_RING_EVICTED)
        await client.subscribe(session.session_id, names(3))
        _, sequences = await read_events(stream, 3)
        stream.cancel()

        assert sequences == [51, 52, 53]

        now = client.stream(session.session_id, es.StartPosition(now=Empty()))
        await until(lambda: gateway.api.sessions()[0].subscribers <= 1)
        now.cancel()


class Part:
    """Promises the events of `span`, and has those of `pages`."""

    def __init__(self, span: tuple[int, int], *pages: tuple[int, int]) -> None:
        self._span = span
        self._pages = pages

    async def span(self, epoch: bytes) -> tuple[int, int]:
        return self._span

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        for first, last in self._pages:
            first, last = max(first, after + 1), min(last, until)
            if first <= last:
                yield HistoryPage(first, last, batch(range(first, last + 1)))


async def test_hook_mxgw_history_that_has_a_part_gives_it_with_one_exact_gap_for_the_rest(running: Run) -> None:
    stores: list[Part] = []

    def history(self: object, session: SessionInfo) -> Part:
        return stores[0]

    async with running(hook("mxgw_history", history)) as (gateway, client):
        session = await client.open()
        await client.subscribe(session.session_id, names(50))
        stream = client.stream(session.session_id)
        await read_events(stream, 50)
        stream.cancel()
        await until(lambda: gateway.api.sessions()[0].oldest_sequence == 51)

        async def resumed(after: int) -> tuple[bool, list[object]]:
            """Return `recovered`, and what follows before the log: sequences, and gaps as pairs."""
            await until(lambda: gateway.api.sessions()[0].subscribers == 0)
            start = es.StartPosition(after=e.Position(epoch=session.epoch, sequence=after))
            stream = client.stream(session.session_id, start)
            recovered, told = (await stream.read()).opened.recovered, list[object]()
            while not told or told[-1] != 50:
                frame = await stream.read()
                if frame.HasField("gap"):
                    assert frame.gap.reason == e.GAP_REASON_RING_EVICTED
                    told.append((frame.gap.first_lost, frame.gap.last_lost))
                told += [event.sequence for event in frame.events.events]
            stream.cancel()
            return recovered, told

        stores[:] = [Part((41, 50), (41, 50))]

        assert await resumed(20) == (False, [(21, 40), *range(41, 51)])
        assert await resumed(40) == (True, list(range(41, 51)))

        # Of what it does not promise it gives what it has, too.
        stores[:] = [Part((48, 50), (23, 24), (48, 50))]

        assert await resumed(20) == (False, [(21, 22), 23, 24, (25, 47), 48, 49, 50])

        # It promised more than it has: whoever was told that nothing is missing is sent back, and has the gap then.
        stores[:] = [Part((1, 50), (1, 30), (48, 50))]
        refusal = await refused(resumed(20))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "HISTORY_UNAVAILABLE")
        assert refusal.metadata["last_sequence"] == "30"

        # Although the store says the same again.
        assert await resumed(30) == (False, [(31, 47), 48, 49, 50])

        # Once it gave that after all, its word counts again.
        stores[:] = [Part((1, 50), (1, 50))]

        assert await resumed(20) == (False, list(range(21, 51)))
        assert await resumed(20) == (True, list(range(21, 51)))


class OfItems(Part):
    """Has the events 1 to 50, of a visible item, of an unknown one and of one that the caller must not see."""

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        visible, hidden = (ItemRecord(serial_of(1, handle), 1, handle, f"Item_{handle}") for handle in (1, 3))
        for first, last, handle, items in (
            (after + 1, 30, 1, [visible]),
            (31, 35, 2, []),
            (36, 45, 3, [hidden]),
            (46, 50, 1, [visible]),
        ):
            if after < first <= last:
                yield HistoryPage(first, last, batch(range(first, last + 1), item_handle=handle), items)


async def test_hook_mxgw_history_serves_callers_with_a_filter_by_the_records_of_its_pages(running: Run) -> None:
    class OnlyOne:
        def keep(self, item: ItemRecord, kind: int) -> bool:
            return item.item_definition == "Item_1"

    plugins = [
        hook("mxgw_history", lambda self, session: OfItems((1, 50))),
        hook("mxgw_event_filter", lambda self, session, identity: OnlyOne()),
    ]
    async with running(*plugins) as (gateway, client):
        session = await client.open()
        await client.subscribe(session.session_id, names(50))
        stream = client.stream(session.session_id)
        await stream.read()
        await until(lambda: gateway.api.sessions()[0].oldest_sequence == 51)
        stream.cancel()

        async def resumed(after: int) -> tuple[bool, list[object]]:
            await until(lambda: gateway.api.sessions()[0].subscribers == 0)
            start = es.StartPosition(after=e.Position(epoch=session.epoch, sequence=after))
            stream = client.stream(session.session_id, start)
            recovered, told = (await stream.read()).opened.recovered, list[object]()
            while not told or told[-1] != 50:
                frame = await stream.read()
                if frame.HasField("gap"):
                    told.append((frame.gap.first_lost, frame.gap.last_lost))
                told += [event.sequence for event in frame.events.events]
            stream.cancel()
            return recovered, told

        # The store said that it has everything; that it cannot be judged is a gap for who comes back behind it.
        refusal = await refused(resumed(20))

        assert (refusal.reason, refusal.metadata["last_sequence"]) == ("HISTORY_UNAVAILABLE", "30")
        assert await resumed(20) == (False, [*range(21, 31), (31, 35), *range(46, 51)])
        assert await resumed(35) == (True, list(range(46, 51)))


async def _evicted(client: Client, gateway: RunningGateway) -> ss.OpenSessionResponse:
    """Return a session whose first 50 events were read, and are forgotten."""
    session = await client.open()
    await client.subscribe(session.session_id, names(50))
    stream = client.stream(session.session_id)
    await read_events(stream, 50)
    stream.cancel()
    await until(lambda: gateway.api.sessions()[0].subscribers == 0 and gateway.api.sessions()[0].oldest_sequence == 51)
    return session


def _behind_20(session: ss.OpenSessionResponse) -> es.StartPosition:
    return es.StartPosition(after=e.Position(epoch=session.epoch, sequence=20))


class Hanging(Part):
    """Gives what it has, and then nothing more."""

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        async for page in super().read(epoch, after, until):
            yield page
        await asyncio.Event().wait()


async def test_hook_mxgw_history_that_hangs_is_waited_for_with_heartbeats_and_then_counts_as_failed(
    running: Run, caplog: pytest.LogCaptureFixture
) -> None:
    history = hook("mxgw_history", lambda self, session: Hanging((1, 50), (1, 30)))
    settings = {"events.heartbeat_interval_s": 1, "events.history_page_timeout_s": 1.5}
    async with running(history, **settings) as (gateway, client), asyncio.timeout(60):
        session = await _evicted(client, gateway)
        stream = client.stream(session.session_id, _behind_20(session))

        assert (await stream.read()).opened.recovered
        assert [event.sequence for event in (await stream.read()).events.events] == list(range(21, 31))
        assert (await stream.read()).heartbeat.position.sequence == 30

        refusal = await refused(_rest(stream))
        warned = [message for message in caplog.messages if message.startswith("the history store of plugin p0 (")]

        assert refusal.reason == "HISTORY_UNAVAILABLE"
        assert [message.partition(") ")[2] for message in warned] == ["gave no page within 1.5 s"]

        await until(lambda: gateway.api.sessions()[0].subscribers == 0)
        stream = client.stream(session.session_id, _behind_20(session))
        told: list[str | None] = []
        while "gap" not in told:
            frame = await stream.read()
            told.append(frame.WhichOneof("frame"))

        assert told[:3] == ["opened", "events", "heartbeat"]  # as many as there is time for
        assert (frame.gap.first_lost, frame.gap.last_lost) == (31, 50)

        await client.subscribe(session.session_id, names(3))
        _, sequences = await read_events(stream, 3)
        stream.cancel()

        assert sequences == [51, 52, 53]


async def test_hook_mxgw_history_that_hangs_for_a_reader_that_overflows_leaves_it_what_is_unread(running: Run) -> None:
    history = hook("mxgw_history", lambda self, session: Hanging((45, 50), (1, 30)))
    settings = {"events.history_page_timeout_s": 600, "events.queue_events": 5, "events.unattached_events": 5}
    async with running(history, **settings) as (gateway, client), asyncio.timeout(60):
        session = await _evicted(client, gateway)
        stream = client.stream(session.session_id, _behind_20(session))
        await read_events(stream, 10)
        await client.subscribe(session.session_id, names(50))
        gap = (await stream.read()).gap
        _, sequences = await read_events(stream, 6)
        refusal = await refused(_rest(stream))

        assert (gap.first_lost, gap.last_lost) == (31, 50)
        assert sequences[:6] == [51, 52, 53, 54, 55, 56]
        assert refusal.reason == "SUBSCRIBER_OVERFLOW"


async def _rest(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_hook_mxgw_stream_pace_that_holds_older_events_back_leaves_heartbeats(running: Run) -> None:
    class Held:
        seconds = 600.0

        def wait_s(self) -> float:
            return self.seconds

        def sent(self, events: int) -> None:
            pass

    pace = Held()
    history = hook("mxgw_history", lambda self, session: Part((1, 50), (1, 50)))
    paced = hook("mxgw_stream_pace", lambda self, session, identity: pace)
    settings = {"events.heartbeat_interval_s": 1}
    async with running(history, paced, **settings) as (gateway, client), asyncio.timeout(60):
        pace.seconds = 0.0
        session = await _evicted(client, gateway)
        pace.seconds = 600.0
        stream = client.stream(session.session_id, _behind_20(session))

        assert (await stream.read()).opened.recovered
        assert (await stream.read()).heartbeat.position.sequence == 20

        pace.seconds = 0.0
        _, sequences = await read_events(stream, 30)
        stream.cancel()

        assert sequences == list(range(21, 51))


# workers


async def test_hook_mxgw_worker_spawning_is_told_before_the_process_exists(running: Run) -> None:
    told: list[tuple[WorkerSpawn, bool]] = []

    def spawning(self: object, spawn: WorkerSpawn) -> None:
        told.append((spawn, spawn.endpoint.exists()))

    async with running(hook("mxgw_worker_spawning", spawning)) as (_, client):
        session = await client.open(name="line 3", tag="north", lease_s=99)
        (spawn, there) = told[0]

        assert (spawn.session_id, spawn.backend, spawn.owner) == (session.session_id, "sim", "anonymous")
        assert (spawn.tag, spawn.client_name, spawn.lease_s) == ("north", "line 3", 99)
        assert not there
        assert repr(spawn.secret) not in repr(spawn)


async def test_hook_mxgw_worker_spawning_that_raises_prevents_the_start(running: Run) -> None:
    async with running(raising("mxgw_worker_spawning", "spawn")) as (gateway, client):
        refusal = await refused(client.open())

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_START_FAILED")
        assert "p0" in refusal.text

        await until(lambda: not gateway.api.sessions())


async def test_hook_mxgw_worker_ready_is_told_who_proved_itself(running: Run) -> None:
    told: list[tuple[WorkerIdentity, int]] = []

    def ready(self: object, worker: WorkerIdentity) -> None:
        told.append((worker, start_ticks(worker.pid)))

    async with running(hook("mxgw_worker_ready", ready), raising("mxgw_worker_ready", "worker")) as (_, client):
        session = await client.open()
        ((worker, ticks),) = told

        assert (worker.session_id, worker.pid, worker.epoch) == (
            session.session_id,
            session.worker_pid,
            session.epoch,
        )
        assert worker.start_ticks == ticks > 0
        assert worker.protocol_version == PROTOCOL_VERSION


async def test_hook_mxgw_worker_exited_is_told_once_when_process_and_socket_are_gone(running: Run) -> None:
    told: list[tuple[WorkerExit, bool, int]] = []
    gateways: list[RunningGateway] = []

    def exited(self: object, worker_exit: WorkerExit) -> None:
        sockets = len(list((gateways[0].directory / "data" / "run").iterdir()))
        told.append((worker_exit, Path(f"/proc/{worker_exit.pid}").exists(), sockets))

    broken = raising("mxgw_worker_exited", "worker_exit")
    async with running(hook("mxgw_worker_exited", exited), broken) as (gateway, client):
        gateways.append(gateway)
        one = await client.open()
        await client.close(one.session_id)
        other = await client.open()
        os.kill(other.worker_pid, signal.SIGKILL)
        await until(lambda: len(told) == 2)

        assert [(t[0].session_id, t[0].exit_code, t[0].reason) for t in told] == [
            (one.session_id, 0, "CLIENT"),
            (other.session_id, -9, "WORKER_EXITED"),
        ]
        assert [(alive, sockets) for _, alive, sockets in told] == [(False, 0), (False, 0)]


async def test_hook_mxgw_worker_started_is_told_of_a_process_that_knows_nothing_yet(running: Run) -> None:
    told: list[tuple[WorkerIdentity, int]] = []

    def started(self: object, worker: WorkerIdentity) -> None:
        told.append((worker, start_ticks(worker.pid)))

    async with running(hook("mxgw_worker_started", started)) as (_, client):
        session = await client.open()
        ((worker, ticks),) = told

        assert (worker.session_id, worker.pid) == (session.session_id, session.worker_pid)
        assert (worker.epoch, worker.protocol_version) == (b"", 0)
        assert worker.start_ticks == ticks > 0
        assert worker.boot_id == pid_scope()


async def test_hook_mxgw_worker_started_that_raises_ends_the_process(running: Run) -> None:
    told: list[int] = []

    def started(self: object, worker: WorkerIdentity) -> None:
        told.append(worker.pid)
        raise BROKEN

    async with running(hook("mxgw_worker_started", started)) as (gateway, client):
        refusal = await refused(client.open())

        assert refusal.reason == "WORKER_START_FAILED"
        assert start_ticks(told[0]) == 0

        await until(lambda: not gateway.api.sessions())


async def test_hook_mxgw_worker_proved_is_told_both_secrets_before_the_worker_hears_of_it(running: Run) -> None:
    spawned: list[WorkerSpawn] = []
    proved: list[WorkerProof] = []
    ready: list[int] = []

    spawning = hook("mxgw_worker_spawning", lambda self, spawn: spawned.append(spawn))
    proving = hook("mxgw_worker_proved", lambda self, proof: proved.append(proof))
    told = hook("mxgw_worker_ready", lambda self, worker: ready.append(len(proved)))
    async with running(spawning, proving, told) as (_, client):
        session = await client.open()
        (proof,) = proved

        assert proof.worker.epoch == session.epoch
        assert proof.former_secret == spawned[0].secret != proof.secret
        assert ready == [1]
        assert repr(proof.secret) not in repr(proof)


async def test_hook_mxgw_worker_proved_that_raises_refuses_a_new_worker(running: Run) -> None:
    async with running(raising("mxgw_worker_proved", "proof")) as (gateway, client):
        refusal = await refused(client.open())

        assert refusal.reason == "WORKER_START_FAILED"
        assert "NOT_RECORDED" in refusal.text

        await until(lambda: not gateway.api.sessions())


async def test_hook_mxgw_worker_stopping_is_told_while_the_worker_lives(running: Run) -> None:
    told: list[tuple[WorkerIdentity, CloseReason, bool]] = []

    def stopping(self: object, worker: WorkerIdentity, reason: CloseReason) -> None:
        told.append((worker, reason, Path(f"/proc/{worker.pid}").exists()))

    async with running(hook("mxgw_worker_stopping", stopping)) as (_, client):
        session = await client.open()
        await client.close(session.session_id)
        ((worker, reason, alive),) = told

        assert (worker.pid, worker.epoch) == (session.worker_pid, session.epoch)
        assert reason is CloseReason.CLIENT
        assert alive


async def test_hook_mxgw_worker_refused_is_told_of_whoever_is_turned_away(running: Run) -> None:
    told: list[WorkerRefusal] = []
    refusing = hook("mxgw_worker_refused", lambda self, refusal: told.append(refusal))
    async with running(refusing) as (gateway, client):
        session = await client.open()
        (socket,) = (gateway.directory / "data" / "run").glob("*.sock")
        async with scripted_worker(socket) as worker:
            assert await worker.refusal() == "WRONG_PROCESS"
        (refusal,) = told

        assert (refusal.session_id, refusal.reason) == (session.session_id, "WRONG_PROCESS")
        assert (refusal.peer_pid, refusal.peer_uid) == (os.getpid(), os.getuid())


# orphans


async def test_hook_mxgw_orphan_lifetime_lets_a_worker_live_on_after_an_orderly_end(running: Run) -> None:
    kept: list[WorkerIdentity] = []
    asked: list[WorkerSpawn] = []
    closed: list[str] = []

    def lifetime(self: object, spawn: WorkerSpawn) -> float:
        asked.append(spawn)
        return 30.0

    remembering = hook("mxgw_worker_ready", lambda self, worker: kept.append(worker))
    closing = hook("mxgw_session_closed", lambda self, session, reason: closed.append(session.session_id))
    async with running(hook("mxgw_orphan_lifetime", lifetime), remembering, closing) as (_, client):
        session = await client.open()
    worker = kept[0]
    pid = os.pidfd_open(worker.pid)
    try:
        assert start_ticks(worker.pid) == worker.start_ticks
        assert [spawn.session_id for spawn in asked] == [session.session_id]
        assert not closed
    finally:
        signal.pidfd_send_signal(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PIDFD, pid, os.WEXITED)
        os.close(pid)


@pytest.fixture
def orphan() -> Any:
    """A process that could be a worker of an earlier run, and what is known of it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    spawn = WorkerSpawn("old", "sim", Path("/none"), bytes(32), "anonymous", "", "", 60.0)
    identity = WorkerIdentity("old", process.pid, start_ticks(process.pid), bytes(16), 1, boot_id())
    yield process, Orphan(spawn, identity)
    process.kill()
    process.wait()


def is_alive(orphan: Orphan) -> bool:
    return start_ticks(orphan.worker.pid) == orphan.worker.start_ticks


class Knows:
    """A plugin that knows orphans of this gateway's directory, and `foreign` ones of another."""

    def __init__(self, *orphans: Orphan, foreign: Sequence[Orphan] = ()) -> None:
        self._own = orphans
        self._foreign = foreign

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> Any:
        self._id = gateway.data_dir_id
        return nullcontext()

    @hookimpl
    def mxgw_orphans(self) -> list[Orphan]:
        return [*(replace(o, spawn=replace(o.spawn, data_dir_id=self._id)) for o in self._own), *self._foreign]


ADOPT, TERMINATE, IGNORE = OrphanVerdict.ADOPT, OrphanVerdict.TERMINATE, OrphanVerdict.IGNORE


@pytest.mark.parametrize(
    ("verdicts", "lives"),
    [
        ([None], False),
        ([BROKEN], False),
        (["adopt"], False),
        ([TERMINATE], False),
        ([IGNORE], True),
        ([IGNORE, ADOPT], True),
        ([ADOPT, IGNORE, TERMINATE], False),
        ([BROKEN, IGNORE, ADOPT], False),
    ],
)
async def test_hook_mxgw_orphan_verdict_any_objection_counts_and_without_a_wish_an_orphan_is_ended(
    running: Run, orphan: Any, verdicts: list[object], lives: bool
) -> None:
    _, known = orphan
    asked: list[Orphan] = []

    def judging(verdict: object) -> object:
        def judge(self: object, orphan: Orphan) -> Any:
            asked.append(orphan)
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        return hook("mxgw_orphan_verdict", judge)

    finding = Knows(known)
    ended: list[WorkerExit] = []
    ending = hook("mxgw_worker_exited", lambda self, worker_exit: ended.append(worker_exit))
    async with running(finding, ending, *map(judging, verdicts)):
        if not lives:
            await until(lambda: ended)

            assert ended[0].exit_code == -signal.SIGTERM

        assert [orphan.session_id for orphan in asked] == [known.session_id] * len(verdicts)
        assert is_alive(known) == lives


async def test_an_orphan_that_nobody_can_want_is_ended_without_asking(running: Run, orphan: Any) -> None:
    _, known = orphan
    closing = replace(known, closing=CloseReason.LEASE_EXPIRED)
    unready = replace(known, spawn=replace(known.spawn, session_id="new"), was_ready=False)
    asked: list[Orphan] = []
    judging = hook("mxgw_orphan_verdict", lambda self, orphan: asked.append(orphan) or ADOPT)
    closed: list[tuple[str, CloseReason]] = []
    closing_told = hook(
        "mxgw_session_closed", lambda self, session, reason: closed.append((session.session_id, reason))
    )
    async with running(Knows(closing, unready), judging, closing_told):
        await until(lambda: len(closed) == 2)

        assert not asked
        assert not is_alive(known)
        assert set(closed) == {("old", CloseReason.LEASE_EXPIRED), ("new", CloseReason.GATEWAY_SHUTDOWN)}


async def test_an_orphan_whose_owner_lost_its_access_is_ended_with_that_reason(running: Run, orphan: Any) -> None:
    _, known = orphan

    def judge(self: object, orphan: Orphan) -> Any:
        raise AccessDenied("the key was revoked")

    closed: list[tuple[CloseReason, str]] = []
    closing = hook("mxgw_session_closed", lambda self, session, reason: closed.append((reason, session.close_detail)))
    wanting = hook("mxgw_orphan_verdict", lambda self, orphan: ADOPT)
    judging = hook("mxgw_orphan_verdict", judge)
    async with running(Knows(known), judging, wanting, closing):
        await until(lambda: closed)

        assert closed == [(CloseReason.OWNER_REVOKED, "the key was revoked")]
        assert not is_alive(known)


async def test_hook_mxgw_orphans_are_asked_for_before_the_first_call_and_a_broken_plugin_hides_none(
    running: Run, orphan: Any
) -> None:
    _, known = orphan
    order: list[str] = []

    def orphans(self: object) -> list[Orphan]:
        order.append("orphans")
        return []

    opened = hook("mxgw_session_opened", lambda self, session: order.append("opened"))
    broken = raising("mxgw_orphans")
    async with running(hook("mxgw_orphans", orphans), Knows(known), broken, opened) as (_, client):
        await client.open()
        await until(lambda: not is_alive(known))

    assert order == ["orphans", "opened"]


async def test_a_process_that_only_has_an_orphans_pid_is_left_alone(running: Run, orphan: Any) -> None:
    process, known = orphan
    others = [
        replace(
            known,
            spawn=replace(known.spawn, session_id=name),
            worker=replace(known.worker, session_id=name, **changes),
        )
        for name, changes in (
            ("other start", {"start_ticks": known.worker.start_ticks + 1}),
            ("other boot", {"boot_id": "another boot"}),
            ("other set of pids", {"boot_id": f"{boot_id()} pid:[1]"}),
            ("unknown start", {"start_ticks": 0}),
        )
    ]
    ended: list[WorkerExit] = []
    ending = hook("mxgw_worker_exited", lambda self, worker_exit: ended.append(worker_exit))
    async with running(Knows(*others), ending):
        await until(lambda: len(ended) == 4)

        assert all(e.exit_code is None for e in ended)
        assert process.poll() is None


@pytest.mark.parametrize("data_dir_id", ["", "1:2:3"])
async def test_an_orphan_of_another_data_directory_is_not_touched_whatever_the_plugins_say(
    running: Run, orphan: Any, data_dir_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    process, known = orphan
    foreign = [
        replace(known, spawn=replace(known.spawn, session_id=name, data_dir_id=data_dir_id), **changes)
        for name, changes in (
            ("adopt", {}),
            ("closing", {"closing": CloseReason.CLIENT}),
            ("unready", {"was_ready": False}),
        )
    ]
    wanting = hook("mxgw_orphan_verdict", lambda self, orphan: ADOPT)
    async with running(Knows(foreign=foreign), wanting) as (gateway, client):
        for one in foreign:
            assert (await refused(client.register(one.session_id))).reason == "SESSION_NOT_FOUND"
        assert gateway.api.sessions() == []

    assert process.poll() is None
    assert caplog.text.count("belongs to another data directory") == 3


async def test_hook_mxgw_ended_sessions_lets_their_owners_learn_how_they_ended(running: Run) -> None:
    def ended(number: int) -> EndedSession:
        info = session_info(f"s{number}", owner="anonymous", close_reason=CloseReason.LEASE_EXPIRED)
        return EndedSession(replace(info, close_detail="idle", state=SessionState.CLOSED), 2.0, 60.0)

    knowing = hook("mxgw_ended_sessions", lambda self: [ended(number) for number in range(4)])
    more = {"limits.remembered_sessions": 3}
    async with running(knowing, raising("mxgw_ended_sessions"), **more) as (_, client):
        gone = await refused(client.stream("s3"))

        assert (gone.reason, gone.metadata["close_reason"]) == ("SESSION_GONE", "LEASE_EXPIRED")
        assert "idle" in gone.text
        assert (await refused(client.stream("s0"))).reason == "SESSION_NOT_FOUND"

        listed = await client.sessions.ListSessions(ss.ListSessionsRequest(include_ended=True))

        assert [session.session_id for session in listed.sessions] == ["s1", "s2", "s3"]


async def test_a_hook_that_raises_again_and_again_is_logged_once(
    running: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(raising("mxgw_session_opened", "session")) as (gateway, client):
        for _ in range(3):
            await client.open()

        assert gateway.plugins.failures == {("p0", "mxgw_session_opened"): 3}
    warnings = [record for record in caplog.records if "this plugin is broken" in record.getMessage()]

    assert len([record for record in warnings if record.levelname == "WARNING"]) == 1
