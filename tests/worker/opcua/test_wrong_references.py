"""References that mean nothing, everywhere one can be given: each fails alone, and late, and all others go on."""

from __future__ import annotations

import pytest

from mxgw.convert import is_ok, to_value
from mxgw_worker.backends.base import MxError

from .harness import running_backend
from .plant import Plant

WRONG = [
    "ns=70000;i=1",
    "ns=65536;s=T1",
    "ns=99999999999999999999999;i=1",
    "ns=" + "9" * 4000 + ";i=1",
    "ns=-1;i=1",
    "i=4294967296",
    "i=99999999999",
    "ns=2;i=-1",
    "ns=2;i=1_0",
    "ns=2;i=+1",
    "ns=2;i= 1",
    "ns=2;i=\u0661",
    "ns=2;i=" + "1" * 4000,
    "ns=2;i=",
    "ns=2;g=not-a-guid",
    "ns=2;g={72962B91-FA75-4AE6-8D28-B404DC7DAF63}",
    "ns=2;g=72962B91FA754AE68D28B404DC7DAF63",
    "ns=2;g=1_962B91-FA75-4AE6-8D28-B404DC7DAF63",
    "ns=2;b=%%%",
    "ns=2;b=YQ",
    "ns=2;b=0xAB=",
    "ns=2;b=ä",
    "ns=2;s=",
    "ns=2;s=" + "x" * 4097,
    "ns=2;s=T1 ",
    "ns=2;s=\ud800",
    "ns=2;s=\udcff",
    "svr=1;ns=2;s=T1",
    "svr=99999999999999999999;i=2258",
    "svu=urn:elsewhere;ns=2;s=T1",
    "nsu=;s=T1",
    "nsu=urn:nobody;s=T1",
    "nsu=%FF;s=T1",
    "nsu=urn%3aplant%;s=T1",
    "/Objects/99999:Foo",
    "/Objects/4294967296:Foo",
    "/Objects/2:",
    "/Objects//2:T1",
    "/Objects/2:T1/",
    "/Objects/2:T1&",
    "/Objects/2:T1\udcff",
    "/0:Objects/2:T1\ud800",
    "/Objects/2:Nowhere",
    "/Objects/" + "a/" * 64 + "a",
    "99999:Foo",
    "0:T1",
]


@pytest.mark.asyncio
async def test_wrong_references_fail_alone_when_advised_together(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("advise")
        items = {}
        for place, reference in enumerate(WRONG):
            items[await backend.add_item(handle, reference)] = reference
            right = await backend.add_item(handle, f"ns=2;s=T{place % 8}")
            items[right] = ""
        for item in items:
            await backend.advise(handle, item)
        for item, wrong in items.items():
            change = await sink.first(item)
            first = change.statuses[0]

            if wrong:
                assert (change.quality, first.success, first.raw_category, first.raw_detail) == (4, 0, 4, 6), wrong
            else:
                assert is_ok(change.statuses)


@pytest.mark.asyncio
async def test_wrong_references_and_contexts_fail_alone_when_written_together(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("write")
        wrong = [await backend.add_item(handle, reference) for reference in WRONG]
        wrong += [await backend.add_item2(handle, "X", reference) for reference in WRONG]
        right = [await backend.add_item(handle, f"ns=2;s=T{number}") for number in range(8)]
        for item in (*right[:4], *wrong, *right[4:]):
            await backend.write(handle, item, to_value(2.0), 0)
        for item in wrong:
            first = (await sink.written(item)).statuses[0]

            assert (first.success, first.raw_category, first.raw_detail) == (0, 4, 6)
        for item in right:
            assert is_ok((await sink.written(item)).statuses)


@pytest.mark.parametrize("context", ["ns=70000;i=1", "svr=1;i=85", "/99999:Objects", "/Objects/\udcff"])
@pytest.mark.asyncio
async def test_a_wrong_context_fails_its_item_alone(plant: Plant, context: str) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("context")
        wrong, right = await backend.add_item2(handle, "T1", context), await backend.add_item2(handle, "T1", "i=85")
        for item in (wrong, right):
            await backend.advise(handle, item)

        assert (await sink.first(wrong)).statuses[0].raw_detail == 6
        assert is_ok((await sink.first(right)).statuses)


@pytest.mark.asyncio
async def test_a_wrong_parent_is_refused_and_the_next_browse_works(plant: Plant) -> None:
    async with running_backend(plant.url) as (backend, _):
        for reference in WRONG:
            with pytest.raises(MxError, match="no node"):
                await backend.browse(reference)
        with pytest.raises(MxError, match="no node"):
            await backend.browse("/" + "x" * 1_000_000)

        assert len(await backend.browse("")) > 8


@pytest.mark.parametrize(
    ("node", "text", "details"),
    [
        ("N", "ns=70000;i=1", (19, 1004)),
        ("N", "i=4294967296", (19, 1004)),
        ("Q", "70000:a", (19, 1004)),
    ],
)
@pytest.mark.asyncio
async def test_a_value_that_names_no_node_or_name_is_refused_alone(
    plant: Plant, node: str, text: str, details: tuple[int, ...]
) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("value")
        before, wrong, after = [await backend.add_item(handle, f"ns=2;s={name}") for name in ("T1", node, "T2")]
        await backend.write(handle, before, to_value(3.0), 0)
        await backend.write(handle, wrong, to_value(text), 0)
        await backend.write(handle, after, to_value(3.0), 0)
        first = (await sink.written(wrong)).statuses[0]

        assert first.success == 0
        assert first.raw_detail in details
        assert is_ok((await sink.written(before)).statuses)
        assert is_ok((await sink.written(after)).statuses)


@pytest.mark.parametrize("time_ns", [-12_000_000_000_000_000_000, 10**21, -(10**21), 253_402_300_799_500_000_000])
@pytest.mark.asyncio
async def test_a_source_time_that_opc_ua_cannot_express_is_refused_alone(plant: Plant, time_ns: int) -> None:
    async with running_backend(plant.url) as (backend, sink):
        handle = await backend.register("time")
        wrong, right = await backend.add_item(handle, "ns=2;s=T1"), await backend.add_item(handle, "ns=2;s=T2")
        await backend.write2(handle, wrong, to_value(1.0), time_ns, 0)
        await backend.write(handle, right, to_value(1.0), 0)
        first = (await sink.written(wrong)).statuses[0]

        assert (first.success, first.raw_detail) == (0, 1004)
        assert is_ok((await sink.written(right)).statuses)
