"""The dashboard's service behind access control: every RPC by every kind of caller, with people of a real directory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from support.clients import client_of, read_to_the_end, refused
from support.keys import EVERYTHING, Guarded, client_with, guarded_gateway
from support.operators import DashboardClient, dashboard_client
from support.slapd import PASSWORDS, READER_DN, READER_PASSWORD, Slapd, running_slapd
from support.waiting import until

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_acl.keys import Scope
from mxgw_core.api import Operator

METHODS = pb.DESCRIPTOR.services_by_name["DashboardService"].methods_by_name
# What each RPC is for; one that is in none of these fails the test.
FOR_ALL = {"GetAccess", "Login"}
FOR_LOGINS = {"RenewLogin", "Logout"}
TO_LOOK = {"WatchGateway", "WatchSession", "WatchEvents", "ListItems"}
TO_ADMINISTER = {"ListSettings", "WatchAudit", "CloseSession", "KillWorker"}


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


@asynccontextmanager
async def _gateway(slapd: Slapd, tmp_path: Path) -> AsyncIterator[Guarded]:
    settings: dict[str, object] = {
        "plugins.acl.ldap.servers": [slapd.tls],
        "plugins.acl.ldap.ca_file": str(slapd.authority.root),
        "plugins.acl.ldap.service_dn": READER_DN,
        "plugins.acl.ldap.service_password": READER_PASSWORD,
        "plugins.acl.ldap.user_base": "ou=people,dc=plant",
        "plugins.acl.operators.administrators": ["gateway-admins"],
        # Vera is in both groups, the odd one in line4 only: a viewer without any tag.
        "plugins.acl.operators.viewers": ["gateway-viewers", "line4"],
        "plugins.acl.group_to_session_tag": {"gateway-viewers": "line4"},
        "plugins.enabled": ["acl", "backpressure", "dashboard_tui"],
    }
    async with guarded_gateway(tmp_path, settings) as guarded:
        yield guarded


async def _log_in(guarded: Guarded, user: str) -> str:
    async with dashboard_client(guarded.target) as client:
        reply = await client.call("Login", pb.LoginRequest(user=user, password=PASSWORDS[user]))
        return str(reply.token)


async def _outcome(client: DashboardClient, method: str, session_id: str) -> str:
    """Return OK, or the code of the refusal."""
    request = GetMessageClass(METHODS[method].input_type)()
    if method == "Login":
        request = pb.LoginRequest(user="anna", password=PASSWORDS["anna"])
    elif "session_id" in request.DESCRIPTOR.fields_by_name:
        request.session_id = session_id
    call = client.call(method, request)
    try:
        if METHODS[method].server_streaming:
            await call.read()
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def _expected(method: str) -> Mapping[str, str]:
    """Return what each caller must get; `(other)` is for a session that is not the viewer's, and for none."""
    public, look, login = method in FOR_ALL, method in TO_LOOK, method in FOR_LOGINS
    names_session = "session_id" in METHODS[method].input_type.fields_by_name
    stranger = "OK" if public else "UNAUTHENTICATED"
    looker = "OK" if public or look or login else "PERMISSION_DENIED"
    table = {
        "nobody": stranger,
        # Credentials that are none are no anonymity.
        "garbage": "UNAUTHENTICATED",
        "an ended login": "UNAUTHENTICATED",
        "an expired key": "UNAUTHENTICATED",
        "a revoked key": "UNAUTHENTICATED",
        "an ordinary key": "OK" if method == "Login" else "UNAUTHENTICATED" if public else "PERMISSION_DENIED",
        "a viewer": looker,
        "a viewer without tags": "PERMISSION_DENIED" if look and names_session else looker,
        "an administrator": "OK",
        "an administrating key": "OK",
    }
    if method == "GetAccess":
        table["an ordinary key"] = "OK"
    if login:
        # There is no login to go on with or to end.
        table["an administrating key"] = "ANY"
    if names_session:
        table["a viewer (other)"] = table["a viewer (none)"] = "PERMISSION_DENIED"
        table["an administrator (none)"] = table["an administrating key (none)"] = "NOT_FOUND"
    return table


@pytest.mark.asyncio
async def test_every_caller_gets_what_is_meant_for_it(slapd: Slapd, tmp_path: Path) -> None:
    assert set(METHODS) <= FOR_ALL | FOR_LOGINS | TO_LOOK | TO_ADMINISTER

    async with _gateway(slapd, tmp_path) as guarded:
        _, owner = guarded.issue("owner")
        admin_scopes = frozenset({Scope.ADMIN})
        _, admin_key = guarded.issue("admin", admin_scopes)
        revoked, revoked_text = guarded.issue("revoked", admin_scopes)
        guarded.store.revoke(revoked.id)
        ended = await _log_in(guarded, "anna")
        guarded.store.end_logins_of("anna")
        credentials = {
            "nobody": "",
            "garbage": "garbage",
            "an ended login": ended,
            "an expired key": guarded.issue("expired", admin_scopes, expires_at=time.time() - 1)[1],
            "a revoked key": revoked_text,
            "an ordinary key": owner,
            "a viewer": await _log_in(guarded, "vera"),
            "a viewer without tags": await _log_in(guarded, "o(d)d*"),
            "an administrator": await _log_in(guarded, "anna"),
            "an administrating key": admin_key,
        }
        async with client_with(guarded.target, owner) as client:
            sessions = {tag: (await client.open(tag=tag)).session_id for tag in ("line4", "line5")}
            wrong: dict[tuple[str, str], tuple[str, str]] = {}
            for method in METHODS:
                for caller, expected in _expected(method).items():
                    who, _, which = caller.partition(" (")
                    async with dashboard_client(guarded.target, credentials[who]) as dashboard:
                        session_id = {"other)": sessions["line5"], "none)": "nowhere"}.get(which, sessions["line4"])
                        got = await _outcome(dashboard, method, session_id)
                    if expected not in (got, "ANY"):
                        wrong[method, caller] = expected, got
                    if got == "OK" and method in {"CloseSession", "KillWorker"}:
                        sessions["line4"] = (await client.open(tag="line4")).session_id
                    if got == "OK" and method == "Logout":
                        user = {"a viewer": "vera", "a viewer without tags": "o(d)d*"}.get(who, "anna")
                        credentials[who] = await _log_in(guarded, user)

        assert not wrong


@pytest.mark.asyncio
async def test_a_login_is_recorded_under_the_call_s_id_and_without_the_password(slapd: Slapd, tmp_path: Path) -> None:
    async with _gateway(slapd, tmp_path) as guarded, client_of(guarded.target) as client:
        stub: Any = DashboardClient(client.channel).stub
        metadata = (("x-request-id", "login-1"),)
        await stub.Login(pb.LoginRequest(user="vera", password=PASSWORDS["vera"]), metadata=metadata, timeout=60)
        await refused(stub.Login(pb.LoginRequest(user="vera", password="canary"), metadata=metadata, timeout=60))
        lines = [line for line in guarded.audit() if line["action"] == "login"]

        assert [(line["decision"], line["correlation"]) for line in lines] == [
            ("allowed", "login-1"),
            ("denied", "login-1"),
        ]
        assert "canary" not in str(guarded.audit())


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["a login", "a key"])
async def test_whoever_administrates_no_more_watches_no_more(slapd: Slapd, tmp_path: Path, who: str) -> None:
    async with _gateway(slapd, tmp_path) as guarded:
        _, owner = guarded.issue("owner")
        key, text = guarded.issue("admin", frozenset({Scope.ADMIN}))
        credentials = text if who == "a key" else await _log_in(guarded, "anna")
        async with client_with(guarded.target, owner) as client, dashboard_client(guarded.target, credentials) as seen:
            session_id = (await client.open(tag="line4")).session_id
            streams = [
                seen.call("WatchGateway", pb.WatchGatewayRequest()),
                seen.call("WatchSession", pb.WatchSessionRequest(session_id=session_id)),
                seen.call("WatchEvents", pb.WatchEventsRequest(session_id=session_id)),
            ]
            for stream in streams:
                await stream.read()
            if who == "a key":
                guarded.store.revoke(key.id)
            else:
                guarded.store.end_logins_of("anna")
            reasons = [(await read_to_the_end(stream))[2].reason for stream in streams]

            assert reasons == ["REVOKED"] * 3


@pytest.mark.asyncio
async def test_without_a_login_only_a_living_key_that_administrates_sees_anything(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        key, text = guarded.issue("admin", EVERYTHING | {Scope.ADMIN})
        plain, _ = guarded.issue("plain")
        async with client_with(guarded.target, text) as client:
            await client.open(tag="line4")
            (session,) = guarded.gateway.api.sessions()

            def sees(name: str) -> bool:
                return guarded.gateway.api.sight_of(Operator(name, ("administrator",)))(session)

            names = [f"key:{key.id}", f"key:{plain.id}", "key:unknown", "anna", key.id, f"operator:{key.id}"]

            assert [name for name in names if sees(name)] == [f"key:{key.id}"]

            guarded.store.revoke(key.id, closes_sessions=False)
            await until(lambda: not sees(f"key:{key.id}"), 60)
