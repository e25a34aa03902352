"""What a large request holds is known before it is decoded."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from support.turns import counted_turns

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.values_pb2 import (
    BooleanArray,
    DoubleArray,
    FloatArray,
    IntegerArray,
    MxArray,
    MxValue,
    StringArray,
    TimeArray,
    ValueArray,
)
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import ENTRIES_AT_ONCE
from mxgw_core.config.models import LimitSettings
from mxgw_core.rpc.validation import count_parts

ITEMS = LimitSettings().items_per_call


def counted(data: bytes, items: int = ITEMS) -> int:
    return asyncio.run(count_parts(cs.InvokeRequest, data, items))


def invoke(**command: object) -> bytes:
    return cs.InvokeRequest(session_id="s", command=c.MxCommand(**command)).SerializeToString()  # type: ignore[arg-type]


def write(value: MxValue) -> bytes:
    return invoke(write=c.WriteCommand(server_handle=1, item_handle=300, value=value))


def test_messages_and_texts_are_counted_at_any_depth() -> None:
    values = ValueArray(elements=[MxValue(string="a"), MxValue(double=2.5), MxValue(time=Timestamp(seconds=1 << 40))])
    data = write(MxValue(array=MxArray(values=values, dimensions=[3, 300])))

    # session_id, command, write, value, array, values, three elements, a text, a time, and the packed dimensions.
    assert counted(data) == 12


def test_the_largest_bulk_calls_that_the_limits_allow_pass() -> None:
    now = Timestamp(seconds=1_700_000_000, nanos=999)
    value = MxValue(time=now, data_type=8, raw_data_type=8, variant_type=7)  # type: ignore[arg-type]
    entry = c.BulkWrite(item_handle=1 << 30, value=value, time=now, user_id=9)
    item = c.ItemReference(item_definition="a", item_context="b")

    assert counted(invoke(write_bulk=c.WriteBulkCommand(server_handle=1, writes=[entry] * ITEMS))) > 4 * ITEMS
    assert counted(invoke(subscribe_bulk=c.SubscribeBulkCommand(server_handle=1, items=[item] * ITEMS))) > 3 * ITEMS


@pytest.mark.parametrize(
    "array",
    [
        MxArray(times=TimeArray(elements=[Timestamp()] * (5 * ITEMS + 100))),
        MxArray(strings=StringArray(elements=[""] * (5 * ITEMS + 100))),
        MxArray(values=ValueArray(elements=[MxValue()] * (5 * ITEMS + 100))),
    ],
    ids=lambda array: str(array.WhichOneof("elements")),
)
def test_more_than_the_limit_is_refused_in_words_whatever_it_is(array: MxArray) -> None:
    with pytest.raises(InvalidRequest, match=r"more than 100100 messages and texts.*limits\.items_per_call") as refused:
        counted(write(MxValue(array=array)))

    assert refused.value.metadata == {"limit": "100100", "setting": "limits.items_per_call"}


@pytest.mark.parametrize(
    ("array", "fits"),
    [
        (MxArray(integers=IntegerArray(elements=[1] * (1_000_000 + ITEMS))), True),
        (MxArray(integers=IntegerArray(elements=[1] * (1_000_000 + ITEMS + 1))), False),
        (MxArray(integers=IntegerArray(elements=[1 << 30] * (1_000_000 + ITEMS))), True),  # 5 bytes each
        (MxArray(booleans=BooleanArray(elements=[True] * (1_000_000 + ITEMS + 1))), False),
        (MxArray(doubles=DoubleArray(elements=[2.5] * (1_000_000 + ITEMS))), True),
        (MxArray(doubles=DoubleArray(elements=[2.5] * (1_000_000 + ITEMS + 1))), False),
        (MxArray(floats=FloatArray(elements=[2.5] * (1_000_000 + ITEMS))), True),
        (MxArray(floats=FloatArray(elements=[2.5] * (1_000_000 + ITEMS + 1))), False),
    ],
    ids=lambda value: str(value.WhichOneof("elements")) if isinstance(value, MxArray) else str(value),
)
def test_a_million_numbers_may_be_in_arrays_and_a_handle_for_each_item(array: MxArray, *, fits: bool) -> None:
    data = write(MxValue(array=array))

    if fits:
        assert counted(data)
        return
    with pytest.raises(InvalidRequest, match="more than 1020000 numbers in arrays"):
        counted(data)


def test_more_fields_than_any_request_has_are_refused_though_they_are_unknown() -> None:
    with pytest.raises(InvalidRequest, match="more than 650 fields"):
        counted(b"\x98\x06\x01" * 651, items=10)


def test_a_long_request_is_looked_at_in_slices() -> None:
    async def look() -> int:
        async with counted_turns() as turns:
            await count_parts(cs.InvokeRequest, write(MxValue(array=times)), ITEMS)
        return turns.taken

    times = MxArray(times=TimeArray(elements=[Timestamp()] * 50_000))

    assert asyncio.run(look()) >= 50_000 // ENTRIES_AT_ONCE


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",  # no length
        b"\x12\x05\x0a",  # shorter than its length
        b"\x12\x02\x12\x05",  # a message that ends behind the one around it
        b"\x0b\x0c",  # a group
        b"\x08" + b"\xff" * 11,  # a number without an end
        b"\x09\x00",  # half a number
    ],
)
def test_what_is_no_message_is_refused_as_when_it_is_decoded(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"no readable mxgw\.v1\.InvokeRequest"):
        counted(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    try:
        parts = counted(data)
    except InvalidRequest:
        return

    assert parts <= len(data)
