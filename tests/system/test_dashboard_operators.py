"""The dashboard with access control and a real directory: who sees what, who stays logged in, and for how long."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import Client, Refusal, refusal_of, refused
from support.keys import Guarded, client_with, guarded_gateway
from support.operators import DashboardClient, dashboard_client
from support.slapd import PASSWORDS, READER_DN, READER_PASSWORD, Slapd, running_slapd
from support.terminals import terminal
from support.waiting import until

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import session_service_pb2 as ss
from mxgw_dashboard_tui.tui.connection import Connection, Target
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.source import Refused

pytestmark = pytest.mark.asyncio
VERA = "uid=vera,ou=people,dc=plant"
METHODS = ("WatchSession", "WatchEvents", "ListItems", "CloseSession", "KillWorker")


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        server.set_member("gateway-viewers", READER_DN, is_in=True)  # a group is never empty
        yield server


@asynccontextmanager
async def guarded(
    slapd: Slapd, tmp_path: Path, overrides: Mapping[str, object] | None = None
) -> AsyncIterator[tuple[Guarded, Client]]:
    """A gateway whose operators are in the directory, and a client of its sessions."""
    settings: dict[str, object] = {
        "plugins.enabled": ["acl", "dashboard_tui"],
        "plugins.acl.ldap.servers": [slapd.tls],
        "plugins.acl.ldap.ca_file": str(slapd.authority.root),
        "plugins.acl.ldap.service_dn": READER_DN,
        "plugins.acl.ldap.service_password": READER_PASSWORD,
        "plugins.acl.ldap.user_base": "ou=people,dc=plant",
        "plugins.acl.operators.administrators": ["gateway-admins"],
        "plugins.acl.operators.viewers": ["gateway-viewers"],
        "plugins.acl.group_to_session_tag": {"line4": "line4"},
        "plugins.acl.check_interval_s": 0.5,
        **(overrides or {}),
    }
    async with guarded_gateway(tmp_path, settings) as made:
        _, key = made.issue()
        async with client_with(made.target, key) as client:
            yield made, client


async def log_in(target: str, user: str) -> str:
    async with dashboard_client(target) as nobody:
        answer = await nobody.call("Login", pb.LoginRequest(user=user, password=PASSWORDS[user]))
        return str(answer.token)


@asynccontextmanager
async def logged_in(target: str, user: str) -> AsyncIterator[DashboardClient]:
    async with dashboard_client(target, await log_in(target, user)) as operator:
        yield operator


async def end_of(stream: Any) -> Refusal:
    """Return how a stream that was read from is ended."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the stream was not ended")


def naming(method: str, session_id: str) -> Any:
    return getattr(pb, f"{method}Request")(session_id=session_id)


async def test_a_viewer_sees_the_sessions_of_the_mapped_tag_in_table_events_and_direct_calls_and_no_other(
    slapd: Slapd, tmp_path: Path
) -> None:
    async with guarded(slapd, tmp_path) as (gateway, client):
        ids = {tag: (await client.open(name=f"of {tag}", tag=tag)).session_id for tag in ("", "line4", "line5")}
        for session_id in ids.values():
            await client.subscribe(session_id, ["Tank_001.Level"])
        async with logged_in(gateway.target, "vera") as vera:
            seen = await vera.snapshot()
            events = vera.call("WatchEvents", naming("WatchEvents", ids["line4"]))
            values: list[Any] = []
            while not values:
                values += (await events.read()).events
            events.cancel()
            items = await vera.call("ListItems", naming("ListItems", ids["line4"]))
            others = (ids[""], ids["line5"])
            hidden = [await refused(vera.call(method, naming(method, other))) for method in METHODS for other in others]
            unknown = [await refused(vera.call(method, naming(method, "nowhere"))) for method in METHODS]
            changing = [await refused(vera.call(method, naming(method, ids["line4"]))) for method in METHODS[3:]]
            settings = await refused(vera.call("ListSettings", pb.ListSettingsRequest()))
            audit = await refused(vera.call("WatchAudit", pb.WatchAuditRequest()))
            async with client_with(gateway.target, vera.metadata[0][1].removeprefix("Bearer ")) as core:
                listed = (await core.sessions.ListSessions(ss.ListSessionsRequest(), timeout=60)).sessions
                streams = [await refused(core.stream(other)) for other in others]
        async with logged_in(gateway.target, "anna") as anna:
            everything = await anna.snapshot()

    assert [row.session.tag for row in seen.sessions] == ["line4"]
    assert {entry.session_name for entry in seen.journal} == {"of line4"}
    assert (seen.role, seen.session_count) == (pb.ROLE_VIEWER, 3)
    assert values[0].data_change.HasField("value")
    assert items.state.total_items == 1
    assert {(each.code, each.text) for each in hidden} <= {(each.code, each.text) for each in unknown}
    assert {each.code for each in (*changing, settings, audit, *streams)} == {grpc.StatusCode.PERMISSION_DENIED}
    assert [session.tag for session in listed] == ["line4"]
    assert sorted(row.session.tag for row in everything.sessions) == ["", "line4", "line5"]


@pytest.mark.parametrize("how", ["logout", "command line", "gone from the directory"])
async def test_a_login_that_is_over_sees_nothing_any_more(slapd: Slapd, tmp_path: Path, how: str) -> None:
    async with guarded(slapd, tmp_path) as (gateway, client):
        session_id = (await client.open(tag="line4")).session_id
        async with logged_in(gateway.target, "vera") as vera:
            streams = [
                vera.call("WatchGateway", pb.WatchGatewayRequest()),
                vera.call("WatchSession", naming("WatchSession", session_id)),
                vera.call("WatchEvents", naming("WatchEvents", session_id)),
            ]
            for stream in streams:
                await stream.read()
            match how:
                case "logout":
                    await vera.call("Logout", pb.LogoutRequest())
                case "command line":
                    gateway.store.end_logins_of("vera")
                case "gone from the directory":
                    await asyncio.to_thread(slapd.set_member, "gateway-viewers", VERA, is_in=False)
                    try:
                        renewal = await refused(vera.call("RenewLogin", pb.RenewLoginRequest()))
                    finally:
                        await asyncio.to_thread(slapd.set_member, "gateway-viewers", VERA, is_in=True)

                    assert renewal.code is grpc.StatusCode.UNAUTHENTICATED
            ends = [await end_of(stream) for stream in streams]
            later = await refused(vera.call("ListItems", naming("ListItems", session_id)))

    assert {end.reason for end in ends} == {"REVOKED"}
    assert later.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_renewal_brings_the_groups_as_of_now_and_what_is_open_follows(slapd: Slapd, tmp_path: Path) -> None:
    async with guarded(slapd, tmp_path) as (gateway, client):
        session_id = (await client.open(tag="line4")).session_id
        async with logged_in(gateway.target, "vera") as vera:
            table = vera.call("WatchGateway", pb.WatchGatewayRequest(interval={"nanos": 250_000_000}))
            events = vera.call("WatchEvents", naming("WatchEvents", session_id))
            await events.read()

            assert len((await table.read()).sessions) == 1

            await asyncio.to_thread(slapd.set_member, "line4", VERA, is_in=False)
            try:
                answer = await vera.call("RenewLogin", pb.RenewLoginRequest())
            finally:
                await asyncio.to_thread(slapd.set_member, "line4", VERA, is_in=True)
            end = await end_of(events)
            async with asyncio.timeout(60):
                while (await table.read()).sessions:
                    pass
            table.cancel()

    assert (answer.operator, answer.role) == ("vera", pb.ROLE_VIEWER)
    assert answer.valid_for.seconds > 800
    assert end.reason == "REVOKED"


async def test_an_administrator_who_is_made_a_viewer_reads_nothing_of_administrators_in_what_is_open(
    slapd: Slapd, tmp_path: Path
) -> None:
    both = {"plugins.acl.operators.viewers": ["gateway-viewers", "gateway-admins", "line4"]}
    async with guarded(slapd, tmp_path, both) as (gateway, _):
        await asyncio.to_thread(slapd.set_member, "gateway-admins", VERA, is_in=True)
        token = await log_in(gateway.target, "vera")
        await asyncio.to_thread(slapd.set_member, "gateway-admins", VERA, is_in=False)
        async with dashboard_client(gateway.target, token) as vera:
            streams = [
                vera.call("WatchGateway", pb.WatchGatewayRequest()),
                vera.call("WatchAudit", pb.WatchAuditRequest()),
            ]
            first, audit = [await stream.read() for stream in streams]
            answer = await vera.call("RenewLogin", pb.RenewLoginRequest())
            ends = [await end_of(stream) for stream in streams]

    assert first.role == pb.ROLE_ADMINISTRATOR
    assert "login" in [entry.action for entry in audit.entries]
    assert answer.role == pb.ROLE_VIEWER
    assert [end.reason for end in ends] == ["REVOKED", "REVOKED"]


async def test_the_audit_view_goes_on_with_what_happens_and_reading_it_is_in_it(slapd: Slapd, tmp_path: Path) -> None:
    async with guarded(slapd, tmp_path) as (gateway, client), logged_in(gateway.target, "anna") as anna:
        stream = anna.call("WatchAudit", pb.WatchAuditRequest(interval={"nanos": 250_000_000}))
        first = await stream.read()
        session = await client.open(name="audited", tag="line5")
        later: list[Any] = []
        async with asyncio.timeout(60):
            while "session opened" not in [entry.action for entry in later]:
                later += (await stream.read()).entries
        stream.cancel()

    assert first.kept
    assert "WatchAudit" in [entry.action for entry in first.entries]
    assert {entry.session_id for entry in later if entry.session_id} == {session.session_id}
    assert not [entry for entry in later if entry in list(first.entries)]


class Told:
    """What a dashboard's screens would have been told."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.snapshots: list[pb.WatchGatewayResponse] = []

    def link_changed(self, link: Link, detail: str) -> None:
        del detail
        self.links.append(link)

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        self.snapshots.append(snapshot)


async def test_a_dashboard_outlives_its_tokens_until_the_directory_says_no(slapd: Slapd, tmp_path: Path) -> None:
    short = {"plugins.acl.operators.token_minutes": 0.02}  # 1.2 s
    async with guarded(slapd, tmp_path, short) as (gateway, client):
        await client.open(tag="line4")
        connection, told = Connection(Target(gateway.target), interval_s=0.25), Told()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(connection.run(told))
            await until(lambda: Link.LOGIN in told.links)
            await connection.login("vera", PASSWORDS["vera"])
            await until(lambda: renewals(gateway) >= 4, 60)  # at half of a token's life: two lives are over
            links = list(told.links)
            with pytest.raises(Refused, match="administrators"):
                await connection.list_settings()  # a new call with the newest token: known, and a viewer
            last = told.snapshots[-1]
            await asyncio.to_thread(slapd.set_member, "gateway-viewers", VERA, is_in=False)
            try:
                await until(lambda: told.links.count(Link.LOGIN) >= 2, 60)
            finally:
                await asyncio.to_thread(slapd.set_member, "gateway-viewers", VERA, is_in=True)
            running.cancel()
        await connection.close()

    assert links == [Link.CONNECTING, Link.LOGIN, Link.LIVE]
    assert [row.session.tag for row in last.sessions] == ["line4"]


def renewals(gateway: Guarded) -> int:
    return sum(entry["action"] == "renewal" and entry["decision"] == "allowed" for entry in gateway.audit())


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: run scripts/install_test_services.sh")
async def test_on_the_screen_a_viewer_has_the_sessions_of_the_tag_until_the_login_is_ended(
    slapd: Slapd, tmp_path: Path
) -> None:
    async with guarded(slapd, tmp_path) as (gateway, client), terminal(gateway.target, "--user", "vera") as screen:
        session = await client.open(name="ours", tag="line4")
        await client.subscribe(session.session_id, ["Tank_001.Level"])
        await client.open(name="theirs", tag="line5")
        await screen.until("Log in at")
        screen.type(PASSWORDS["vera"])
        screen.press("Enter")
        table = await screen.until("ours", "vera (read-only)", "1 not yours to see")
        screen.press("6")
        await screen.until("administrators")
        screen.press("1", "Enter")
        await screen.until("Tank_001.Level", "good")
        gateway.store.end_logins_of("vera")
        over = await screen.until("Log in at", absent="Tank_001.Level")
        screen.press("Escape")

        await screen.left()

    assert "theirs" not in table
    assert "ours" not in over


async def test_leaving_the_dashboard_gives_the_login_back(slapd: Slapd, tmp_path: Path) -> None:
    async with guarded(slapd, tmp_path) as (gateway, _):
        connection, told = Connection(Target(gateway.target), interval_s=0.25), Told()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(connection.run(told))
            await until(lambda: Link.LOGIN in told.links)
            await connection.login("anna", PASSWORDS["anna"])
            await until(lambda: told.snapshots)
            running.cancel()
        token = connection._credentials.metadata[0][1]
        await connection.close()
        async with dashboard_client(gateway.target, token.removeprefix("Bearer ")) as thief:
            refusal = await refused(thief.call("ListSettings", pb.ListSettingsRequest()))
        audit = [(entry["actor"], entry["action"]) for entry in gateway.audit()]

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert ("operator:anna", "logout") in audit
    assert not connection._credentials.is_logged_in
