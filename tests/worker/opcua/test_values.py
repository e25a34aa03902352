"""What a real server's values look like as data changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from mxgw.convert import is_ok
from mxgw.v1 import values_pb2 as v
from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW

from .harness import NS, Gap, demo_process, endpoint_of, running_backend
from .node_server import node_process

EXPECTED: dict[str, tuple[str, object, int]] = {
    "Boolean": ("boolean", False, 1),
    "SByte": ("integer", -1, 2),
    "Byte": ("integer", 1, 2),
    "Int16": ("integer", -16, 2),
    "UInt16": ("integer", 16, 2),
    "Int32": ("integer", -32, 2),
    "UInt32": ("long", 4_000_000_000, 0),
    "Int64": ("long", -(2**40), 0),
    "UInt64": ("string", str(2**64 - 1), 0),
    "Float": ("float", 0.5, 3),
    "Double": ("double", 0.25, 4),
    "String": ("string", "text", 5),
    "DateTime": ("time", datetime(2018, 1, 15, 12, 30, tzinfo=UTC), 6),
    "ByteString": ("opaque", b"\x00\xff", 0),
    "Guid": ("string", "00000000-0000-0000-0000-000000000001", 0),
    "LocalizedText": ("string", "Text", 0),
    "QualifiedName": ("string", "2:Name", 0),
    "NodeId": ("string", "ns=2;s=Target", 0),
    "StatusCode": ("string", "BadInvalidArgument (0x80AB1234)", 0),
    "XmlElement": ("string", "<a>1</a>", 0),
    "Range": ("string", '{"Low": "NaN", "High": 1.0}', 0),
    "Variants": ("array", [1, "a", [0.5]], 0),
    "Mode": ("integer", 1, 2),
    "Number": ("integer", 7, 2),
    "BooleanArray": ("array", [True, False, True], 1),
    "Int32Array": ("array", [1, 2, 3], 2),
    "UInt64Array": ("array", ["1", str(2**64 - 1)], 0),
    "DoubleArray": ("array", [0.5, 1.5, 2.5], 4),
    "StringArray": ("array", ["a", "b"], 5),
    "DateTimeArray": ("array", [datetime(2018, 1, 15, tzinfo=UTC), datetime(2018, 1, 16, tzinfo=UTC)], 6),
    "Matrix": ("array", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 4),
    "EmptyArray": ("array", [], 4),
}


@pytest.fixture(scope="module")
def own_demo() -> Iterator[str]:
    """The endpoint of a demo server to which nobody has written yet."""
    with demo_process() as process:
        yield endpoint_of(process)


@pytest.fixture(scope="module")
def other_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same by node-opcua."""
    with node_process(tmp_path_factory.mktemp("node-opcua")) as endpoint:
        yield endpoint


@pytest.mark.asyncio
async def test_every_type_arrives_as_its_own_kind(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("values")
        items = {name: await backend.add_item(server, f"{NS}Writable.{name}") for name in EXPECTED}
        for item in items.values():
            await backend.advise(server, item)
        for name, (kind, value, data_type) in EXPECTED.items():
            change = await sink.first(items[name])

            assert (change.message.WhichOneof("kind"), change.value) == (kind, value), name
            assert change.message.raw_data_type == data_type, name
            assert (change.quality, is_ok(change.statuses), change.time_ns is not None) == (192, True, True), name
        matrix = sink.changes(items["Matrix"])[0].message.array

        assert list(matrix.dimensions) == [2, 3]
        assert sink.changes(items["EmptyArray"])[0].message.array.WhichOneof("elements") == "doubles"


@pytest.mark.asyncio
async def test_qualities_arrive_with_their_raw_code_and_an_overflow_bit_is_a_gap(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("qualities")
        items = {
            name: await backend.add_item(server, f"{NS}Writable.{name}")
            for name in ("BadSensor", "Uncertain", "Forced", "Overflow")
        }
        for item in items.values():
            await backend.advise(server, item)
        bad, uncertain, forced, overflowed = [await sink.first(item) for item in items.values()]

        assert (bad.quality, bad.statuses[0].success) == (16, -1)
        assert bad.value in (None, 1.5)  # Some servers send the value along.
        assert bad.statuses[1].raw_detail % 2**32 == 0x80430000 or bad.statuses[1].raw_detail % 2**32 == 0x808C0000
        assert (uncertain.quality, uncertain.value) == (88, 1.5)
        assert forced.quality == 216
        assert overflowed.quality == 192
        assert [gap.reason for gap in sink.gaps()] == [GAP_REASON_SOURCE_OVERFLOW]
        assert isinstance(sink.log[sink.log.index(overflowed) - 1], Gap)


@pytest.mark.asyncio
async def test_a_structure_is_readable_text(demo: str) -> None:
    async with running_backend(demo) as (backend, sink):
        server = await backend.register("structure")
        item = await backend.add_item(server, "i=2256")  # ServerStatus
        await backend.advise(server, item)
        change = await sink.first(item)

        assert change.message.WhichOneof("kind") == "string"
        assert '"State"' in change.message.string
        assert change.message.data_type == v.MX_DATA_TYPE_UNSPECIFIED
