"""What a source says about items, over a real gateway: with and without a key that is limited to certain items."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from support.clients import refused
from support.keys import EVERYTHING, client_with, guarded_gateway

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.command_service_pb2 import BrowseRequest
from mxgw_acl.keys import Scope
from mxgw_acl.patterns import ItemPatterns

pytestmark = pytest.mark.asyncio

E_ACCESSDENIED, E_NOTIMPL = -2147024891, -2147467263


async def test_metadata_is_told_of_items_that_the_caller_may_use_and_of_no_others(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, everything = guarded.issue("all", scopes=EVERYTHING)
        _, limited = guarded.issue(
            "limited", scopes=EVERYTHING - {Scope.ADMIN}, readable=ItemPatterns(("Bench_001.Count*",))
        )
        asked = c.GetItemMetadataCommand(
            items=[
                c.ItemReference(item_definition=name) for name in ("Bench_001.Count", "Bench_001.Choice", "No.Where")
            ]
        )
        async with client_with(guarded.target, everything) as client:
            session_id = (await client.open()).session_id
            count, choice, nowhere = (await client.invoke(session_id, get_item_metadata=asked)).bulk.items

            assert (count.metadata.source_data_type, count.metadata.writeable) == ("INTEGER", True)
            assert [entry.name for entry in choice.metadata.enumeration][1] == "Green"
            assert nowhere.hresult != 0
            assert not nowhere.HasField("metadata")
            browse = BrowseRequest(session_id=session_id, parent="Bench_001", include_metadata=True, page_size=4)
            page = await client.commands.Browse(browse)
            assert len(page.nodes) == 4
            assert all(node.HasField("metadata") for node in page.nodes)
            plain = await client.commands.Browse(BrowseRequest(session_id=session_id, parent="Bench_001"))
            assert not any(node.HasField("metadata") for node in plain.nodes)
            browse.page_size = 501
            assert (await refused(client.commands.Browse(browse))).code is grpc.StatusCode.INVALID_ARGUMENT

            options = c.ItemOptions(absolute_deadband=1.0)
            server = (await client.invoke(session_id, register=c.RegisterCommand())).server_handle
            add = c.AddItemCommand(server_handle=server, item_definition="Tank_001.Level", options=options)
            reply = await client.invoke(session_id, add_item=add)
            assert (reply.hresult, reply.reason) == (E_NOTIMPL, "ITEM_OPTIONS_NOT_SUPPORTED")
        async with client_with(guarded.target, limited) as client:
            session_id = (await client.open()).session_id
            results = (await client.invoke(session_id, get_item_metadata=asked)).bulk.items

            assert [result.hresult for result in results] == [0, E_ACCESSDENIED, E_ACCESSDENIED]
            browse = BrowseRequest(session_id=session_id, parent="Bench_001", include_metadata=True)
            shown = [node for node in (await client.commands.Browse(browse)).nodes if node.reference]
            assert {node.name for node in shown} == {"Count", "Counts"}
            assert all(node.HasField("metadata") for node in shown)
