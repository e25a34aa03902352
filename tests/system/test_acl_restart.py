"""Access control over a restart of the gateway: owners, revocation, and the items of keys that may see only some."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.clients import refused
from support.keys import client_with, guarded_gateway
from support.waiting import until

from mxgw.v1 import commands_pb2 as c
from mxgw_acl.patterns import ItemPatterns

pytestmark = pytest.mark.asyncio


async def test_a_session_taken_over_is_its_owner_s_still_and_shows_permitted_items_only(tmp_path: Path) -> None:
    overrides = {
        "plugins.enabled": ["acl", "replay", "backpressure", "reattach"],
        "gateway.data_dir": str(tmp_path / "d"),
        "plugins.acl.directory": str(tmp_path / "acl"),
    }
    async with guarded_gateway(tmp_path, overrides) as guarded:
        everything_key, everything = guarded.issue("everything")
        some_key, some = guarded.issue("some", readable=ItemPatterns(subtrees=("Tank_001",)))
        gone_key, gone = guarded.issue("gone")
        _, stranger = guarded.issue("stranger")
        sessions = {}
        for name, text in (("everything", everything), ("some", some), ("gone", gone)):
            async with client_with(guarded.target, text) as client:
                sessions[name] = (await client.open()).session_id
                handles = await client.subscribe(sessions[name], ["Tank_001.Level"])
        guarded.store.revoke(gone_key.id, closes_sessions=False)
    async with guarded_gateway(tmp_path, overrides) as guarded:
        app = guarded.gateway.api
        # Two are taken over, and the third has ended: whichever comes first.
        await until(lambda: [s.state.name for s in app.sessions()] == ["READY", "READY"], 60)

        assert {s.owner for s in app.sessions()} == {everything_key.id, some_key.id}

        async with client_with(guarded.target, stranger) as client:
            assert (await refused(client.register(sessions["some"]))).reason == "ACCESS_DENIED"
        async with client_with(guarded.target, some) as client:
            stream = client.stream(sessions["some"])
            await stream.read()
            seen: set[int] = set()
            async with asyncio.timeout(60):
                while not seen:
                    seen |= {event.item_handle for event in (await stream.read()).events.events}

            assert seen == set(handles)

            unadvise = c.UnAdviseCommand(server_handle=1, item_handle=handles[0])

            assert (await client.invoke(sessions["some"], un_advise=unadvise)).hresult == 0

            stream.cancel()
        denied = [line for line in guarded.audit() if line["action"] == "session taken over"]

        assert {(line["session"], line["decision"]) for line in denied} == {
            (sessions["everything"], "done"),
            (sessions["some"], "done"),
            (sessions["gone"], "denied"),
        }

        for name, text in (("everything", everything), ("some", some)):
            async with client_with(guarded.target, text) as client:
                await client.close(sessions[name])
