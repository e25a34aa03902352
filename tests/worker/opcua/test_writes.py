"""Writes to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from mxgw.convert import PyValue, is_ok, to_value
from mxgw_worker.backends.base import E_NOTIMPL, MxError
from mxgw_worker.backends.opcua.items import WriteJob

from .harness import NS, demo_process, endpoint_of, running_backend


@pytest.fixture(scope="module")
def own_demo() -> Iterator[str]:
    """The endpoint of a server of this file's own: what is written here, no other test reads."""
    with demo_process() as process:
        yield endpoint_of(process)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Double", 3, 3.0),
        ("Float", 1, 1.0),
        ("Int32", 2.5, 2),
        ("UInt16", "65535", 65535),
        ("UInt64", str(2**64 - 2), str(2**64 - 2)),
        ("Boolean", 1, True),
        ("String", 17, "17"),
        ("LocalizedText", "Guten Tag", "Guten Tag"),
        ("Mode", 2, 2),
        ("Number", 8, 8),
        ("DoubleArray", [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]),
        ("StringArray", [], []),
        ("ByteString", b"\x01", b"\x01"),
        ("XmlElement", "<b/>", "<b/>"),
        ("StatusCode", 0x808C0000, "BadSensorFailure (0x808C0000)"),
        ("Variants", [1, 2.5, "a"], [1, 2.5, "a"]),
    ],
)
@pytest.mark.asyncio
async def test_a_write_takes_the_nodes_type_and_comes_back_as_a_change(
    demo: str, name: str, value: PyValue, expected: object
) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("write")
        item = await backend.add_item(server, f"{NS}Writable.{name}")
        await backend.advise(server, item)
        before = (await sink.first(item)).value
        await backend.write(server, item, to_value(value), 0)

        assert is_ok((await sink.written(item)).statuses)
        if before != expected:
            await sink.until(lambda: sink.changes(item)[-1].value == expected)


@pytest.mark.asyncio
async def test_a_matrix_keeps_its_dimensions(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("write")
        item = await backend.add_item(server, NS + "Writable.Matrix")
        await backend.advise(server, item)
        await sink.first(item)
        value = to_value([6, 5, 4, 3, 2, 1])
        value.array.dimensions.extend([2, 3])
        await backend.write(server, item, value, 0)
        assert is_ok((await sink.written(item)).statuses)
        await sink.until(lambda: sink.changes(item)[-1].value == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])

        assert list(sink.changes(item)[-1].message.array.dimensions) == [2, 3]


@pytest.mark.parametrize(
    ("name", "value", "category", "detail"),
    [
        ("Writable.ReadOnly", 1.0, 6, 1008),
        ("Writable.Byte", 256, 5, 1004),
        ("Writable.Double", "abc", 5, 19),
        ("Writable.Double", [1.0], 5, 14),
        ("Writable.DoubleArray", 1.0, 5, 14),
        ("Nowhere", 1.0, 4, 6),
        ("Steel", 1.0, 4, 1001),
    ],
)
@pytest.mark.asyncio
async def test_a_refused_write_completes_with_its_reason(
    demo: str, name: str, value: PyValue, category: int, detail: int
) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("refused")
        item = await backend.add_item(server, NS + name)
        await backend.write(server, item, to_value(value), 0)
        first = (await sink.written(item)).statuses[0]

        assert (first.success, first.raw_category, first.raw_detail) == (0, category, detail)


@pytest.mark.asyncio
async def test_writes_of_one_item_keep_their_order_and_each_gets_its_completion(demo: str) -> None:
    async with running_backend(demo, {"trigger": "status_value_timestamp"}) as (backend, sink):
        server = await backend.register("order")
        item = await backend.add_item(server, "/Objects/Writable/Int32")
        await backend.advise(server, item)
        await sink.first(item)
        for number in range(200):
            await backend.write(server, item, to_value(number), 0)
        await sink.written(item, 200)
        await sink.until(lambda: sink.changes(item)[-1].value == 199)
        seen = [change.value for change in sink.changes(item)[1:]]

        assert seen == list(range(200))
        assert all(is_ok(complete.statuses) for complete in sink.completions("write", item))


@pytest.mark.asyncio
async def test_writes_of_many_items_share_requests_and_one_refusal_stays_its_own(demo: str) -> None:
    async with running_backend(demo, {"max_items_per_call": 2}) as (backend, sink):
        server = await backend.register("bulk")
        names = ("Double", "ReadOnly", "Int32", "String", "Float")
        items = [await backend.add_item(server, f"{NS}Writable.{name}") for name in names]
        for item in items:
            await backend.write(server, item, to_value(1), 0)
        results = [is_ok((await sink.written(item)).statuses) for item in items]

        assert results == [True, False, True, True, True]


@pytest.mark.asyncio
async def test_a_write_with_a_source_time_arrives_with_it(demo: str) -> None:
    async with running_backend(demo, {"trigger": "status_value_timestamp"}) as (backend, sink):
        server = await backend.register("time")
        item = await backend.add_item(server, NS + "Writable.Double")
        await backend.advise(server, item)
        await sink.first(item)
        moment_ns = 1_515_974_400_123_456_000
        await backend.write2(server, item, to_value(77.5), moment_ns, 0)
        assert is_ok((await sink.written(item)).statuses)
        await sink.until(lambda: sink.changes(item)[-1].value == 77.5)

        assert sink.changes(item)[-1].time_ns == moment_ns


@pytest.mark.asyncio
async def test_secured_writes_are_refused_rather_than_pretended(demo: str) -> None:
    async with running_backend(demo) as (backend, _):
        server = await backend.register("secured")
        item = await backend.add_item(server, NS + "Writable.Double")
        with pytest.raises(MxError) as refused:
            await backend.write_secured(server, item, 1, 2, to_value(1.0))
        assert refused.value.hresult == E_NOTIMPL
        with pytest.raises(MxError) as refused:
            await backend.write_secured2(server, item, 1, 2, to_value(1.0), None)

        assert refused.value.hresult == E_NOTIMPL


@pytest.mark.asyncio
async def test_a_second_write_of_an_item_waits_for_the_first_and_holds_up_no_other(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("slow")
        slow = await backend.add_item(server, NS + "Writable.Int32")
        other = await backend.add_item(server, NS + "Writable.Double")
        session = backend._connection.session
        send, held, answer, sent = session.write, asyncio.Event(), asyncio.Event(), 0

        async def hold_the_first(parameters: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == 1:
                held.set()
                await answer.wait()
            return await send(parameters)

        session.write = hold_the_first
        await backend.write(server, slow, to_value(1), 0)
        await held.wait()
        await backend.write(server, slow, to_value(2), 0)
        for number in range(1, 4):
            await backend.write(server, other, to_value(float(number)), 0)
            await sink.written(other, number)

        assert sent == 4
        assert sink.completions("write", slow) == []
        answer.set()
        await sink.written(slow, 2)


@pytest.mark.asyncio
async def test_a_write_that_is_submitted_while_a_batch_is_about_to_start_waits_its_turn(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("turn")
        handle = await backend.add_item(server, NS + "Writable.Int32")
        item, writer = backend._registrations[server].items[handle], backend._writer
        session = backend._connection.session
        send, waiting, most = session.write, 0, 0

        async def count(parameters: Any) -> Any:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            answers = await send(parameters)
            waiting -= 1
            return answers

        session.write = count
        item.writes.extend([WriteJob(to_value(1)), WriteJob(to_value(2))])
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                await writer._slots.acquire()
                tasks.create_task(writer._send([item]))
        await sink.written(handle, 2)

        assert most == 1
