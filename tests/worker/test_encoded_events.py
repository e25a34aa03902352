"""Records assembled by hand are, byte for byte, what the protobuf library makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mxgw.convert import mapped_data_type, quality_class, status, timestamp_from_ns, to_value
from mxgw.v1 import events_pb2 as e
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw.worker.v1.worker_pb2 import EventBlock, WorkerEnvelope
from mxgw_worker.encoded_events import RecordEncoder, TimeEncoder, data_change_of, snapshot_item, varint
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.ipc.framing import FrameDecoder
from mxgw_worker.outbox import Block

int32 = st.integers(-(2**31), 2**31 - 1)
handles = st.integers(1, 2**31 - 1)
serials = st.integers(1, 2**56 - 1)
times = st.one_of(
    st.integers(0, 2**62),
    st.integers(0, 5_000_000_000),
    st.integers(1_700_000_000, 1_700_000_002).map(lambda second: second * 1_000_000_000),
    st.builds(
        lambda nanos: 1_700_000_000_000_000_000 + nanos,
        st.sampled_from([1, 127, 128, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 999_999_999]),
    ),
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=2000),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=300),
).map(to_value)
statuses = st.lists(
    st.builds(status, st.sampled_from([-1, 0, 1]), st.integers(-1, 8), st.integers(-1, 5), st.integers(0, 8000)),
    max_size=3,
)


def data_change(
    value: MxValue, quality: int, source_time_ns: int | None, statuses: list[MxStatus], raw_source_time: str
) -> e.DataChange:
    return e.DataChange(
        value=value,
        quality=quality_class(quality),
        raw_quality=quality,
        source_time=None if source_time_ns is None else timestamp_from_ns(source_time_ns),
        raw_source_time=raw_source_time,
        statuses=statuses,
    )


@given(
    sequence=st.integers(1, 2**64 - 1),
    item_serial=serials,
    server_handle=handles,
    item_handle=handles,
    now_ns=times,
    value=values,
    quality=st.one_of(st.integers(0, 255), int32),
    source_time_ns=st.none() | times,
    statuses=statuses,
    raw_source_time=st.text(max_size=40),
)
def test_a_data_change_has_the_bytes_of_the_library(
    sequence: int,
    item_serial: int,
    server_handle: int,
    item_handle: int,
    now_ns: int,
    value: MxValue,
    quality: int,
    source_time_ns: int | None,
    statuses: list[MxStatus],
    raw_source_time: str,
) -> None:
    encoder = RecordEncoder(lambda: now_ns)
    expected = e.Event(
        sequence=sequence,
        item_serial=item_serial,
        item_handle=item_handle,
        kind=e.EVENT_KIND_DATA_CHANGE,
        server_handle=server_handle,
        worker_time=timestamp_from_ns(now_ns),
        data_change=data_change(value, quality, source_time_ns, statuses, raw_source_time),
    )
    for _ in range(2):  # the second time the remembered parts are used
        record = encoder.data_change(
            sequence, item_serial, server_handle, item_handle, value, quality, source_time_ns, statuses, raw_source_time
        )

        assert record == e.EventBatch(events=[expected]).SerializeToString()
    assert encoder.has_failure == any(s.success == 0 for s in statuses)
    assert data_change_of(record) == expected.data_change


@given(
    sequence=st.integers(1, 2**64 - 1),
    item_serial=serials,
    server_handle=handles,
    item_handle=handles,
    now_ns=times,
    data_type=st.integers(-1, 17),
    times_ns=st.lists(times, max_size=3),
)
def test_the_other_kinds_have_the_bytes_of_the_library(
    sequence: int,
    item_serial: int,
    server_handle: int,
    item_handle: int,
    now_ns: int,
    data_type: int,
    times_ns: list[int],
) -> None:
    encoder = RecordEncoder(lambda: now_ns)
    bodies = {
        "write_complete": e.WriteComplete(write_id=7, missing=True),
        "operation_complete": e.OperationComplete(statuses=[status(0, 1, 2, 3)]),
        "buffered_data_change": e.BufferedDataChange(
            data_type=mapped_data_type(data_type),
            raw_data_type=data_type,
            source_times=[timestamp_from_ns(ns) for ns in times_ns],
        ),
    }
    for kind, (field, body) in enumerate(bodies.items(), start=e.EVENT_KIND_WRITE_COMPLETE):
        expected = e.Event(
            sequence=sequence,
            item_serial=item_serial,
            item_handle=item_handle,
            kind=e.EventKind.ValueType(kind),
            server_handle=server_handle,
            worker_time=timestamp_from_ns(now_ns),
            **{field: body},  # type: ignore[arg-type]
        )
        record = encoder.other(sequence, kind, item_serial, server_handle, item_handle, body.SerializeToString())

        assert record == e.EventBatch(events=[expected]).SerializeToString()


@given(
    sequence=st.integers(1, 2**64 - 1),
    item_serial=serials,
    server_handle=handles,
    item_handle=handles,
    now_ns=times,
    value=values,
    quality=int32,
)
def test_an_item_of_a_snapshot_is_what_the_record_says(
    sequence: int, item_serial: int, server_handle: int, item_handle: int, now_ns: int, value: MxValue, quality: int
) -> None:
    encoder = RecordEncoder(lambda: now_ns)
    record = encoder.data_change(sequence, item_serial, server_handle, item_handle, value, quality, now_ns, [], "")
    item = e.SnapshotItem(
        server_handle=server_handle,
        item_handle=item_handle,
        sequence=sequence,
        value=data_change(value, quality, now_ns, [], ""),
        item_serial=item_serial,
    )
    encoded = snapshot_item(item_serial, server_handle, item_handle, sequence, record)

    assert encoded == e.Snapshot(items=[item]).SerializeToString()


@given(sequence=st.integers(1, 2**64 - 1), serial=serials, handle=handles, kind=st.integers(1, 4))
def test_sequence_item_and_kind_stand_where_the_contract_promises(
    sequence: int, serial: int, handle: int, kind: int
) -> None:
    if kind == e.EVENT_KIND_DATA_CHANGE:
        record = RecordEncoder().data_change(sequence, serial, 1, handle, to_value(1.5), 192, None, [], "")
    else:
        record = RecordEncoder().other(sequence, kind, serial, 1, handle, b"")
    event = e.EventBatch.FromString(record).events[0].SerializeToString()
    head = b"\x09" + sequence.to_bytes(8, "little") + b"\x11" + serial.to_bytes(8, "little") + b"\x18" + bytes((kind,))

    assert event[:20] == head
    assert event[20:27] == b"\x25" + handle.to_bytes(4, "little") + b"\x28\x01"
    assert record.endswith(event)


@given(ns=st.lists(times, min_size=1, max_size=4))
def test_times_have_the_bytes_of_the_library_whatever_came_before(ns: list[int]) -> None:
    encoder = TimeEncoder()
    for one in ns:
        encoded = timestamp_from_ns(one).SerializeToString()

        assert encoder.encode(one) == bytes((len(encoded),)) + encoded


@given(number=st.integers(-(2**63), 2**64 - 1))
def test_varints_read_back(number: int) -> None:
    encoded = varint(number)
    decoded = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(encoded))

    assert decoded == number % 2**64
    assert all(byte & 0x80 for byte in encoded[:-1])


def test_worker_times_never_run_ahead_and_lag_by_less_than_a_tick() -> None:
    clock = iter(range(1_700_000_000_000_000_000, 1_700_000_000_000_400_000, 1_000))
    now = [0]

    def now_ns() -> int:
        now[0] = next(clock)
        return now[0]

    encoder = RecordEncoder(now_ns)
    for sequence in range(1, 400):
        record = encoder.data_change(sequence, 1, 1, 1, to_value(1), 192, None, [], "")
        stamp = e.EventBatch.FromString(record).events[0].worker_time
        stamped = stamp.seconds * 1_000_000_000 + stamp.nanos

        assert 0 <= now[0] - stamped < 16_384


def test_two_servers_within_one_tick_are_not_mixed_up() -> None:
    encoder = RecordEncoder(lambda: 1_700_000_000_000_000_000)
    for server_handle in (1, 2, 1, 300):
        record = encoder.data_change(1, 1, server_handle, 1, to_value(1), 192, None, [], "")

        assert e.EventBatch.FromString(record).events[0].server_handle == server_handle


def test_more_kinds_of_quality_and_status_than_are_remembered_stay_right() -> None:
    encoder = RecordEncoder()
    for number in range(5000):
        record = encoder.data_change(1, 1, 1, 1, to_value(1), 65_536 + number, None, [status(-1, 0, 1, number)], "")

        assert data_change_of(record).raw_quality == 65_536 + number
        assert data_change_of(record).statuses[0].raw_detail == number


@given(first=st.integers(1, 2**63), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_a_block_frame_is_an_envelope_with_all_its_records(first: int, sizes: list[int]) -> None:
    encoder = RecordEncoder()
    records = [
        encoder.data_change(first + index, 1, 1, 1, to_value("x" * size), 192, None, [], "")
        for index, size in enumerate(sizes)
    ]
    last = first + len(records) - 1
    (payload,) = FrameDecoder(1 << 20).feed(block_frame(Block(first, last, records)))
    envelope = WorkerEnvelope.FromString(payload)

    assert envelope == WorkerEnvelope(
        events=EventBlock(first_sequence=first, last_sequence=last, events=b"".join(records))
    )
    assert [event.sequence for event in e.EventBatch.FromString(envelope.events.events).events] == list(
        range(first, last + 1)
    )
