"""Every RPC by every kind of caller, over real gRPC: no cell is left to chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import Client, Refusal, refusal_of
from support.keys import EVERYTHING, Guarded, client_with, guarded_gateway

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import BrowseRequest, InvokeRequest
from mxgw.v1.event_service_pb2 import StreamEventsRequest
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest, PingRequest
from mxgw_acl.keyformat import KeyText, new_key_id, new_secret
from mxgw_acl.keys import Scope
from mxgw_acl.rules import REFLECTION, RULES, Names

pytestmark = pytest.mark.asyncio

_STUBS = {
    "SessionService": "sessions",
    "CommandService": "commands",
    "EventService": "events",
    "GatewayService": "gateway",
}
_REGISTER = c.MxCommand(register=c.RegisterCommand(client_name="test"))
REQUESTS: Mapping[str, Callable[[str], Any]] = {
    "OpenSession": lambda _: ss.OpenSessionRequest(client_name="other"),
    "CloseSession": lambda s: ss.CloseSessionRequest(session_id=s),
    "GetSession": lambda s: ss.GetSessionRequest(session_id=s),
    "ListSessions": lambda _: ss.ListSessionsRequest(),
    "GetSessionState": lambda s: ss.GetSessionStateRequest(session_id=s),
    "ListSubscribers": lambda s: ss.ListSubscribersRequest(session_id=s),
    "GetWorkerInfo": lambda s: ss.GetWorkerInfoRequest(session_id=s),
    "Invoke": lambda s: InvokeRequest(session_id=s, command=_REGISTER),
    "Browse": lambda s: BrowseRequest(session_id=s),
    "StreamEvents": lambda s: StreamEventsRequest(session_id=s),
    "GetGatewayInfo": lambda _: GetGatewayInfoRequest(),
    "Ping": lambda s: PingRequest(session_id=s),
}
NOWHERE = "nowhere-at-all"


def _call(client: Client, method: str, session_id: str, credentials: str | None) -> Any:
    if method in REFLECTION:
        # The interceptors of `client_with` know nothing of calls that stream both ways.
        metadata = (("authorization", f"Bearer {credentials}"),) if credentials is not None else ()
        # Without a request: who is refused while it sends may hear of that alone from grpcio.
        return client.channel.stream_stream(method)(iter(()), metadata=metadata, timeout=60)
    _, service, name = method.split("/")
    stub = getattr(client, _STUBS[service.rpartition(".")[2]])
    return getattr(stub, name)(REQUESTS[name](session_id), timeout=60)


async def _outcome(guarded: Guarded, credentials: str | None, method: str, session_id: str) -> Refusal | None:
    """Return how the call was refused, None when it was served."""
    async with client_with(guarded.target, credentials) as client:
        call = _call(client, method, session_id, credentials)
        try:
            if hasattr(call, "__aiter__"):
                await call.read()
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        return None


async def test_there_is_a_request_for_every_rpc() -> None:
    assert {method.rpartition("/")[2] for method in RULES.keys() - REFLECTION} == set(REQUESTS)


@pytest.mark.parametrize("method", RULES)
async def test_every_caller_gets_what_the_table_says(method: str, tmp_path: Path) -> None:
    # With fan-out, so that a stream that is still ending is in nobody's way.
    async with guarded_gateway(
        tmp_path, {"plugins.enabled": ["acl", "backpressure"], "gateway.reflection": True}
    ) as guarded:
        owner_key, owner = guarded.issue("owner")
        _, foreign = guarded.issue("foreign")
        _, everywhere = guarded.issue("everywhere", EVERYTHING | {Scope.ALL_SESSIONS})
        _, expired = guarded.issue("expired", expires_at=time.time() - 1)
        revoked_key, revoked = guarded.issue("revoked")
        guarded.store.revoke(revoked_key.id)
        _, nothing = guarded.issue("nothing", frozenset())
        unknown = owner[:-7]
        async with client_with(guarded.target, owner) as client:
            session_id = (await client.open()).session_id

            async def outcome(credentials: str | None, session: str = session_id) -> Refusal | None:
                return await _outcome(guarded, credentials, method, session)

            strangers = {
                "no key": None,
                "malformed": "mxgw_test_short",
                "wrong checksum": unknown + "_000000",
                "not a word": "x" * 300,
                "expired": expired,
                "revoked": revoked,
                "unknown": _unknown(),
            }
            refusals = {who: await outcome(credentials) for who, credentials in strangers.items()}

            # The same answer to all of them, letter by letter.
            assert {refusal and refusal.code for refusal in refusals.values()} == {grpc.StatusCode.UNAUTHENTICATED}
            assert {refusal and refusal.reason for refusal in refusals.values()} == {"UNAUTHENTICATED"}
            assert len({refusal and refusal.text for refusal in refusals.values()}) == 1

            rule = RULES[method]
            if rule.names is Names.NO_SESSION:
                assert await outcome(foreign) is None
            else:
                other, none = await outcome(foreign), await outcome(foreign, NOWHERE)

                assert other is not None
                assert (other.code, other.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
                assert none == other  # somebody else's and nobody's are told alike
                assert await outcome(owner, NOWHERE) == other

                gone = await outcome(everywhere, NOWHERE)

                assert gone is not None
                assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")

            lacking = await outcome(nothing)
            if rule.scopes is not None or method.endswith("/Invoke"):
                assert lacking is not None
                assert lacking.code is grpc.StatusCode.PERMISSION_DENIED
            if rule.scopes is not None:
                assert lacking is not None
                assert min(scope.value for scope in rule.scopes) in lacking.text

            assert await outcome(everywhere) is None
            if method.endswith("/CloseSession"):
                session_id = (await client.open()).session_id

            assert await outcome(owner, session_id) is None

            # Revoked in the middle of everything: from then on like any stranger.
            guarded.store.revoke(owner_key.id)
            late = await outcome(owner, session_id)

            assert late is not None
            assert late.reason == "UNAUTHENTICATED"


def _unknown() -> str:
    return KeyText("test", new_key_id(), new_secret()).text()
