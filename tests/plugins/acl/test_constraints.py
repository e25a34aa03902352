"""Limits of a key on a real gateway: items, events, networks, numbers; and what revoking it ends."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from support.clients import Client, refusal_of, refused, running_calls
from support.keys import EVERYTHING, client_with, guarded_gateway
from support.waiting import until

from mxgw.convert import to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import BrowseRequest, InvokeRequest
from mxgw.v1.event_service_pb2 import StartPosition
from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest, PingRequest
from mxgw_acl.item_rights import ItemRights
from mxgw_acl.keys import Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_core.rpc import handlers

pytestmark = pytest.mark.asyncio

# Item_00001 and so on, each with a first value and some changes a second.
LOAD: Mapping[str, object] = {"backends.sim.profile": "load", "plugins.enabled": ["acl", "replay", "backpressure"]}
E_ACCESSDENIED = -2147024891


async def _references(client: Client, session_id: str, count: int) -> list[str]:
    """Return references that the backend really has."""
    found: list[str] = []
    parents = [""]
    while parents and len(found) < count:
        reply = await client.commands.Browse(
            BrowseRequest(session_id=session_id, parent=parents.pop(), page_size=5000), timeout=60
        )
        found += [node.reference for node in reply.nodes if node.reference and "[" not in node.reference]
        parents += [node.path for node in reply.nodes if node.has_children]
    return found[:count]


async def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Make calls at once and return what came of each."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(call) for call in calls]
    return [task.result() for task in running]


async def _bulk(client: Client, session_id: str, references: list[str], server_handle: int) -> Any:
    command = c.SubscribeBulkCommand(
        server_handle=server_handle, items=[c.ItemReference(item_definition=r) for r in references]
    )
    return (await client.invoke(session_id, subscribe_bulk=command)).bulk.items


async def test_pipelined_commands_on_a_reused_handle_write_nothing_that_is_forbidden(tmp_path: Path) -> None:
    target, allowed, marker = "Bench_001.FreeAccess", "Tank_001.Level", 4711
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(
            "limited",
            scopes=EVERYTHING - {Scope.ADMIN},
            readable=ItemPatterns(("*",)),
            writable=ItemPatterns(("Tank_001.*",)),
        )
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            server = await client.register(session_id)

            async def invoked(**command: Any) -> Any:
                try:
                    return await client.invoke(session_id, **command)
                except grpc.aio.AioRpcError as error:
                    return error

            outcomes: set[str] = set()
            for _ in range(40):
                add = c.AddItemCommand(server_handle=server, item_definition=allowed)
                handle = (await client.invoke(session_id, add_item=add)).item_handle
                item = {"server_handle": server, "item_handle": handle}
                write = c.WriteCommand(**item, value=to_value(marker), wait_for_completion=True)
                removed, added, _, written = await together(
                    invoked(remove_item=c.RemoveItemCommand(**item)),
                    invoked(add_item=c.AddItemCommand(server_handle=server, item_definition=target)),
                    invoked(advise=c.AdviseCommand(**item)),
                    invoked(write=write),
                )
                outcomes.add(getattr(written, "reason", "") or type(written).__name__)

                assert isinstance(written, grpc.aio.AioRpcError) or written.hresult != 0
                for reply in (removed, added):
                    assert reply.hresult == 0

                last = c.RemoveItemCommand(server_handle=server, item_handle=added.item_handle)
                await client.invoke(session_id, remove_item=last)
            read = c.ReadBulkCommand(server_handle=server, items=[c.ItemReference(item_definition=target)])
            value = (await client.invoke(session_id, read_bulk=read)).bulk.items[0].value.value

            assert value.integer == 0
            assert outcomes <= {"AioRpcError", "ITEM_CHANGED", "ITEM_REMOVED"}


async def test_what_a_key_s_items_were_judged_by_goes_with_its_last_session(tmp_path: Path) -> None:
    def remembered() -> int:
        gc.collect()
        return sum(type(thing) is ItemRights for thing in gc.get_objects())

    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(subtrees=("Tank_001",)))
        before = remembered()
        async with client_with(guarded.target, text) as client:
            one, other = (await client.open()).session_id, (await client.open()).session_id
            for session_id in (one, other):
                await _bulk(client, session_id, ["Bench_001.Flag"], await client.register(session_id))
            await client.close(one)
            await until(lambda: len(guarded.gateway.api.sessions()) == 1)

            assert remembered() == before + 1

            await client.close(other)
            await until(lambda: not guarded.gateway.api.sessions())

            assert remembered() == before


async def test_denied_items_of_a_bulk_call_are_results_at_their_index(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(subtrees=("Tank_001",)))
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            handle = await client.register(session_id)
            results = await _bulk(
                client, session_id, ["Bench_001.Flag", "Tank_001.Level", "Bench_001.Count", "Tank_001.Level"], handle
            )

            assert [item.reason for item in results] == ["ITEM_DENIED", "", "ITEM_DENIED", ""]
            assert [item.hresult for item in results] == [E_ACCESSDENIED, 0, E_ACCESSDENIED, 0]
            assert [bool(item.item_handle) for item in results] == [False, True, False, True]

            read = c.ReadBulkCommand(
                server_handle=handle,
                items=[c.ItemReference(item_definition=r) for r in ("Tank_001.Level", "Bench_001.Flag")],
            )
            values = (await client.invoke(session_id, read_bulk=read)).bulk.items

            assert values[1].reason == "ITEM_DENIED"
            assert not values[1].HasField("value")

            single = await refused(
                client.invoke(
                    session_id, add_item=c.AddItemCommand(server_handle=handle, item_definition="Bench_001.Flag")
                )
            )

            assert single.code is grpc.StatusCode.PERMISSION_DENIED
        denied = [line for line in guarded.audit() if line["decision"] == "denied"]

        assert denied[0]["reason"].startswith("2 items:")
        assert denied[0]["detail"] == "Bench_001.Flag, Bench_001.Count"


async def test_a_shared_session_shows_each_key_its_own_items_and_progress_past_the_others(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, {**LOAD, "backends.sim.profile": "plant"}) as guarded:
        _, all_text = guarded.issue("owner", EVERYTHING)
        _, some_text = guarded.issue(
            "narrow", EVERYTHING | {Scope.ALL_SESSIONS}, readable=ItemPatterns(subtrees=("Tank_001",))
        )
        async with client_with(guarded.target, all_text) as owner, client_with(guarded.target, some_text) as narrow:
            session_id = (await owner.open()).session_id
            handle = await owner.register(session_id)
            stream = narrow.stream(session_id)
            await stream.read()
            names = ["Tank_001.Level", "Bench_001.Flag", "Bench_001.Count", "Tank_001.Pressure"]
            items = await _bulk(owner, session_id, names, handle)
            permitted = {items[0].item_handle, items[3].item_handle}
            seen: set[int] = set()
            async with asyncio.timeout(60):
                while seen != permitted:
                    frame = await stream.read()
                    seen |= {event.item_handle for event in frame.events.events}

            assert seen == permitted

            subscribers = (
                await owner.sessions.ListSubscribers(ss.ListSubscribersRequest(session_id=session_id), timeout=60)
            ).subscribers

            assert sum(subscriber.filtered_events for subscriber in subscribers) >= 2

            state = await narrow.sessions.GetSessionState(
                ss.GetSessionStateRequest(session_id=session_id, include_values=True), timeout=60
            )

            assert {item.item_handle for item in state.items} == permitted

            snapshot = narrow.stream(session_id, StartPosition(snapshot_then_live={}))
            shown: set[int] = set()
            async with asyncio.timeout(60):
                while (frame := await snapshot.read()).WhichOneof("frame") != "snapshot_end":
                    shown |= {item.item_handle for item in frame.snapshot.items}

            assert shown == permitted

            stream.cancel()
            snapshot.cancel()


async def test_first_values_of_a_constrained_key_all_come_however_quick_they_are(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, {**LOAD, "backends.sim.items": 2000, "backends.sim.rate": 0}) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(("*",)))
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            stream = client.stream(session_id)
            await stream.read()
            references = await _references(client, session_id, 2000)
            handle = await client.register(session_id)
            items = await _bulk(client, session_id, references, handle)

            assert len(items) == 2000

            seen: set[int] = set()
            async with asyncio.timeout(60):
                while len(seen) < 2000:
                    seen |= {event.item_handle for event in (await stream.read()).events.events}
            stream.cancel()

            assert seen == {item.item_handle for item in items}


async def test_a_key_is_accepted_from_its_networks_only(tmp_path: Path) -> None:
    overrides = {"gateway.listen": ["127.0.0.1:0"]}
    async with guarded_gateway(tmp_path, overrides) as guarded:
        _, here = guarded.issue(networks=("127.0.0.0/8",))
        _, elsewhere = guarded.issue(networks=("10.0.0.0/8", "2001:db8::/32"))
        async with client_with(guarded.target, here) as client:
            await client.open()
        async with client_with(guarded.target, elsewhere) as client:
            refusal = await refused(client.open())

            assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
            assert "network" in refusal.text


async def test_a_key_opens_as_many_sessions_as_it_may_also_at_once(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(maximum_sessions=2)
        _, other = guarded.issue()
        async with client_with(guarded.target, text) as client, client_with(guarded.target, other) as free:
            answers: list[object] = []

            async def open_one() -> None:
                try:
                    answers.append(await client.open())
                except grpc.aio.AioRpcError as error:
                    answers.append(refusal_of(error).reason)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(5):
                    tasks.create_task(open_one())

            assert answers.count("SESSION_LIMIT_REACHED") == 3

            await free.open()


async def test_a_key_follows_as_many_streams_as_it_may_over_all_sessions(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, LOAD) as guarded:
        _, text = guarded.issue(maximum_subscribers=2)
        async with client_with(guarded.target, text) as client:
            sessions = [(await client.open()).session_id for _ in range(2)]
            streams = [client.stream(sessions[0]), client.stream(sessions[1])]
            for stream in streams:
                await stream.read()

            refusal = await refused(client.stream(sessions[0]))

            assert refusal.reason == "EVENT_SUBSCRIBER_LIMIT_REACHED"

            streams.pop().cancel()
            await until(lambda: len(guarded.gateway.api.streams()) == 1)
            third = client.stream(sessions[0])

            assert (await third.read()).WhichOneof("frame") == "opened"

            third.cancel()
            streams.pop().cancel()


async def test_a_key_with_too_many_sessions_without_a_stream_opens_no_more_and_loses_none(tmp_path: Path) -> None:
    overrides = {**LOAD, "plugins.replay.detach_grace_seconds": 60}
    async with guarded_gateway(tmp_path, overrides) as guarded:
        _, text = guarded.issue(maximum_detached=2)
        async with client_with(guarded.target, text) as client:
            sessions = [(await client.open()).session_id for _ in range(3)]  # none of them had a stream to lose
            streams = {}
            for session_id in sessions:
                streams[session_id] = client.stream(session_id)
                await streams[session_id].read()
            for session_id in sessions[:2]:
                streams[session_id].cancel()
                await until(lambda s=session_id: guarded.gateway.api.session(s).subscribers == 0)
            refusal = await refused(client.open())

            assert (refusal.reason, refusal.metadata["limit"]) == ("SESSION_LIMIT_REACHED", "2")
            assert "--max-detached" in refusal.text
            assert len(guarded.gateway.api.sessions()) == 3

            stream = client.stream(sessions[0])
            await stream.read()
            await client.open()
            for attached in (stream, streams[sessions[2]]):
                attached.cancel()


async def test_the_owner_of_an_ended_session_learns_why_and_nobody_else(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        _, foreign = guarded.issue()
        async with client_with(guarded.target, text) as client, client_with(guarded.target, foreign) as other:
            session_id = (await client.open()).session_id
            await client.close(session_id)
            gone = await refused(client.register(session_id))

            assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_GONE")
            assert gone.metadata["close_reason"] == "CLIENT"
            assert (await refused(other.register(session_id))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_list_shows_a_key_its_own_sessions_and_refuses_nothing_in_the_log(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, one = guarded.issue()
        _, two = guarded.issue()
        _, everywhere = guarded.issue("all", EVERYTHING | {Scope.ALL_SESSIONS})
        lists = []
        async with client_with(guarded.target, one) as first, client_with(guarded.target, two) as second:
            mine = (await first.open()).session_id
            await second.open()
            for text in (one, everywhere):
                async with client_with(guarded.target, text) as client:
                    reply = await client.sessions.ListSessions(ss.ListSessionsRequest(), timeout=60)
                    lists.append([session.session_id for session in reply.sessions])
                    info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60)
                    assert info.open_sessions == len(reply.sessions)

        assert lists[0] == [mine]
        assert len(lists[1]) == 2
        assert not [line for line in guarded.audit() if line["decision"] == "denied"]


# revocation


@pytest.mark.parametrize("closes", [True, False])
async def test_revoking_a_key_ends_its_streams_with_their_reason_and_its_sessions_by_policy(
    tmp_path: Path, closes: bool
) -> None:
    overrides = {**LOAD, "plugins.acl.check_interval_s": 1.0}
    async with guarded_gateway(tmp_path, overrides) as guarded:
        key, text = guarded.issue()
        _, everywhere = guarded.issue("all", EVERYTHING | {Scope.ALL_SESSIONS})
        async with client_with(guarded.target, text) as client, client_with(guarded.target, everywhere) as other:
            session_id = (await client.open()).session_id
            stream, second = client.stream(session_id), other.stream(session_id)
            await stream.read()
            await second.read()
            guarded.store.revoke(key.id, closes_sessions=closes)
            refusal = await refused(stream)

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "REVOKED")
            assert refusal.metadata == {"key_id": key.id, "cause": "revoked"}

            if closes:
                assert (await refused(second)).reason == "OWNER_REVOKED"
            else:
                assert guarded.gateway.api.session(session_id) is not None

                second.cancel()
        ended = [line for line in guarded.audit() if line["action"] == "StreamEvents ended"]

        assert [(line["actor"], line["session"]) for line in ended] == [(f"key:{key.id}", session_id)]


async def test_the_answer_of_a_call_that_took_long_is_withheld_when_its_key_was_revoked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "LONG_S", 0.0)
    async with guarded_gateway(tmp_path) as guarded:
        key, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            register = InvokeRequest(session_id=session_id, command=c.MxCommand(register=c.RegisterCommand()))
            (session,) = guarded.gateway.api.sessions()
            psutil.Process(session.worker_pid).suspend()
            browse = client.commands.Browse(BrowseRequest(session_id=session_id))
            command = client.commands.Invoke(register)
            await until(lambda: running_calls(guarded.gateway.api) == {"Browse": 1, "Invoke": 1})
            guarded.store.revoke(key.id, closes_sessions=False)
            assert (await refused(client.gateway.Ping(PingRequest()))).reason == "UNAUTHENTICATED"
            psutil.Process(session.worker_pid).resume()
            refusals = [await refused(browse), await refused(command)]

    assert [refusal.reason for refusal in refusals] == ["REVOKED"] * 2
    assert [refusal.metadata.get("outcome") for refusal in refusals] == [None, "unknown"]
    denied = [line["action"] for line in guarded.audit() if line["reason"] == refusals[0].text]
    assert sorted(denied) == ["Browse", "Invoke"]


async def test_a_stream_that_nobody_reads_is_ended_all_the_same(tmp_path: Path) -> None:
    overrides = {**LOAD, "backends.sim.items": 500, "backends.sim.rate": 20_000}
    async with guarded_gateway(tmp_path, overrides) as guarded:
        key, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            await client.subscribe(session_id, await _references(client, session_id, 200))
            stream = client.stream(session_id)
            await stream.read()
            await until(lambda: guarded.gateway.api.sessions()[0].head_sequence > 40_000, 60)
            guarded.store.revoke(key.id, closes_sessions=False)
            await until(lambda: not guarded.gateway.api.streams(), 60)

            assert (await refused(stream)).reason == "REVOKED"


async def test_a_key_that_expires_ends_its_streams(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        key, text = guarded.issue(expires_at=time.time() + 3600)
        async with client_with(guarded.target, text) as client:
            stream = client.stream((await client.open()).session_id)
            await stream.read()
            change = "UPDATE keys SET expires_at = ? WHERE id = ?"  # it expires now, however long the opening took
            guarded.store._connection.execute(change, (time.time(), key.id))
            refusal = await refused(stream)

            assert (refusal.reason, refusal.metadata["cause"]) == ("REVOKED", "expired")
