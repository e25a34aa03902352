"""A large call is judged a few names at a time: between two slices, the gateway serves whoever else is there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from support.clients import client_of
from support.plugins import InstallPlugin

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.api import Gateway, Identity, ItemRecord, SessionInfo, hookimpl
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

ITEMS = 200


class Judge:
    """A plugin that lets everything pass and counts how many names it was asked for in one turn of the event loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.asked: Counter[int] = Counter()
        self.revision = 0

    @hookimpl
    @asynccontextmanager
    async def mxgw_gateway_context(self, gateway: Gateway) -> AsyncIterator[None]:
        async def count() -> None:
            while True:
                self.turn += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            counting = tasks.create_task(count())
            yield
            counting.cancel()

    @hookimpl
    def mxgw_command_guard(self, session: SessionInfo, identity: Identity) -> Judge:
        return self

    @hookimpl
    def mxgw_event_filter(self, session: SessionInfo, identity: Identity) -> Judge:
        return self

    def denied(self, command: c.MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        self.asked[self.turn] += len(command.subscribe_bulk.items)
        return {}

    def shows(self, node: c.BrowseNode) -> bool:
        self.asked[self.turn] += 1
        return True

    def keep(self, item: ItemRecord, kind: int) -> bool:
        self.asked[self.turn] += 1
        return True

    def most_in_a_turn(self) -> int:
        """Return the most names of one turn, and begin anew."""
        assert self.asked.total() >= ITEMS

        most = max(self.asked.values())
        self.asked.clear()
        return most


async def test_commands_browsing_and_the_state_of_a_session_are_judged_in_slices(install_plugin: InstallPlugin) -> None:
    judge = Judge()
    settings = {
        "backends.sim.profile": "load",
        "backends.sim.items": ITEMS,
        "backends.sim.rate": 0,
        "plugins.enabled": [install_plugin("judge", judge)],
    }
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        handle = await client.register(session_id)
        items = [c.ItemReference(item_definition=f"Load.Item{number:05d}") for number in range(1, ITEMS + 1)]
        subscribe = c.SubscribeBulkCommand(server_handle=handle, items=items)
        reply = await client.invoke(session_id, subscribe_bulk=subscribe)

        assert [item.reason for item in reply.bulk.items] == [""] * ITEMS
        assert judge.most_in_a_turn() <= NAMES_AT_ONCE

        state = await client.sessions.GetSessionState(ss.GetSessionStateRequest(session_id=session_id))

        assert len(state.items) == ITEMS
        assert judge.most_in_a_turn() <= NAMES_AT_ONCE

        request = cs.BrowseRequest(session_id=session_id, parent="Load", page_size=1000)
        nodes = (await client.commands.Browse(request)).nodes

        assert len(nodes) >= ITEMS
        assert judge.most_in_a_turn() <= NAMES_AT_ONCE
