"""Encodes events as wire bytes by hand, because this is the hot path of a worker.

A record is one element of `EventBatch.events` (tag, length, Event), so joined records are a valid batch. Assembling the
bytes by hand takes about half of the time that filling and serialising a message takes. Tests compare every function
here with the protobuf library, byte for byte.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TypeAlias

from mxgw.convert import quality_class
from mxgw.v1.events_pb2 import DataChange, EventBatch
from mxgw.v1.values_pb2 import MxStatus, MxValue

NS_PER_SECOND = 1_000_000_000

# The quality and the status details that a source sends before its first real value.
# Source: docs/reference/mxaccess.md#first-values.
WAITING_FOR_INITIAL_DATA = 32
INITIALISING_DETAILS = frozenset((11, 12, 1010, 1011))

# Packs the first fields of an Event (see events.proto): sequence and item_serial (fixed64), kind (an enum of one byte)
# and item_handle (sfixed32).
_HEAD = Struct("<BQBQBBBi").pack
_HEAD_BYTES = 25
_DATA_CHANGE = 1
_SEQUENCE_TAG, _SERIAL_TAG, _KIND_TAG, _ITEM_HANDLE_TAG = 0x09, 0x11, 0x18, 0x25
_SERVER_HANDLE_TAG = b"\x28"
_WORKER_TIME_TAG = b"\x32"
# The tags of Snapshot.items, SnapshotItem.value and SnapshotItem.item_serial.
_SNAPSHOT_ITEMS_TAG, _SNAPSHOT_VALUE_TAG, _SNAPSHOT_SERIAL_TAG = b"\x12", b"\x22", b"\x29"
# Index: kind of event. Value: the tag of the event's body. The body of kind 1 is Event.data_change, which is field 7.
# The bodies of the other kinds follow in the order of the kinds.
_BODY_TAGS = (b"", b"\x3a", b"\x42", b"\x4a", b"\x52")

_BYTES = tuple(bytes((n,)) for n in range(256))
_UINT64 = 1 << 64
# How many distinct qualities, or statuses, are kept in encoded form. Further ones are encoded for each event, which is
# only slower.
_REMEMBERED = 4096

# Index: 14 bits of a number. Value: the two varint bytes of these bits, both with the continuation bit, as one
# little-endian number.
_TWO_GROUPS = array("H", [low | 0x80 | (high | 0x80) << 8 for high in range(128) for low in range(128)])
_FIVE_BYTE_NANOS = Struct("<B7sHHB").pack
_FOUR_BYTE_NANOS = Struct("<B7sHH").pack


def varint(number: int) -> bytes:
    """Return the varint of `number`. A negative number is encoded as its 64-bit two's complement, as in int32 and int64
    fields.
    """
    if 0 <= number < 0x80:
        return _BYTES[number]
    if number < 0:
        number += _UINT64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class TimeEncoder:
    """Encodes Timestamps, each with its length before it. The encoder keeps the last encoded Timestamp, and the encoded
    seconds of that Timestamp without the nanoseconds.
    """

    __slots__ = ("_encoded", "_ns", "_second_bytes", "_second_ns")

    def __init__(self) -> None:
        self._ns = -1
        self._encoded = b""
        self._second_ns = -NS_PER_SECOND
        self._second_bytes = b""

    def encode(self, ns: int) -> bytes:
        """Return the encoded Timestamp of `ns` nanoseconds since 1970, with its length but without a tag."""
        if ns == self._ns:
            return self._encoded
        nanos = ns - self._second_ns
        if not 0 <= nanos < NS_PER_SECOND:
            second, nanos = divmod(ns, NS_PER_SECOND)
            self._second_ns = ns - nanos
            self._second_bytes = b"\x08" + varint(second) if second else b""
        second_bytes = self._second_bytes
        # The general case: a time before 1978 or after 3058, or a time less than 2 ms after a full second. The other
        # cases are faster.
        if len(second_bytes) != 6 or nanos < 1 << 21:
            tail = b"\x10" + varint(nanos) if nanos else b""
            encoded = _BYTES[len(second_bytes) + len(tail)] + second_bytes + tail
        elif nanos >= 1 << 28:
            encoded = _FIVE_BYTE_NANOS(
                12, second_bytes + b"\x10", _TWO_GROUPS[nanos & 0x3FFF], _TWO_GROUPS[nanos >> 14 & 0x3FFF], nanos >> 28
            )
        else:
            encoded = _FOUR_BYTE_NANOS(
                11, second_bytes + b"\x10", _TWO_GROUPS[nanos & 0x3FFF], _TWO_GROUPS[nanos >> 14] & 0x7FFF
            )
        self._ns = ns
        self._encoded = encoded
        return encoded


# Lengths below this number are encoded by a table. Nearly all events are shorter.
_TABLE = 1024
_LENGTHS = tuple(varint(n) for n in range(_TABLE))
# Index: length. Value: the tag of field 1, and then the encoded length. EventBatch.events and DataChange.value are such
# fields.
_FIELD_1 = tuple(b"\x0a" + length for length in _LENGTHS)

# All events within 2**14 ns (16 us) share one encoded worker_time, because encoding it for each event would take too
# long.
_TICK_BITS = 14


# What is kept of an encoded quality: its encoded fields, and True when it means that no real value has come yet
# ("initialising"). What is kept of an encoded status: the same two, and True when it is a failure. These are plain
# tuples, because they are unpacked several times faster than named tuples.
_Quality: TypeAlias = tuple[bytes, bool]
_Status: TypeAlias = tuple[bytes, bool, bool]


class RecordEncoder:
    """Encodes events. After a data change was encoded, `has_failure` and `is_initialising` describe its statuses and
    quality.

    `now_ns` returns the wall-clock time, for `Event.worker_time`.
    """

    __slots__ = (
        "_after_head",
        "_now_ns",
        "_qualities",
        "_server_handle",
        "_source_time",
        "_statuses",
        "_tick",
        "_worker_time",
        "has_failure",
        "is_initialising",
    )

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.has_failure = False
        self.is_initialising = False
        self._now_ns = now_ns
        self._source_time = TimeEncoder()
        self._worker_time = TimeEncoder()
        # Key: raw quality. Value: the encoded fields DataChange.quality and raw_quality, and True when the quality
        # means that no real value has come yet.
        self._qualities: dict[int, _Quality] = {}
        # Key: encoded MxStatus. Value: the encoded field of DataChange, True when the status means that no real value
        # has come yet, and True when the status is a failure.
        self._statuses: dict[bytes, _Status] = {}
        # Event.server_handle, Event.worker_time and the tag of the body, encoded for the last data change.
        self._after_head = b""
        self._tick = -1
        self._server_handle = -1

    def data_change(
        self,
        sequence: int,
        item_serial: int,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        raw_quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str,
    ) -> bytes:
        """Return a data change as a record, which is one encoded event. This is one long function, because calls would
        make it noticeably slower.
        """
        encoded_value = value.SerializeToString()
        if len(statuses) == 1:
            key = statuses[0].SerializeToString()
            status, status_is_initialising, self.has_failure = self._statuses.get(key) or self._status(statuses[0], key)
        else:
            status, status_is_initialising, self.has_failure = self._combined(statuses)
        quality, self.is_initialising = self._qualities.get(raw_quality) or self._quality(raw_quality)
        if status_is_initialising:
            self.is_initialising = True
        source_time = b"" if source_time_ns is None else b"\x22" + self._source_time.encode(source_time_ns)
        if raw_source_time:
            text = raw_source_time.encode("utf-8", "replace")
            source_time += b"\x2a" + varint(len(text)) + text
        now_ns = self._now_ns()
        if now_ns >> _TICK_BITS != self._tick or server_handle != self._server_handle:
            self._tick = now_ns >> _TICK_BITS
            self._server_handle = server_handle
            worker_time = self._worker_time.encode(now_ns)
            self._after_head = b"".join(
                (_SERVER_HANDLE_TAG, varint(server_handle), _WORKER_TIME_TAG, worker_time, _BODY_TAGS[_DATA_CHANGE])
            )
        after_head = self._after_head
        value_size = len(encoded_value)
        rest_size = value_size + len(quality) + len(source_time) + len(status)
        if rest_size < _TABLE - 64:
            value_head = _FIELD_1[value_size]
            body_size = rest_size + len(value_head)
            body_length = _LENGTHS[body_size]
            record_head = _FIELD_1[_HEAD_BYTES + len(after_head) + len(body_length) + body_size]
        else:
            value_head = b"\x0a" + varint(value_size)
            body_size = rest_size + len(value_head)
            body_length = varint(body_size)
            record_head = b"\x0a" + varint(_HEAD_BYTES + len(after_head) + len(body_length) + body_size)
        head = _HEAD(
            _SEQUENCE_TAG, sequence, _SERIAL_TAG, item_serial, _KIND_TAG, _DATA_CHANGE, _ITEM_HANDLE_TAG, item_handle
        )
        return b"".join(
            (record_head, head, after_head, body_length, value_head, encoded_value, quality, source_time, status)
        )

    def other(
        self, sequence: int, kind: int, item_serial: int, server_handle: int, item_handle: int, body: bytes
    ) -> bytes:
        """Return an event that is not a data change as a record, which is one encoded event. `body` is the encoded body
        of the event.
        """
        head = _HEAD(_SEQUENCE_TAG, sequence, _SERIAL_TAG, item_serial, _KIND_TAG, kind, _ITEM_HANDLE_TAG, item_handle)
        worker_time = self._worker_time.encode(self._now_ns())
        event = b"".join(
            (
                head,
                _SERVER_HANDLE_TAG,
                varint(server_handle),
                _WORKER_TIME_TAG,
                worker_time,
                _BODY_TAGS[kind],
                varint(len(body)),
                body,
            )
        )
        return b"\x0a" + varint(len(event)) + event

    def _quality(self, raw_quality: int) -> _Quality:
        encoded = b"\x10" + varint(quality_class(raw_quality)) + (b"\x18" + varint(raw_quality) if raw_quality else b"")
        quality = (encoded, raw_quality & 0xFC == WAITING_FOR_INITIAL_DATA)
        if len(self._qualities) < _REMEMBERED:
            self._qualities[raw_quality] = quality
        return quality

    def _status(self, message: MxStatus, encoded: bytes) -> _Status:
        status = (
            b"\x32" + varint(len(encoded)) + encoded,
            message.raw_detail in INITIALISING_DETAILS,
            message.success == 0,
        )
        if len(self._statuses) < _REMEMBERED:
            self._statuses[encoded] = status
        return status

    def _combined(self, messages: Sequence[MxStatus]) -> _Status:
        each = [self._status(message, message.SerializeToString()) for message in messages]
        return (
            b"".join(encoded for encoded, _, _ in each),
            any(is_initialising for _, is_initialising, _ in each),
            any(is_failure for _, _, is_failure in each),
        )


def snapshot_item(item_serial: int, server_handle: int, item_handle: int, sequence: int, record: bytes) -> bytes:
    """Return an element of `Snapshot.items`, made from the record of a data change. A record is one encoded event; it
    must come from `RecordEncoder.data_change`.
    """
    at = 2
    while record[at - 1] >= 0x80:  # Skip the length of the record.
        at += 1
    at += _HEAD_BYTES + 2
    while record[at - 1] >= 0x80:  # Skip the server handle.
        at += 1
    at += 2 + record[at + 1]  # Skip the worker's time.
    # The rest of the record is the DataChange: its tag, its length and its content.
    value = record[at + 1 :]
    head = b"".join(
        (b"\x08", varint(server_handle), b"\x10", varint(item_handle), b"\x18", varint(sequence), _SNAPSHOT_VALUE_TAG)
    )
    serial = _SNAPSHOT_SERIAL_TAG + item_serial.to_bytes(8, "little")
    return b"".join((_SNAPSHOT_ITEMS_TAG, varint(len(head) + len(value) + len(serial)), head, value, serial))


def data_change_of(record: bytes) -> DataChange:
    """Return the DataChange inside a record, which is one encoded event."""
    return EventBatch.FromString(record).events[0].data_change
