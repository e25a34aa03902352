"""Operators on a whole gateway with a real directory: who sees which session, and that no secret is anywhere after."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from support.clients import refused
from support.keys import EVERYTHING, Guarded, client_with, guarded_gateway
from support.operators import dashboard_client
from support.plugins import InstallPlugin
from support.slapd import PASSWORDS, READER_DN, READER_PASSWORD, Slapd, running_slapd

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.values_pb2 import MxValue
from mxgw_acl.keys import Scope
from mxgw_core.api import Operator, OperatorCredentials, Peer, WorkerSpawn, hookimpl

HERE = Peer("127.0.0.1:5000", is_local=True)


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


@asynccontextmanager
async def _gateway(
    slapd: Slapd, tmp_path: Path, overrides: Mapping[str, object] | None = None
) -> AsyncIterator[Guarded]:
    settings: dict[str, object] = {
        "plugins.acl.ldap.servers": [slapd.tls],
        "plugins.acl.ldap.ca_file": str(slapd.authority.root),
        "plugins.acl.ldap.service_dn": READER_DN,
        "plugins.acl.ldap.service_password": READER_PASSWORD,
        "plugins.acl.ldap.user_base": "ou=people,dc=plant",
        "plugins.acl.operators.administrators": ["gateway-admins"],
        "plugins.acl.operators.viewers": ["gateway-viewers"],
        "plugins.acl.group_to_session_tag": {"line4": "line4"},
        "plugins.enabled": ["acl", "backpressure"],
        **(overrides or {}),
    }
    async with guarded_gateway(tmp_path, settings) as guarded:
        yield guarded


async def _log_in(guarded: Guarded, user: str) -> Operator:
    operator = await guarded.gateway.api.authenticate_operator(OperatorCredentials(user, PASSWORDS[user], HERE))

    assert operator is not None

    return operator


async def _visible(guarded: Guarded, token: str) -> list[str]:
    async with client_with(guarded.target, token) as client:
        reply = await client.sessions.ListSessions(ss.ListSessionsRequest(), timeout=60)
        return sorted(session.tag for session in reply.sessions)


@pytest.mark.asyncio
async def test_administrators_see_all_sessions_and_viewers_those_of_their_tags(slapd: Slapd, tmp_path: Path) -> None:
    async with _gateway(slapd, tmp_path) as guarded:
        _, key = guarded.issue()
        async with client_with(guarded.target, key) as client:
            ids = {tag: (await client.open(tag=tag)).session_id for tag in ("", "line4", "line5")}
            anna, vera = await _log_in(guarded, "anna"), await _log_in(guarded, "vera")

            assert await _visible(guarded, anna.token) == ["", "line4", "line5"]
            assert await _visible(guarded, vera.token) == ["line4"]
            assert [s.tag for s in guarded.gateway.api.sessions_visible_to(vera)] == ["line4"]
            assert len(guarded.gateway.api.sessions_visible_to(anna)) == 3

            async with client_with(guarded.target, vera.token) as viewer:
                stream = viewer.stream(ids["line4"])

                assert (await stream.read()).WhichOneof("frame") == "opened"

                stream.cancel()
                for hidden in (ids[""], ids["line5"], "nowhere"):
                    for call in (
                        viewer.sessions.GetSession(ss.GetSessionRequest(session_id=hidden), timeout=60),
                        viewer.stream(hidden),
                    ):
                        assert (await refused(call)).code is grpc.StatusCode.PERMISSION_DENIED
                for changing in (viewer.close(ids["line4"]), viewer.register(ids["line4"]), viewer.open()):
                    assert (await refused(changing)).code is grpc.StatusCode.PERMISSION_DENIED
            async with client_with(guarded.target, anna.token) as administrator:
                assert (await refused(administrator.register(ids["line5"]))).code is grpc.StatusCode.PERMISSION_DENIED

                await administrator.close(ids["line5"])

            assert await _visible(guarded, anna.token) == ["", "line4"]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["logout", "command line", "groups"])
async def test_a_login_that_is_over_ends_its_streams(slapd: Slapd, tmp_path: Path, how: str) -> None:
    vera_dn = "uid=vera,ou=people,dc=plant"
    async with _gateway(slapd, tmp_path, {"plugins.acl.check_interval_s": 1.0}) as guarded:
        _, key = guarded.issue()
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open(tag="line4")).session_id
            vera = await _log_in(guarded, "vera")
            async with client_with(guarded.target, vera.token) as viewer:
                stream = viewer.stream(session_id)
                await stream.read()
                match how:
                    case "logout":
                        guarded.gateway.api.forget_operator(vera)
                    case "command line":
                        guarded.store.end_logins_of("VERA")
                    case "groups":
                        await asyncio.to_thread(slapd.set_member, "line4", vera_dn, is_in=False)
                        try:
                            renewed = await guarded.gateway.api.renew_operator(vera)
                        finally:
                            await asyncio.to_thread(slapd.set_member, "line4", vera_dn, is_in=True)

                        assert renewed is not None
                        assert renewed.tags == ()
                refusal = await refused(stream)

                assert refusal.reason == "REVOKED"
            if how == "groups":
                assert await _visible(guarded, vera.token) == []
            else:
                async with client_with(guarded.target, vera.token) as viewer:
                    again = await refused(viewer.sessions.ListSessions(ss.ListSessionsRequest(), timeout=60))

                    assert again.reason == "UNAUTHENTICATED"
                assert await guarded.gateway.api.renew_operator(vera) is None


async def _at_the_dashboard(guarded: Guarded, token: str, session_id: str) -> str:
    """Return all that an operator is shown of a session, but for the values of its items, and a login that fails."""
    async with dashboard_client(guarded.target, token) as dashboard:
        snapshot = await dashboard.snapshot()
        detail = dashboard.call("WatchSession", pb.WatchSessionRequest(session_id=session_id))
        told = [str(snapshot), str(await detail.read())]
        detail.cancel()
        login = pb.LoginRequest(user="vera", password="canary-wrong")
        told.append(repr(await refused(dashboard.call("Login", login))))
        return "".join(told)


@pytest.mark.asyncio
async def test_no_secret_and_no_value_is_left_anywhere(
    slapd: Slapd,
    tmp_path: Path,
    install_plugin: InstallPlugin,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    value = "canary-of-a-tag-value"
    seen: list[str] = []
    nonces: list[bytes] = []

    class Looks:
        """Learns the secret that a worker proves itself with, and keeps what is said of it."""

        @hookimpl
        def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
            nonces.append(spawn.secret)
            seen.append(repr(spawn))

    enabled = ["acl", "backpressure", "dashboard_tui", install_plugin("looks", Looks())]
    async with _gateway(slapd, tmp_path, {"workers.log_level": "DEBUG", "plugins.enabled": enabled}) as guarded:
        _, key = guarded.issue(scopes=EVERYTHING | {Scope.ALL_SESSIONS})
        async with client_with(guarded.target, key) as client, client_with(guarded.target, f"{key[:-1]}#") as wrong:
            session_id = (await client.open(tag="line4")).session_id
            seen.append(repr(await refused(wrong.open())))
            (handle,) = await client.subscribe(session_id, ["Bench_001.Text"])
            command = c.WriteCommand(
                server_handle=1, item_handle=handle, value=MxValue(string=value), wait_for_completion=True
            )
            item = c.ItemReference(item_definition="Bench_001.Text")
            read = c.ReadBulkCommand(server_handle=1, items=[item])
            await client.invoke(session_id, read_bulk=read)  # only then has the item a type, and can be written

            assert (await client.invoke(session_id, write=command)).hresult == 0

            # What must not be found anywhere was really written.
            result = (await client.invoke(session_id, read_bulk=read)).bulk.items[0]

            assert result.value.value.string == value

            login = c.AuthenticateUserCommand(server_handle=1, user="operator", password="canary-mx-password")
            await client.invoke(session_id, authenticate_user=login)
            vera = await _log_in(guarded, "vera")
            app = guarded.gateway.api

            assert await app.authenticate_operator(OperatorCredentials("vera", "canary-wrong", HERE)) is None

            await _visible(guarded, vera.token)
            seen += [repr(app.streams()), repr(app.sessions()), repr(vera), repr(guarded.gateway.settings)]
            observation = app.observation
            seen += [repr(observation.audit_tail(1000)), repr(observation.settings()), repr(observation.plugins())]
            seen += [await _at_the_dashboard(guarded, vera.token, session_id)]
            seen += [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
            seen += [str(process.environ()) for process in psutil.Process().children(recursive=True)]
            await client.close(session_id)
        files = [*guarded.gateway.directory.rglob("*"), *guarded.directory.rglob("*")]
        seen += [path.read_bytes().decode("latin-1") for path in files if path.is_file()]
    seen += [caplog.text, *capfd.readouterr()]
    secrets = {
        "the key": key,
        "its secret": key.split("_")[3],
        "a token": vera.token,
        "a password": PASSWORDS["vera"],
        "a wrong password": "canary-wrong",
        "a user's password": "canary-mx-password",
        "the service password": READER_PASSWORD,
        "a value": value,
        "the nonce of a worker": nonces[0].decode("latin-1"),
        "that nonce in hex": nonces[0].hex(),
        "that nonce in base64": base64.b64encode(nonces[0]).decode().rstrip("="),
        "that nonce as Python shows it": repr(nonces[0])[2:-1],
    }

    assert len(seen) > 10
    assert session_id in "".join(seen)  # what is looked through is really there
    for what, secret in secrets.items():
        assert not [text[:200] for text in seen if secret in text], f"{what} was found"
