"""Names and texts that are hard to write down: whatever Browse returns names its node, and nothing ends the session."""

from __future__ import annotations

import pytest
from asyncua import ua

from mxgw.convert import is_ok, to_value
from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_ATTRIBUTE, BrowseNode
from mxgw_worker.backends.opcua import OpcUaBackend

from .harness import running_backend
from .plant import ODD_NAMES, Plant


async def children(backend: OpcUaBackend, parent: str) -> dict[str, BrowseNode]:
    return {node.name: node for node in await backend.browse(parent)}


@pytest.mark.asyncio
async def test_what_browse_returns_works_unchanged_for_every_name(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("names")
        folders = await children(backend, (await children(backend, ""))["Odd"].path)

        assert set(folders) == {*ODD_NAMES, ""}

        items = {}
        for name, folder in folders.items():
            child = (await children(backend, folder.path))["X"]
            for reference in (child.path, child.reference):
                items[await backend.add_item(handle, reference)] = (name, reference)
            items[await backend.add_item2(handle, "X", folder.path)] = (name, "X below its context")
        for item in items:
            await backend.advise(handle, item)
            await backend.write(handle, item, to_value(2.0), 0)
        for item, what in items.items():
            assert (await sink.first(item)).quality == 192, what
            assert is_ok((await sink.written(item)).statuses), what


@pytest.mark.asyncio
async def test_a_relative_parent_gives_paths_that_work_too(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("relative")
        folder = (await children(backend, "2:Odd"))["R&D"]
        child = (await children(backend, folder.path))["X"]
        item = await backend.add_item2(handle, child.path, "ns=2;s=elsewhere")
        await backend.advise(handle, item)

        assert (await sink.first(item)).quality == 192


@pytest.mark.parametrize(
    "reference",
    [
        "nsu=urn:plant;s=T1",
        "nsu=urn%3Aplant;s=T1",
        "nsu=urn%3aplant;s=T1",
        "nsu=%75rn:plant;s=T1",
        "svr=0;nsu=urn:plant;s=T1",
        "svr=0;ns=2;s=T1",
        "  ns=2;s=T1",
        "ns=002;s=T1",
        "\t/Objects/2:T1",
        "/0:Objects/T1",
    ],
)
@pytest.mark.asyncio
async def test_other_ways_to_write_a_reference_name_the_same_node(plant: Plant, reference: str) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("forms")
        plant.set_value("ns=2;s=T1", ua.Variant(111.0))
        item = await backend.add_item(handle, reference)
        await backend.advise(handle, item)

        assert (await sink.first(item)).value == 111.0


@pytest.mark.asyncio
async def test_namespaces_with_reserved_characters_are_written_encoded(plant: Plant) -> None:
    uri = "urn:a;b%c%3Bd"
    plant.namespaces("urn:plant", uri, "urn:100%25")
    plant.add("ns=3;s=R", "R", 3.0)
    plant.add("ns=4;s=R", "R", 4.0)
    try:
        async with running_backend(plant.url) as (backend, sink):
            handle = await backend.register("reserved")
            for reference, value in {
                "nsu=urn:a%3Bb%25c%253Bd;s=R": 3.0,
                "nsu=urn%3Aa%3Bb%25c%253Bd;s=R": 3.0,
                "nsu=urn:100%2525;s=R": 4.0,
                "nsu=urn:100%25;s=R": 4.0,  # not encoded, and there is no namespace urn:100%
            }.items():
                item = await backend.add_item(handle, reference)
                await backend.advise(handle, item)

                assert (await sink.first(item)).value == value, reference
    finally:
        plant.delete("ns=3;s=R")
        plant.delete("ns=4;s=R")
        plant.namespaces("urn:plant")


@pytest.mark.asyncio
async def test_texts_that_are_no_utf_8_are_shown_with_a_mark_and_end_nothing(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("utf-8")
        nodes = {node.name: node for node in await backend.browse("/Objects/2:Bad")}
        broken, by_id = nodes["br\ufffdken"], nodes["Id"]

        assert broken.kind == by_id.kind == BROWSE_NODE_KIND_ATTRIBUTE
        assert broken.description == "br\ufffdken"
        # Its name cannot be written, so its id stands for it. A node whose id cannot be written has only its path.
        assert (broken.path, broken.reference) == ("ns=2;i=77", "ns=2;i=77")
        assert (by_id.path, by_id.reference) == ("/Objects/2:Bad/2:Id", "")

        item, array = await backend.add_item(handle, broken.path), await backend.add_item(handle, by_id.path)
        await backend.advise(handle, item)
        await backend.advise(handle, array)

        assert (await sink.first(item)).value == "br\ufffdken"
        assert (await sink.first(array)).value == ["br\ufffdken", "whole"]
