"""Nodes and namespaces that come, go and come back while the server runs, or that mean something else afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asyncua import ua

from mxgw.convert import is_ok, to_value
from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_RECONNECTED, SOURCE_HEALTH_GOOD
from mxgw_worker.backends.base import MxError

from .harness import Sink, running_backend
from .plant import Plant

SOON = {"retry_failed_s": 0.1, "reconnect_max_delay_s": 0.1}


def good(sink: Sink, item: int) -> list[object]:
    return [change.value for change in sink.changes(item) if change.quality == 192]


@contextmanager
def late_namespace(plant: Plant) -> Iterator[None]:
    plant.namespaces("urn:plant", "urn:late")
    plant.add("ns=3;s=L", "L", 5.0)
    try:
        yield
    finally:
        plant.delete("ns=3;s=L")
        plant.namespaces("urn:plant")


@pytest.mark.asyncio
async def test_a_namespace_that_the_server_gets_later_brings_its_items_to_life(plant: Plant) -> None:
    async with running_backend(plant.url, SOON) as (backend, sink):
        handle = await backend.register("late")
        references = ["nsu=urn:late;s=L", "nsu=urn%3Alate;s=L", "ns=3;s=L", "/Objects/L", "/Objects/3:L"]
        items = [await backend.add_item(handle, reference) for reference in references]
        for item in items:
            await backend.advise(handle, item)
        for item in items:
            assert (await sink.first(item)).statuses[0].raw_detail == 6
        with late_namespace(plant):
            await sink.until(lambda: all(good(sink, item) == [5.0] for item in items))

            assert all(len(sink.changes(item)) == 2 for item in items)  # the failure was told once


@pytest.mark.asyncio
async def test_a_write_and_a_browse_find_a_later_namespace_at_once(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("late")
        item = await backend.add_item(handle, "nsu=urn:late;s=L")
        await backend.write(handle, item, to_value(6.0), 0)
        assert (await sink.written(item)).statuses[0].raw_detail == 6
        with pytest.raises(MxError, match="no node"):
            await backend.browse("nsu=urn:late;s=L")
        with late_namespace(plant):
            await backend.write(handle, item, to_value(6.0), 0)

            assert is_ok((await sink.written(item, 2)).statuses)
            assert plant.value("ns=3;s=L") == 6.0
            assert await backend.browse("nsu=urn:late;s=L") == []


@pytest.mark.asyncio
async def test_a_node_that_vanishes_is_told_once_and_lives_again_when_it_comes_back(plant: Plant) -> None:
    plant.add("ns=2;s=V", "V", 1.0)
    still_gone, deleted = asyncio.Event(), asyncio.Event()
    async with running_backend(plant.url, SOON) as (backend, sink):
        handle = await backend.register("vanish")
        items = [await backend.add_item(handle, reference) for reference in ("ns=2;s=V", "/Objects/2:V")]
        other = await backend.add_item(handle, "ns=2;s=T1")
        for item in (*items, other):
            await backend.advise(handle, item)
        await sink.until(lambda: all(good(sink, item) == [1.0] for item in items))
        plant.vanish("ns=2;s=V")
        await sink.until(lambda: all(len(sink.changes(item)) == 2 for item in items))
        # The items are tried again and again.
        with plant.service("create_monitored_items", _counted(3, still_gone)):
            await still_gone.wait()
        plant.delete("ns=2;s=V")
        with plant.service("create_monitored_items", _counted(3, deleted)):
            await deleted.wait()
        for item in items:
            gone = sink.changes(item)[1].statuses[0]

            assert (gone.success, gone.raw_category, gone.raw_detail) == (0, 4, 6)

        plant.add("ns=2;s=V", "V", 2.0)
        await sink.until(lambda: all(good(sink, item) == [1.0, 2.0] for item in items))
        plant.set_value("ns=2;s=V", ua.Variant(3.0))
        await sink.until(lambda: all(good(sink, item) == [1.0, 2.0, 3.0] for item in items))

        assert [len(sink.changes(item)) for item in items] == [4, 4]
        assert len(sink.changes(other)) == 1
        assert sink.gaps() == []
        await backend.un_advise(handle, items[0])
    plant.delete("ns=2;s=V")


@pytest.mark.asyncio
async def test_a_node_whose_server_only_says_that_it_is_gone_reports_at_once_when_it_is_good_again(
    plant: Plant,
) -> None:
    """Servers pass on what the devices behind them say. Nothing waits for the next retry then."""
    async with running_backend(plant.url, {"retry_failed_s": 3600}) as (backend, sink):
        handle = await backend.register("passed on")
        item = await backend.add_item(handle, "ns=2;s=T2")
        await backend.advise(handle, item)
        await sink.first(item)
        for number in (21.0, 22.0):
            plant.vanish("ns=2;s=T2")
            await sink.until(lambda: sink.changes(item)[-1].quality == 4)
            plant.set_value("ns=2;s=T2", ua.Variant(number))
            await sink.until(lambda number=number: sink.changes(item)[-1].value == number)  # type: ignore[misc]

        assert len(sink.changes(item)) == 5
        # It is good, so it is not created anew at the next retry.
        assert [subscription.gone for subscription in backend._subscriptions._by_handle.values()] == [{}]


@pytest.mark.asyncio
async def test_a_write_follows_a_path_to_the_node_that_is_there_now(plant: Plant) -> None:
    plant.add("ns=2;s=Old", "Moved", 1.0)
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("moved")
        path, by_id = await backend.add_item(handle, "/Objects/2:Moved"), await backend.add_item(handle, "ns=2;s=Old")
        for item in (path, by_id):
            await backend.write(handle, item, to_value(2.0), 0)
            assert is_ok((await sink.written(item)).statuses)
        plant.delete("ns=2;s=Old")
        plant.add("ns=2;s=New", "Moved", 7, ua.VariantType.Int32)  # of another type as well
        for item in (path, by_id):
            await backend.write(handle, item, to_value(3.0), 0)

        assert is_ok((await sink.written(path, 2)).statuses)
        assert plant.value("ns=2;s=New") == 3
        assert (await sink.written(by_id, 2)).statuses[0].raw_detail == 6
    plant.delete("ns=2;s=New")


@pytest.mark.asyncio
async def test_a_write_is_converted_to_the_type_that_the_node_has_now(plant: Plant) -> None:
    plant.add("ns=2;s=Typed", "Typed", 1, ua.VariantType.Int32)
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("types")
        path, by_id = await backend.add_item(handle, "/Objects/2:Typed"), await backend.add_item(handle, "ns=2;s=Typed")
        for item in (path, by_id):
            await backend.write(handle, item, to_value("12"), 0)
            assert is_ok((await sink.written(item)).statuses)
        plant.delete("ns=2;s=Typed")
        plant.add("ns=2;s=Typed", "Typed", "text")
        for item, text in ((path, "12.50"), (by_id, "13.50")):
            await backend.write(handle, item, to_value(text), 0)

            assert is_ok((await sink.written(item, 2)).statuses)
            assert plant.value("ns=2;s=Typed") == text
    plant.delete("ns=2;s=Typed")


@pytest.mark.asyncio
async def test_after_a_reconnect_to_other_namespace_indexes_all_that_was_resolved_is_resolved_anew(
    plant: Plant,
) -> None:
    """The server keeps the session, but calls the namespaces by other numbers: as bad as it can get."""
    plant.namespaces("urn:plant", "urn:other")
    plant.add("ns=3;s=T3", "T3", 33.0)
    try:
        async with running_backend(plant.url, SOON) as (backend, sink):
            handle = await backend.register("numbers")
            names = ("written", "un-advised", "advised", "failed")
            reference = "nsu=urn:other;s=T3"
            written, un_advised, advised, failed = [
                await backend.add_item(handle, reference if name != "failed" else "nsu=urn:other;s=T4")
                for name in names
            ]
            for item in (un_advised, advised, failed):
                await backend.advise(handle, item)
                await sink.first(item)
            await backend.un_advise(handle, un_advised)
            for item in (written, un_advised, advised):
                await backend.write(handle, item, to_value(34.0), 0)
                assert is_ok((await sink.written(item)).statuses)
            plant.namespaces("urn:other", "urn:plant")
            plant.disconnect()
            await sink.until(lambda: sink.healths().count(SOURCE_HEALTH_GOOD) == 2)
            await sink.until(lambda: good(sink, advised)[-1:] == [3.0] or len(good(sink, advised)) > 2)
            for number, item in enumerate((written, un_advised, advised)):
                await backend.write(handle, item, to_value(300.0 + number), 0)

                assert is_ok((await sink.written(item, 2)).statuses)
                assert (plant.value("ns=3;s=T3"), plant.value("ns=2;s=T3")) == (34.0, 300.0 + number)

            assert [gap.reason for gap in sink.gaps()] == [GAP_REASON_SOURCE_RECONNECTED]
            # Now this namespace has T4.
            await sink.until(lambda: good(sink, failed) == [4.0])
    finally:
        plant.delete("ns=3;s=T3")
        plant.namespaces("urn:plant")
        plant.set_value("ns=2;s=T3", ua.Variant(3.0))


@pytest.mark.asyncio
async def test_namespaces_numbered_anew_on_a_live_connection_are_a_lost_connection(plant: Plant) -> None:
    plant.namespaces("urn:plant", "urn:other")
    try:
        async with running_backend(plant.url, SOON) as (backend, sink):
            # Nothing is advised, so only this write finds out.
            handle = await backend.register("numbers")
            plant.namespaces("urn:other", "urn:plant")
            unknown = await backend.add_item(handle, "nsu=urn:nobody;s=T5")
            await backend.write(handle, unknown, to_value(1.0), 0)
            lost = (await sink.written(unknown)).statuses[0]

            assert (lost.success, lost.raw_category) == (0, 3)

            await sink.until(lambda: sink.healths().count(SOURCE_HEALTH_GOOD) == 2)
            item = await backend.add_item(handle, "nsu=urn:other;s=T5")
            await backend.advise(handle, item)

            assert (await sink.first(item)).value == 5.0
    finally:
        plant.namespaces("urn:plant")


def _counted(count: int, done: asyncio.Event) -> Callable[..., Awaitable[Any]]:
    """Answer as the server does, and set `done` at the request with this number."""
    loop, calls = asyncio.get_running_loop(), 0

    async def answer(original: Callable[..., Awaitable[Any]], *parameters: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            loop.call_soon_threadsafe(done.set)
        return await original(*parameters)

    return answer
