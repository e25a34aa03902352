"""The dashboard's service on a real gateway with real workers: who sees what, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import pytest
from support.clients import Client, client_of, refused
from support.operators import PASSWORDS, DashboardClient, OperatorsPlugin, dashboard_client
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.api import ANONYMOUS, AuditEntry, Call, Observation, Peer, hookimpl
from mxgw_core.api.errors import AccessDenied, InternalError
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_dashboard_tui.service.journal import Journal
from mxgw_dashboard_tui.service.mirrors import Mirrors
from mxgw_dashboard_tui.service.operators import Operators
from mxgw_dashboard_tui.settings import DashboardSettings

pytestmark = pytest.mark.asyncio

LOAD = {"backends.default": "load", "backends.load.kind": "sim", "backends.load.profile": "load"}


@dataclass
class House:
    gateway: RunningGateway
    client: Client
    operator: DashboardClient


@asynccontextmanager
async def house(role: str = "administrator", **settings: Any) -> AsyncIterator[House]:
    """A gateway without a plugin that knows operators: callers of this machine have `role`."""
    overrides = {
        "plugins.enabled": ["dashboard_tui"],
        "plugins.dashboard_tui.local_role": role,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    async with (
        running_gateway(overrides) as gateway,
        client_of(gateway.target) as client,
        dashboard_client(gateway.target) as operator,
    ):
        yield House(gateway, client, operator)


@asynccontextmanager
async def guarded(install_plugin: InstallPlugin) -> AsyncIterator[tuple[RunningGateway, Client, OperatorsPlugin]]:
    """A gateway with a plugin that knows operators."""
    plugin = OperatorsPlugin()
    name = install_plugin("operators", plugin)
    overrides = {"plugins.enabled": [name, "dashboard_tui"], "plugins.dashboard_tui.local_role": "administrator"}
    async with running_gateway(overrides) as gateway, client_of(gateway.target) as client:
        yield gateway, client, plugin


async def test_a_snapshot_shows_every_session_with_what_an_operator_wants_to_know() -> None:
    async with house() as h:
        session = await h.client.open(name="line 4", tag="north")
        await h.client.subscribe(session.session_id, ["Tank_001.Level"])

        seen = await h.operator.snapshot()

    (row,) = seen.sessions

    assert row.session.session_id == session.session_id
    assert (row.session.client_name, row.session.tag, row.session.backend) == ("line 4", "north", "sim")
    assert row.session.state == ss.SESSION_STATE_READY
    assert row.session.worker_rss_bytes > 1_000_000
    assert seen.session_count == 1
    assert seen.role == pb.ROLE_ADMINISTRATOR
    assert seen.process.rss_bytes > 1_000_000
    assert seen.plugins[0].plugin.name == "dashboard_tui"
    assert [entry.kind for entry in seen.journal] == [
        pb.JOURNAL_KIND_WORKER_STARTED,
        pb.JOURNAL_KIND_SESSION_OPENED,
    ]


async def test_snapshots_go_on_and_carry_each_journal_entry_once() -> None:
    async with house() as h:
        stream = h.operator.call("WatchGateway", pb.WatchGatewayRequest(interval={"nanos": 250_000_000}))
        first = await stream.read()
        await h.client.open()
        numbers: list[int] = []
        as_of = first.as_of.ToNanoseconds()
        # Two looks that fall together are given the same sample, and say so.
        while len(numbers) < 2 or as_of == first.as_of.ToNanoseconds():
            message = await stream.read()
            numbers += [entry.number for entry in message.journal]
            as_of = message.as_of.ToNanoseconds()
        stream.cancel()

    assert not first.journal
    assert numbers == [1, 2]


async def test_a_session_in_depth_has_its_subscribers_and_its_timeline_and_ends_with_it() -> None:
    async with house() as h:
        session = await h.client.open(name="deep")
        events = h.client.stream(session.session_id, client_name="reader 7")
        await events.read()
        stream = h.operator.call(
            "WatchSession", pb.WatchSessionRequest(session_id=session.session_id, interval={"nanos": 250_000_000})
        )
        detail = await stream.read()
        await h.client.close(session.session_id)
        while (message := await stream.read()) is not grpc.aio.EOF:
            last = message

    assert [s.client_name for s in detail.subscribers.subscribers] == ["reader 7"]
    assert detail.timeline[-1].kind == pb.JOURNAL_KIND_SESSION_OPENED
    assert not last.HasField("subscribers")
    assert last.row.session.close_reason == ss.CLOSE_REASON_CLIENT
    assert last.timeline[-1].kind == pb.JOURNAL_KIND_SESSION_CLOSED


async def test_events_come_although_no_client_streams_and_take_no_subscribers_place() -> None:
    async with house() as h:
        session = await h.client.open()
        await h.client.subscribe(session.session_id, ["Tank_001.Level"])
        stream = h.operator.call("WatchEvents", pb.WatchEventsRequest(session_id=session.session_id))
        got: list[Any] = []
        while len(got) < 3:
            got += (await stream.read()).events
        row = (await h.operator.snapshot()).sessions[0]
        stream.cancel()

    assert row.session.subscribers == 0
    assert [event.sequence for event in got] == sorted(event.sequence for event in got)


async def test_a_mirror_starts_with_the_first_watcher_and_goes_with_the_last() -> None:
    async with house() as h:
        session = await h.client.open()
        distributor = h.gateway.app.gateway._registry.find(session.session_id).distributor
        request = pb.WatchEventsRequest(session_id=session.session_id)

        assert not distributor._internal

        streams = [h.operator.call("WatchEvents", request) for _ in range(2)]
        for stream in streams:
            await stream.read()

        assert len(distributor._internal) == 1

        streams[0].cancel()
        extra = h.operator.call("WatchEvents", request)
        await extra.read()  # by now the gateway knows that the first one is gone

        assert len(distributor._internal) == 1

        extra.cancel()
        streams[1].cancel()
        await until(lambda: not distributor._internal)


class BrokenOnce:
    """An observation whose mirror breaks once, and is fine from then on."""

    def __init__(self, seen: Observation) -> None:
        self._seen = seen
        self.times = 0

    @asynccontextmanager
    async def watch(self, session_id: str, interval_s: float) -> AsyncIterator[AsyncIterator[StreamEventsResponse]]:
        self.times += 1
        if self.times == 1:
            raise ValueError("a bug")
        async with self._seen.watch(session_id, interval_s) as frames:
            yield frames


async def test_a_mirror_that_breaks_ends_its_watchers_and_nothing_else_and_the_next_one_is_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house() as h:
        session = await h.client.open()
        await h.client.subscribe(session.session_id, ["Tank_001.Level"])
        broken = BrokenOnce(h.gateway.api.observation)
        async with asyncio.TaskGroup() as tasks:
            mirrors = Mirrors(broken, 0.5, tasks)  # type: ignore[arg-type]
            async with mirrors.reading(session.session_id) as reader:
                with pytest.raises(InternalError):
                    await reader.next(5)
            async with mirrors.reading(session.session_id) as reader:
                message = await reader.next(5)
            mirrors.close()

    assert message is not None
    assert "the mirror of session" in caplog.text


async def test_only_callers_of_this_machine_are_served_where_no_plugin_knows_operators() -> None:
    async with house() as h:
        operators = Operators(h.gateway.api, DashboardSettings(local_role="administrator"), Journal(10))
        here, elsewhere = (
            Call("m", ANONYMOUS, Peer(address, is_local=is_local), None)
            for address, is_local in (("127.0.0.1:1", True), ("10.0.0.7:1", False))
        )
        local = operators.of(here)
        with pytest.raises(AccessDenied, match="this machine only"):
            operators.of(elsewhere)

    assert local.roles == ("administrator",)


async def test_without_operators_there_is_no_login_to_renew_or_to_end_and_no_audit_log() -> None:
    async with house() as h:
        codes = [
            (await refused(h.operator.call(method, request))).code
            for method, request in (("RenewLogin", pb.RenewLoginRequest()), ("Logout", pb.LogoutRequest()))
        ]
        stream = h.operator.call("WatchAudit", pb.WatchAuditRequest())
        message = await stream.read()
        end = await stream.read()

    assert codes == [grpc.StatusCode.PERMISSION_DENIED] * 2
    assert not message.kept
    assert end is grpc.aio.EOF


async def test_fast_events_are_conflated_to_one_value_per_item_and_interval_and_counted() -> None:
    async with house(**LOAD, **{"backends.load.items": 5, "backends.load.rate": 2000}) as h:
        session = await h.client.open()
        await h.client.subscribe(session.session_id, ["Load.Item00001"])
        stream = h.operator.call("WatchEvents", pb.WatchEventsRequest(session_id=session.session_id))
        messages = [await stream.read() for _ in range(4)]
        stream.cancel()

    assert all(len(message.events) <= 2 for message in messages)
    assert sum(message.conflated_events for message in messages) > 10


async def test_watching_does_not_extend_a_sessions_lease() -> None:
    async with house(**{"limits.sweep_interval_s": 0.1}) as h:
        session = await h.client.open(lease_s=1)
        stream = h.operator.call("WatchEvents", pb.WatchEventsRequest(session_id=session.session_id))
        await h.operator.call("ListItems", pb.ListItemsRequest(session_id=session.session_id))
        refusal = await refused(stream)

    assert refusal.reason == "LEASE_EXPIRED"


async def test_items_come_with_their_last_values_page_by_page() -> None:
    async with house() as h:
        session = await h.client.open()
        await h.client.subscribe(session.session_id, ["Tank_001.Level", "Tank_002.Level", "Pump_001.Running"])
        request = pb.ListItemsRequest(session_id=session.session_id, page_size=2)
        first = (await h.operator.call("ListItems", request)).state
        request.page_token = first.next_page_token
        second = (await h.operator.call("ListItems", request)).state

    names = [item.item_definition for item in (*first.items, *second.items)]

    assert first.total_items == 3
    assert sorted(names) == ["Pump_001.Running", "Tank_001.Level", "Tank_002.Level"]


async def test_an_administrator_closes_a_session_and_the_journal_says_who() -> None:
    async with house() as h:
        session = await h.client.open(name="doomed")
        await h.operator.call("CloseSession", pb.CloseSessionRequest(session_id=session.session_id))
        ended = await closed(h.client, session.session_id)
        journal = (await h.operator.snapshot()).journal

    assert ended.close_reason == ss.CLOSE_REASON_KILLED_BY_OPERATOR
    assert "local user" in ended.close_detail
    (action,) = [entry for entry in journal if entry.kind == pb.JOURNAL_KIND_OPERATOR_ACTION]

    assert (action.operator, action.session_name) == ("local user", "doomed")


async def test_killing_a_worker_ends_it_at_once_even_when_it_does_not_listen() -> None:
    async with house(**{"workers.stop_grace_s": 30, "workers.heartbeat_interval_s": 60}) as h:
        session = await h.client.open()
        worker = psutil.Process(session.worker_pid)
        worker.suspend()
        await h.operator.call("KillWorker", pb.KillWorkerRequest(session_id=session.session_id))
        ended = await closed(h.client, session.session_id)

    assert ended.close_reason == ss.CLOSE_REASON_KILLED_BY_OPERATOR
    assert not worker.is_running()


async def closed(client: Client, session_id: str) -> ss.Session:
    """Return the session once it has ended."""
    async with asyncio.timeout(60):
        while True:
            session: ss.Session = (
                await client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id))
            ).session
            if session.close_reason and session.HasField("closed_at"):
                return session
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["CloseSession", "KillWorker"])
async def test_without_operators_this_machine_looks_and_changes_nothing_unless_the_settings_say_so(method: str) -> None:
    async with house("viewer") as h:
        session = await h.client.open()
        request = getattr(pb, f"{method}Request")(session_id=session.session_id)
        refusal = await refused(h.operator.call(method, request))
        settings = await refused(h.operator.call("ListSettings", pb.ListSettingsRequest()))
        seen = await h.operator.snapshot()

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert "plugins.dashboard_tui.local_role" in refusal.text
    assert settings.code is grpc.StatusCode.PERMISSION_DENIED
    assert len(seen.sessions) == 1
    assert pb.JOURNAL_KIND_OPERATOR_ACTION not in [entry.kind for entry in seen.journal]


async def test_the_default_role_of_this_machine_is_to_look() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        dashboard_client(gateway.target) as operator,
    ):
        access = await operator.call("GetAccess", pb.GetAccessRequest())

    assert (access.login_required, access.role) == (False, pb.ROLE_VIEWER)


async def test_role_none_closes_the_dashboard() -> None:
    async with house("none") as h:
        refusal = await refused(h.operator.call("WatchGateway", pb.WatchGatewayRequest()))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert "local_role is none" in refusal.text


async def test_settings_come_with_their_origin_and_without_secrets() -> None:
    async with house(
        **{"backends.sim.kind": "sim", "backends.line.kind": "sim", "backends.line.password": "tell nobody"}
    ) as h:
        answer = await h.operator.call("ListSettings", pb.ListSettingsRequest())

    settings = {setting.key: setting for setting in answer.settings}

    assert "tell nobody" not in str(answer)
    assert settings["backends.line.password"].value == '"***"'
    assert settings["limits.sessions"].origin == "default"
    assert settings["plugins.enabled"].origin != "default"


async def test_where_operators_are_known_nothing_is_shown_before_a_login(install_plugin: InstallPlugin) -> None:
    async with guarded(install_plugin) as (gateway, client, _), dashboard_client(gateway.target) as nobody:
        session = await client.open()
        access = await nobody.call("GetAccess", pb.GetAccessRequest())
        requests = {
            "WatchGateway": pb.WatchGatewayRequest(),
            "WatchSession": pb.WatchSessionRequest(session_id=session.session_id),
            "WatchEvents": pb.WatchEventsRequest(session_id=session.session_id),
            "ListItems": pb.ListItemsRequest(session_id=session.session_id),
            "ListSettings": pb.ListSettingsRequest(),
            "RenewLogin": pb.RenewLoginRequest(),
            "Logout": pb.LogoutRequest(),
            "WatchAudit": pb.WatchAuditRequest(),
            "CloseSession": pb.CloseSessionRequest(session_id=session.session_id),
            "KillWorker": pb.KillWorkerRequest(session_id=session.session_id),
        }
        codes = {name: (await refused(nobody.call(name, request))).code for name, request in requests.items()}

    assert access.login_required
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_a_login_gives_a_token_and_the_role(install_plugin: InstallPlugin) -> None:
    async with guarded(install_plugin) as (gateway, _, _), dashboard_client(gateway.target) as client:
        answer = await client.call("Login", pb.LoginRequest(user="vera", password=PASSWORDS["vera"]))
        async with dashboard_client(gateway.target, answer.token) as vera:
            access = await vera.call("GetAccess", pb.GetAccessRequest())
        wrong = await refused(client.call("Login", pb.LoginRequest(user="vera", password="guess")))
        roleless = await refused(client.call("Login", pb.LoginRequest(user="nobody", password=PASSWORDS["nobody"])))

    assert (access.operator, access.role) == ("vera", pb.ROLE_VIEWER)
    assert wrong.code is grpc.StatusCode.UNAUTHENTICATED
    assert roleless.code is grpc.StatusCode.PERMISSION_DENIED


async def test_guessing_passwords_is_slowed_down_however_the_name_is_spelled(install_plugin: InstallPlugin) -> None:
    async with guarded(install_plugin) as (gateway, _, _), dashboard_client(gateway.target) as client:
        for user in ("vera", "Vera", " vera", "VERA", "veRa"):
            await refused(client.call("Login", pb.LoginRequest(user=user, password="guess")))
        blocked = await refused(client.call("Login", pb.LoginRequest(user="vera", password=PASSWORDS["vera"])))

    assert (blocked.code, blocked.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert blocked.retry_after_s is not None
    assert 0 < blocked.retry_after_s <= 60


async def test_a_viewer_sees_the_sessions_of_the_tag_everywhere_and_no_other_anywhere(
    install_plugin: InstallPlugin,
) -> None:
    async with guarded(install_plugin) as (gateway, client, _):
        ours = await client.open(name="ours", tag="line1")
        theirs = await client.open(name="theirs", tag="line2")
        await client.close((await client.open(name="ended", tag="line2")).session_id)
        async with dashboard_client(gateway.target, "token-vera") as vera:
            seen = await vera.snapshot()
            shown = await vera.call("ListItems", pb.ListItemsRequest(session_id=ours.session_id))
            hidden = [
                await refused(vera.call(name, getattr(pb, f"{name}Request")(session_id=theirs.session_id)))
                for name in ("WatchSession", "WatchEvents", "ListItems", "CloseSession", "KillWorker")
            ]
            unknown = await refused(vera.call("ListItems", pb.ListItemsRequest(session_id="no-such-session")))

    assert [row.session.client_name for row in seen.sessions] == ["ours"]
    assert {entry.session_name for entry in seen.journal} == {"ours"}
    assert not seen.ended
    assert shown.HasField("state")
    assert {(refusal.code, refusal.text) for refusal in hidden} == {(unknown.code, unknown.text)}
    assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_a_revocation_ends_what_is_open_within_five_seconds(install_plugin: InstallPlugin) -> None:
    async with guarded(install_plugin) as (gateway, client, plugin):
        session = await client.open(tag="line1")
        async with dashboard_client(gateway.target, "token-vera") as vera:
            watching = vera.call("WatchGateway", pb.WatchGatewayRequest())
            detail = vera.call("WatchSession", pb.WatchSessionRequest(session_id=session.session_id))
            events = vera.call("WatchEvents", pb.WatchEventsRequest(session_id=session.session_id))
            assert len((await watching.read()).sessions) == 1
            await detail.read()
            plugin.tags["vera"] = set()
            async with asyncio.timeout(60):
                while (await watching.read()).sessions:
                    pass
                ends = [await ended_with(stream) for stream in (detail, events)]
            watching.cancel()

    assert ends == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND]


async def ended_with(stream: Any) -> grpc.StatusCode:
    """Read a stream to its end."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_an_attempt_that_is_refused_goes_into_the_journal_of_administrators(
    install_plugin: InstallPlugin,
) -> None:
    async with guarded(install_plugin) as (gateway, client, _):
        session = await client.open(tag="line1")
        async with dashboard_client(gateway.target, "token-vera") as vera:
            await refused(vera.call("CloseSession", pb.CloseSessionRequest(session_id=session.session_id)))
            for_vera = (await vera.snapshot()).journal
        async with dashboard_client(gateway.target, "token-anna") as anna:
            for_anna = (await anna.snapshot()).journal

    assert pb.JOURNAL_KIND_OPERATOR_ACTION not in [entry.kind for entry in for_vera]
    (attempt,) = [entry for entry in for_anna if entry.kind == pb.JOURNAL_KIND_OPERATOR_ACTION]

    assert (attempt.operator, attempt.detail) == ("vera", "refused: close sessions")


async def test_no_more_dashboards_watch_than_the_settings_allow() -> None:
    async with house(**{"plugins.dashboard_tui.maximum_watchers": 1}) as h:
        first = h.operator.call("WatchGateway", pb.WatchGatewayRequest())
        await first.read()
        refusal = await refused(h.operator.call("WatchGateway", pb.WatchGatewayRequest()))
        first.cancel()

    assert "maximum_watchers" in refusal.text


async def test_no_more_watch_the_audit_log_than_the_settings_allow(install_plugin: InstallPlugin) -> None:
    class Log:
        @hookimpl
        def mxgw_audit_tail(self, limit: int) -> Sequence[AuditEntry]:
            return ()

    enabled = [install_plugin("log", Log()), "dashboard_tui"]
    async with house(**{"plugins.enabled": enabled, "plugins.dashboard_tui.maximum_watchers": 1}) as h:
        first = h.operator.call("WatchAudit", pb.WatchAuditRequest())

        assert (await first.read()).kept

        refusal = await refused(h.operator.call("WatchAudit", pb.WatchAuditRequest()))
        watching = h.operator.call("WatchGateway", pb.WatchGatewayRequest())  # each kind has places of its own
        await watching.read()
        watching.cancel()
        first.cancel()

    assert "maximum_watchers" in refusal.text


@pytest.mark.parametrize("seconds", [0.1, 61])
async def test_an_interval_out_of_range_is_refused(seconds: float) -> None:
    async with house() as h:
        nanos = int(seconds % 1 * 1e9)
        request = pb.WatchGatewayRequest(interval={"seconds": int(seconds), "nanos": nanos})
        refusal = await refused(h.operator.call("WatchGateway", request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
