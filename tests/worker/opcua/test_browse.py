"""Browse of a real server."""

from __future__ import annotations

import pytest

from mxgw.v1 import values_pb2 as v
from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_AREA, BROWSE_NODE_KIND_ATTRIBUTE, BROWSE_NODE_KIND_OBJECT
from mxgw_worker.backends.base import Browsable, MxError

from .harness import running_backend


@pytest.mark.asyncio
async def test_the_tree_can_be_walked_from_the_top_to_a_reference_that_works(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        assert isinstance(backend, Browsable)
        top = {node.name: node for node in await backend.browse("")}
        assert (top["Steel"].kind, top["Steel"].has_children) == (BROWSE_NODE_KIND_AREA, True)
        assert top["Control"].kind == BROWSE_NODE_KIND_OBJECT
        leaves = {node.name: node for node in await backend.browse(top["Steel"].path)}
        usage = leaves["Usage_kWh"]

        assert (usage.kind, usage.data_type, usage.has_children) == (
            BROWSE_NODE_KIND_ATTRIBUTE,
            v.MX_DATA_TYPE_DOUBLE,
            False,
        )
        assert "Usage_kWh" in usage.description
        server = await backend.register("browse")
        for reference in (usage.reference, usage.path):
            item = await backend.add_item(server, reference)
            await backend.advise(server, item)
            assert (await sink.first(item)).quality == 192


@pytest.mark.asyncio
async def test_types_arrays_and_writability_are_told(demo: str) -> None:
    async with running_backend(demo) as (backend, _):
        nodes = {node.name: node for node in await backend.browse("/Objects/2:Writable")}

        assert nodes["Double"].writeable
        assert not nodes["ReadOnly"].writeable
        assert (nodes["DoubleArray"].is_array, nodes["Matrix"].is_array, nodes["Double"].is_array) == (
            True,
            True,
            False,
        )
        assert nodes["Mode"].data_type == v.MX_DATA_TYPE_INTEGER  # an enumeration of the server's own
        assert nodes["DateTime"].data_type == v.MX_DATA_TYPE_TIME
        assert nodes["Guid"].data_type == v.MX_DATA_TYPE_UNSPECIFIED


@pytest.mark.asyncio
async def test_a_large_folder_comes_whole_in_few_requests(demo: str) -> None:
    async with running_backend(demo) as (backend, _):
        session = backend._connection.session
        requests = 0
        send = session._send_request

        async def count(*arguments: object, **named: object) -> object:
            nonlocal requests
            requests += 1
            return await send(*arguments, **named)

        session._send_request = count
        nodes = await backend.browse("i=7617")  # the standard's own largest: descriptions of its types

        assert len({node.path for node in nodes}) == len(nodes) > 150
        assert requests < 20


@pytest.mark.asyncio
async def test_below_a_node_id_the_children_can_be_browsed_further(demo: str) -> None:
    async with running_backend(demo) as (backend, _):
        root = {node.name: node for node in await backend.browse("/")}
        assert {"Objects", "Types", "Views"} <= set(root)
        server = {node.name: node for node in await backend.browse("i=2253")}
        inner = await backend.browse(server["ServerStatus"].path)

        assert "State" in {node.name for node in inner}


@pytest.mark.parametrize("parent", ["/Objects/Nowhere", "ns=2;s=Nowhere", "ns=2;i=x", "a//b"])
@pytest.mark.asyncio
async def test_a_parent_that_does_not_exist_is_an_error_naming_it(demo: str, parent: str) -> None:
    async with running_backend(demo) as (backend, _):
        with pytest.raises(MxError, match="no node") as refused:
            await backend.browse(parent)

        assert parent in refused.value.message
