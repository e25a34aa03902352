"""Sessions of the gateway itself: whoever may see everything may look at them, and do nothing to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.clients import refused
from support.keys import client_with, guarded_gateway
from support.operators import dashboard_client

from mxgw.dashboard.v1 import dashboard_service_pb2 as dashboard
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import BrowseRequest, InvokeRequest
from mxgw.v1.event_service_pb2 import StreamEventsRequest
from mxgw.v1.gateway_service_pb2 import PingRequest
from mxgw_acl.keys import Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_acl.rules import RULES, Names
from mxgw_core.api import CloseReason
from mxgw_core.api.errors import AccessDenied
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio
_REGISTER = c.MxCommand(register=c.RegisterCommand(client_name="test"))


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_administrator_sees_them_and_can_neither_use_nor_end_them(tmp_path: Path, guarded: bool) -> None:
    overrides: dict[str, object] = {
        "plugins.enabled": ["acl", "dashboard_tui"] if guarded else ["dashboard_tui"],
        "plugins.dashboard_tui.local_role": "administrator",
    }
    if guarded:
        async with guarded_gateway(tmp_path, overrides) as running:
            _, key = running.issue(scopes=frozenset(Scope))
            _, foreign = running.issue()
            await _look_and_touch(running.gateway, key)
            decisions = [(line["action"], line["decision"]) for line in running.audit()]

            assert ("CloseSession", "denied") in decisions
            assert ("KillWorker", "denied") in decisions
            assert "allowed" not in {d for a, d in decisions if a in ("CloseSession", "KillWorker", "Invoke register")}

            # Whoever may not know of it is told what is told of any session.
            session_id = running.gateway.api.sessions()[0].session_id
            async with client_with(running.target, foreign) as client:
                assert "no session of this id" in (await refused(client.close(session_id))).text
    else:
        async with running_gateway(overrides) as gateway:
            await _look_and_touch(gateway, None)


async def _look_and_touch(gateway: Any, key: str | None) -> None:
    own = await gateway.api.open_internal_session("the alarm monitor")
    session_id = own.session_id
    looks = {
        "GetSession": ss.GetSessionRequest(session_id=session_id),
        "GetSessionState": ss.GetSessionStateRequest(session_id=session_id),
        "ListSubscribers": ss.ListSubscribersRequest(session_id=session_id),
        "GetWorkerInfo": ss.GetWorkerInfoRequest(session_id=session_id),
    }
    touches = {
        "CloseSession": ss.CloseSessionRequest(session_id=session_id),
        "Invoke": InvokeRequest(session_id=session_id, command=_REGISTER),
        "Browse": BrowseRequest(session_id=session_id),
        "StreamEvents": StreamEventsRequest(session_id=session_id),
    }

    # No RPC that names a session is forgotten.
    naming = {method.rpartition("/")[2] for method, rule in RULES.items() if rule.names is not Names.NO_SESSION}
    assert naming == {*looks, *touches, "Ping"}

    async with client_with(gateway.target, key) as client, dashboard_client(gateway.target, key) as desk:
        stubs = (client.sessions, client.commands, client.events)

        def call(name: str, request: Any) -> Any:
            return getattr(next(stub for stub in stubs if hasattr(stub, name)), name)(request, timeout=15)

        for name, request in looks.items():
            await call(name, request)
        await client.gateway.Ping(PingRequest(session_id=session_id), timeout=15)
        for name, request in touches.items():
            pending = call(name, request)
            refusal = await refused(pending.read() if name == "StreamEvents" else pending)

            assert refusal.reason == "ACCESS_DENIED"
            assert "(the alarm monitor) is the gateway's own" in refusal.text
        for name in ("CloseSession", "KillWorker"):
            refusal = await refused(desk.call(name, getattr(dashboard, f"{name}Request")(session_id=session_id)))

            assert "is the gateway's own" in refusal.text
    for end in (gateway.api.kill_worker, lambda s: gateway.api.close_session(s, CloseReason.DETACH_GRACE_EXPIRED)):
        with pytest.raises(AccessDenied, match="gateway's own"):
            end(session_id)

    assert gateway.api.session(session_id) is not None
    assert (await own.invoke(_REGISTER, 15)).hresult == 0


async def test_counts_of_items_are_those_that_the_caller_may_see_or_absent(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as running:
        _, limited = running.issue("limited", frozenset(Scope), readable=ItemPatterns(("Bench_001.*",)))
        _, free = running.issue("free")
        async with client_with(running.target, free) as client, client_with(running.target, limited) as other:
            session_id = (await client.open()).session_id
            await client.subscribe(session_id, ["Bench_001.Text", "Bench_002.Text", "Bench_003.Text"])

            async def counts(of: Any, size: int = 0) -> tuple[int | None, int | None, int]:
                asked = ss.GetSessionStateRequest(session_id=session_id, page_size=size)
                state = await of.sessions.GetSessionState(asked, timeout=15)
                info = await of.sessions.GetWorkerInfo(ss.GetWorkerInfoRequest(session_id=session_id), timeout=15)
                return (
                    state.total_items if state.HasField("total_items") else None,
                    info.items if info.HasField("items") else None,
                    len(state.items),
                )

            assert await counts(client) == (3, 3, 3)
            assert await counts(client, size=2) == (3, 3, 2)
            assert await counts(other) == (1, None, 1)
            assert await counts(other, size=2) == (1, None, 1)
            assert await counts(other, size=1) == (1, None, 1)


async def test_pages_are_full_of_what_the_caller_may_see_and_tokens_name_nothing_else(tmp_path: Path) -> None:
    hidden = [f"Bench_{number:03d}.Text" for number in range(2, 40)]
    async with guarded_gateway(tmp_path) as running:
        _, limited = running.issue("limited", frozenset(Scope), readable=ItemPatterns(("Bench_001.*",)))
        _, free = running.issue("free")
        async with client_with(running.target, free) as client, client_with(running.target, limited) as other:
            session_id = (await client.open()).session_id
            names = ["Bench_001.Text", *hidden, "Bench_001.Amount", "Bench_001.Percent", *hidden]
            handles = await client.subscribe(session_id, names)
            seen = [h for h, name in zip(handles, names, strict=True) if name.startswith("Bench_001.")]

            async def pages(size: int, **more: Any) -> tuple[list[list[int]], list[str]]:
                asked = ss.GetSessionStateRequest(session_id=session_id, page_size=size, **more)
                found, tokens = [], []
                while not tokens or asked.page_token:
                    state = await other.sessions.GetSessionState(asked, timeout=15)
                    found.append([item.item_handle for item in state.items])
                    tokens.append(state.next_page_token)
                    asked.page_token = state.next_page_token
                return found, tokens

            one_by_one, tokens = await pages(1)

            assert one_by_one == [[handle] for handle in seen]
            assert [token.split(".")[:2] for token in tokens] == [["1", str(h)] for h in seen[:2]] + [[""]]
            assert (await pages(2, include_values=True))[0] == [seen[:2], seen[2:]]
            assert (await pages(3))[0] == (await pages(0))[0] == [seen]


async def test_browsing_in_pages_shows_what_the_caller_may_see_and_nothing_of_how_much_is_between(
    tmp_path: Path,
) -> None:
    async with guarded_gateway(tmp_path) as running:
        shown = ["Tagname", "Area", "IsOpen"]
        _, limited = running.issue("limited", readable=ItemPatterns([f"Valve_001.{name}" for name in shown]))
        async with client_with(running.target, limited) as client:
            session_id = (await client.open()).session_id
            asked = BrowseRequest(session_id=session_id, parent="Valve_001", page_size=1)
            found, tokens = [], []
            while not tokens or asked.page_token:
                answer = await client.commands.Browse(asked, timeout=15)
                found.append([node.name for node in answer.nodes])
                tokens.append(answer.next_page_token)
                asked.page_token = answer.next_page_token
            stranger = BrowseRequest(session_id=session_id, parent="Valve_002", page_token=tokens[0])
            refusal = await refused(client.commands.Browse(stranger, timeout=15))
            below = [
                await client.commands.Browse(BrowseRequest(session_id=session_id, parent=parent), timeout=15)
                for parent in ("Pump_001.Running", "Pump_001.Nothing", "Nothing")
            ]

    assert [list(answer.nodes) for answer in below] == [[], [], []]  # hidden nodes are no different from none
    assert found == [[name] for name in shown]
    assert [token.split(".")[0] for token in tokens] == ["1", "2", ""]
    assert "not one of this query" in refusal.text


async def test_a_list_of_sessions_ends_with_the_last_that_the_caller_may_see(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as running:
        _, mine = running.issue("mine", frozenset({Scope.OPEN, Scope.READ}))
        _, others = running.issue("others", frozenset({Scope.OPEN, Scope.READ}))
        async with client_with(running.target, mine) as client, client_with(running.target, others) as other:
            opened = [(await who.open()).session_id for who in (client, other, client, other)]
            first = await client.sessions.ListSessions(ss.ListSessionsRequest(page_size=1), timeout=15)
            rest = ss.ListSessionsRequest(page_size=1, page_token=first.next_page_token)
            second = await client.sessions.ListSessions(rest, timeout=15)

    assert [s.session_id for s in (*first.sessions, *second.sessions)] == [opened[0], opened[2]]
    assert (bool(first.next_page_token), second.next_page_token) == (True, "")
