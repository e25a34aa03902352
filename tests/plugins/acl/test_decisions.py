"""The audit log has one record for each decision: what was decided in the end, by whichever plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.clients import refused
from support.keys import Guarded, client_with, guarded_gateway
from support.plugins import InstallPlugin

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.values_pb2 import MxValue
from mxgw_acl.patterns import ItemPatterns
from mxgw_core.api import AccessRequest, Deny, ItemRecord, Moment, hookimpl
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.events.item_book import ItemBook

pytestmark = pytest.mark.asyncio
READABLE, WRITABLE = "Bench_001.Text", "Bench_002.Text"
LIMITS = {"readable": ItemPatterns(("Bench_*",)), "writable": ItemPatterns((WRITABLE,))}


def decisions(guarded: Guarded, action: str) -> list[tuple[str, str]]:
    return [(line["decision"], line.get("detail", "")) for line in guarded.audit() if line["action"] == action]


def text(value: str) -> MxValue:
    return MxValue(string=value)


async def test_a_denied_write_has_one_record_and_it_says_denied(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, key = guarded.issue(**LIMITS)
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open()).session_id
            read_only, _ = await client.subscribe(session_id, [READABLE, WRITABLE])
            command = c.WriteCommand(server_handle=1, item_handle=read_only, value=text("x"))

            assert (await refused(client.invoke(session_id, write=command))).reason == "ACCESS_DENIED"
            assert decisions(guarded, "Invoke write") == [("denied", READABLE)]


async def test_a_bulk_write_has_one_record_for_what_is_denied_and_one_for_what_is_allowed(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, key = guarded.issue(**LIMITS)
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open()).session_id
            read_only, writable = await client.subscribe(session_id, [READABLE, WRITABLE])

            def bulk(*handles: int) -> c.WriteBulkCommand:
                writes = [c.BulkWrite(item_handle=handle, value=text("x")) for handle in handles]
                return c.WriteBulkCommand(server_handle=1, writes=writes)

            await client.invoke(session_id, write_bulk=bulk(read_only, writable))
            await client.invoke(session_id, write_bulk=bulk(read_only))
            await client.invoke(session_id, write_bulk=bulk(writable))

        assert decisions(guarded, "Invoke write_bulk") == [
            ("denied", READABLE),
            ("allowed", WRITABLE),
            ("denied", READABLE),
            ("allowed", WRITABLE),
        ]


async def test_a_long_list_of_items_ends_with_how_many_are_left_out(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, key = guarded.issue(**LIMITS)
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open()).session_id
            await client.register(session_id)
            items = [c.ItemReference(item_definition=f"Other_{number:04d}.PV") for number in range(1000)]
            await client.invoke(session_id, read_bulk=c.ReadBulkCommand(server_handle=1, items=items))
        ((decision, detail),) = decisions(guarded, "Invoke read_bulk")
        named = detail.split(", ")

        assert decision == "denied"
        assert named[0] == "Other_0000.PV"
        assert named[-1] == f"and {1000 - len(named) + 1} more"
        assert 500 < len(named) < 1000


class Reuses:
    """A guard that is asked last; while a long write is judged, its first handle comes to mean another item."""

    def __init__(self) -> None:
        self.items: ItemBook | None = None

    @hookimpl(trylast=True)
    def mxgw_command_guard(self, session: Any, identity: Any) -> Reuses:
        return self

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        if self.items is not None and (first := items[0]) is not None and command.HasField("write_bulk"):
            handle = first.server_handle, first.item_handle
            self.items._by_handle[handle] = first._replace(item_definition="Other.PV")
        return {}


async def test_a_record_names_the_items_that_were_judged_whatever_their_handles_mean_by_then(
    install_plugin: InstallPlugin, tmp_path: Path
) -> None:
    reuses = Reuses()
    install_plugin("reuses", reuses)
    async with guarded_gateway(tmp_path, {"plugins.enabled": ["acl", "reuses"]}) as guarded:
        _, key = guarded.issue(**LIMITS)
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open()).session_id
            (writable,) = await client.subscribe(session_id, [WRITABLE])
            registry = guarded.gateway.app.gateway._registry
            assert registry is not None
            reuses.items = registry.get(session_id).items
            writes = [c.BulkWrite(item_handle=writable, value=text("x"))] * (NAMES_AT_ONCE + 1)
            await client.invoke(session_id, write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes))

        assert decisions(guarded, "Invoke write_bulk") == [("allowed", ", ".join([WRITABLE] * len(writes)))]


async def test_the_record_of_a_key_that_may_use_all_items_says_what_was_known_of_the_handle(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, key = guarded.issue()
        async with client_with(guarded.target, key) as client:
            session_id = (await client.open()).session_id
            (handle,) = await client.subscribe(session_id, [READABLE])
            registry = guarded.gateway.app.gateway._registry
            assert registry is not None
            book = registry.get(session_id).items
            # As where the worker gave the handle out again, and the gateway has not heard of it yet.
            known = book._by_handle[1, handle]
            book._by_handle[1, handle] = known._replace(item_definition="Other.PV")
            write = c.WriteCommand(server_handle=1, item_handle=handle, value=text("x"))
            await client.invoke(session_id, write=write)
            bulk = [c.BulkWrite(item_handle=number, value=text("x")) for number in (handle, 77)]
            await client.invoke(session_id, write_bulk=c.WriteBulkCommand(server_handle=1, writes=bulk))

    assert decisions(guarded, "Invoke write") == [("allowed", f"handle {handle} (last known as Other.PV)")]
    assert decisions(guarded, "Invoke write_bulk") == [
        ("allowed", f"handle {handle} (last known as Other.PV), handle 77")
    ]


class Refuses:
    """Denies calls of one method at one moment, or writes as a guard."""

    def __init__(self, method: str, moment: Moment = Moment.CALL) -> None:
        self._method = method
        self._moment = moment

    @hookimpl
    def mxgw_authorize(self, request: AccessRequest) -> Deny | None:
        is_it = request.method.endswith(self._method) and request.moment is self._moment
        return Deny("not today") if is_it else None

    @hookimpl
    def mxgw_command_guard(self, session: Any, identity: Any) -> Refuses:
        return self

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        return {0: "not this"} if command.HasField("write") and self._method == "write" else {}


@pytest.mark.parametrize("order", [["acl", "refuses"], ["refuses", "acl"]])
@pytest.mark.parametrize(
    ("method", "moment", "action"),
    [
        ("/OpenSession", Moment.CALL, "OpenSession"),
        ("/StreamEvents", Moment.CALL, "StreamEvents"),
        ("/StreamEvents", Moment.ATTACH, "StreamEvents"),
        ("/Invoke", Moment.CALL, "Invoke write"),
        ("write", Moment.CALL, "Invoke write"),
        ("/CloseSession", Moment.CALL, "CloseSession"),
    ],
)
async def test_what_another_plugin_denies_is_never_recorded_as_allowed(
    install_plugin: InstallPlugin, tmp_path: Path, order: list[str], method: str, moment: Moment, action: str
) -> None:
    install_plugin("refuses", Refuses(method, moment))
    async with guarded_gateway(tmp_path, {"plugins.enabled": order}) as guarded:
        key, word = guarded.issue()
        async with client_with(guarded.target, word) as client:
            session_id = "none"
            if action != "OpenSession":
                session_id = (await client.open()).session_id
            call = {
                "OpenSession": client.open,
                "StreamEvents": lambda: client.stream(session_id).read(),
                "Invoke write": lambda: client.invoke(
                    session_id, write=c.WriteCommand(server_handle=1, item_handle=1, value=text("x"))
                ),
                "CloseSession": lambda: client.close(session_id),
            }[action]()
            refusal = await refused(call)

        assert refusal.text in ("not today", "not this")
        assert [decision for decision, _ in decisions(guarded, action)] == ["denied"]
        assert next(line for line in guarded.audit() if line["action"] == action)["actor"] == f"key:{key.id}"


async def test_a_stream_that_was_let_in_has_one_record(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, word = guarded.issue()
        async with client_with(guarded.target, word) as client:
            stream = client.stream((await client.open()).session_id)
            async with asyncio.timeout(30):
                await stream.read()
            stream.cancel()

        assert [decision for decision, _ in decisions(guarded, "StreamEvents")] == ["allowed"]
