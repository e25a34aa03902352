"""Encoded events are handled without parsing them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import batch, event

from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_core.events.encoding import (
    MalformedBatch,
    event_head,
    events_prefix,
    fourth_field,
    offset_after,
    record_bounds,
    record_of,
    varint,
)

texts = st.text(max_size=300)
statuses = st.lists(st.builds(MxStatus, success=st.integers(-32768, 32767)), max_size=2)
bodies = st.one_of(
    st.builds(
        lambda text, quality, status: {
            "data_change": e.DataChange(value=MxValue(string=text), raw_quality=quality, statuses=status)
        },
        texts,
        st.integers(0, 65535),
        statuses,
    ),
    st.builds(lambda n: {"write_complete": e.WriteComplete(write_id=n, missing=n % 2 == 0)}, st.integers(0, 2**63)),
    st.builds(lambda status: {"operation_complete": e.OperationComplete(statuses=status)}, statuses),
    st.builds(lambda n: {"buffered_data_change": e.BufferedDataChange(raw_qualities=[192] * n)}, st.integers(0, 100)),
)
_KINDS = {"data_change": 1, "write_complete": 2, "operation_complete": 3, "buffered_data_change": 4}


def _event(sequence: int, item_serial: int, item_handle: int, server_handle: int, body: dict[str, object]) -> e.Event:
    (name,) = body
    return e.Event(
        sequence=sequence,
        item_serial=item_serial,
        item_handle=item_handle,
        kind=_KINDS[name],
        server_handle=server_handle,
        **body,
    )


# Neither a serial nor a sequence is ever 0.
events = st.builds(
    _event,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**56 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**31 - 1),
    bodies,
)


@given(st.lists(events, max_size=8), st.integers(0, 3))
def test_bounds_and_heads_agree_with_protobuf_for_every_batch(made: list[e.Event], junk: int) -> None:
    prefix = b"\xff" * junk
    data = prefix + e.EventBatch(events=made).SerializeToString()
    bounds = list(record_bounds(data, junk))

    assert [data[body:end] for _, body, end in bounds] == [m.SerializeToString() for m in made]
    assert b"".join(data[start:end] for start, _, end in bounds) == data[junk:]

    for m, (_, body, end) in zip(made, bounds, strict=True):
        assert event_head(data, body) == (m.sequence, m.item_serial, m.kind)
        assert fourth_field(data, body, end) == m.item_handle
        assert record_of(m.SerializeToString()) == e.EventBatch(events=[m]).SerializeToString()


@given(st.integers(0, 2**64 - 1))
def test_varint_agrees_with_protobuf(number: int) -> None:
    # The field `sequence` of a Position is a uint64 after a tag of one byte.
    encoded = e.Position(sequence=number).SerializeToString()

    assert encoded == (b"\x10" + varint(number) if number else b"")


@given(st.lists(events, min_size=1, max_size=5))
def test_a_prefixed_batch_is_a_stream_frame(made: list[e.Event]) -> None:
    data = e.EventBatch(events=made).SerializeToString()
    frame = StreamEventsResponse.FromString(events_prefix(len(data)) + data)

    assert list(frame.events.events) == made


def test_concatenated_batches_are_one_batch() -> None:
    joined = e.EventBatch.FromString(batch([1, 2]) + batch([3]))

    assert [m.sequence for m in joined.events] == [1, 2, 3]


def test_offset_after_counts_records() -> None:
    data = batch([1, 2, 3])
    second = len(batch([1]))

    assert offset_after(data, 0) == 0
    assert offset_after(data, 1) == second
    assert offset_after(data, 1, second) == len(batch([1, 2]))
    assert offset_after(data, 3) == len(data)


def test_a_batch_with_fewer_events_than_its_numbers_say_is_malformed() -> None:
    with pytest.raises(MalformedBatch, match="fewer events"):
        offset_after(batch([1, 2]), 3)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"\x12\x00", "no event record", id="another tag"),
        pytest.param(b"\x0a", "no readable length", id="no length"),
        pytest.param(b"\x0a\x80\x80", "no readable length", id="half a length"),
        pytest.param(b"\x0a" + b"\x80" * 6 + b"\x00", "no readable length", id="endless length"),
        pytest.param(b"\x0a\x05abcd", "past the batch", id="too short"),
    ],
)
def test_malformed_records_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(MalformedBatch, match=match):
        list(record_bounds(data))


@given(st.binary(max_size=200))
def test_garbage_is_cut_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        bounds = list(record_bounds(data))
    except MalformedBatch:
        return

    assert b"".join(data[start:end] for start, _, end in bounds) == data


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(event(1).SerializeToString()[:19], id="cut"),
        pytest.param(e.Event(sequence=1, kind=1).SerializeToString() + bytes(20), id="no item serial"),
        pytest.param(e.Event(item_serial=1, kind=1).SerializeToString() + bytes(20), id="no sequence"),
        pytest.param(e.Event(sequence=1, item_serial=1 << 56, kind=1).SerializeToString(), id="serial too large"),
    ],
)
def test_an_event_with_another_beginning_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBatch):
        event_head(body, 0)
