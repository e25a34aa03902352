"""Events as wire bytes, assembled by hand: the hot path of a worker.

A record is one element of `EventBatch.events` (tag, length, Event), so joined records are a valid batch. Assembling the
bytes costs about half of filling and serialising a message. Tests hold every function here against the protobuf
library, byte for byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from mxgw.convert import quality_class
from mxgw.v1.events_pb2 import DataChange, EventBatch
from mxgw.v1.values_pb2 import MxStatus, MxValue

NS_PER_SECOND = 1_000_000_000

# FIELD 1.6, 1.9 #3: what a source says before it has a first real value.
WAITING_FOR_INITIAL_DATA = 32
INITIALISING_DETAILS = frozenset((11, 12, 1010, 1011))

# Event.sequence (fixed64), Event.item_handle (sfixed32), Event.kind (one-byte enum): where events.proto promises them.
_HEAD = Struct("<BQBiBB").pack
_SEQUENCE_TAG, _ITEM_HANDLE_TAG, _KIND_TAG = 0x09, 0x15, 0x18
_SERVER_HANDLE_TAG = b"\x20"
_WORKER_TIME_TAG = b"\x2a"
# Event.data_change is field 6 for kind 1, and the other bodies follow in the order of their kinds.
_BODY_TAGS = (b"", b"\x32", b"\x3a", b"\x42", b"\x4a")

_BYTES = tuple(bytes((n,)) for n in range(256))
_UINT64 = 1 << 64
# DataChange.value with its tag and length, for lengths of one byte.
_VALUE_HEADS = tuple(b"\x0a" + _BYTES[n] for n in range(128))
# The most distinct qualities or statuses whose bytes are remembered; a source that sends more is only slower.
_REMEMBERED = 4096

# A varint's two low bytes (14 bits of the number, both with the continuation bit) as one little-endian number.
_TWO_GROUPS = array("H", [low | 0x80 | (high | 0x80) << 8 for high in range(128) for low in range(128)])
_FIVE_BYTE_NANOS = Struct("<B7sHHB").pack
_FOUR_BYTE_NANOS = Struct("<B7sHH").pack


def varint(number: int) -> bytes:
    """Return the varint of `number`; a negative one as its 64-bit two's complement, as int32 and int64 have it."""
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
    """Encodes Timestamps with their length before them; remembers the last one and the bytes of its whole second."""

    __slots__ = ("_encoded", "_ns", "_second_bytes", "_second_ns")

    def __init__(self) -> None:
        self._ns = -1
        self._encoded = b""
        self._second_ns = -NS_PER_SECOND
        self._second_bytes = b""

    def encode(self, ns: int) -> bytes:
        """Return the encoded Timestamp of `ns` nanoseconds since 1970 (without a tag)."""
        if ns == self._ns:
            return self._encoded
        nanos = ns - self._second_ns
        if not 0 <= nanos < NS_PER_SECOND:
            second, nanos = divmod(ns, NS_PER_SECOND)
            self._second_ns = ns - nanos
            self._second_bytes = b"\x08" + varint(second) if second else b""
        second_bytes = self._second_bytes
        if len(second_bytes) != 6 or nanos < 1 << 21:  # outside 1971 to 3058, or the first two milliseconds
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


class _Status(NamedTuple):
    encoded: bytes
    is_failure: bool
    is_initialising: bool


class DataChangeEncoder:
    """Encodes DataChanges, and tells whether a status of it failed and whether it is only initialising."""

    def __init__(self) -> None:
        self._source_time = TimeEncoder()
        # By raw quality: DataChange.quality and raw_quality, encoded.
        self._qualities: dict[int, bytes] = {}
        # By encoded MxStatus: itself as a field of DataChange, and what it means.
        self._statuses: dict[bytes, _Status] = {}
        # Of the last DataChange encoded.
        self.has_failure = False
        self.is_initialising = False

    def encode(
        self,
        value: MxValue,
        raw_quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> bytes:
        """Return an encoded DataChange."""
        encoded_value = value.SerializeToString()
        quality = self._qualities.get(raw_quality) or self._quality(raw_quality)
        if len(statuses) == 1:
            encoded = statuses[0].SerializeToString()
            status = self._statuses.get(encoded) or self._status(statuses[0], encoded)
        else:
            status = self._combined(statuses)
        self.has_failure = status.is_failure
        self.is_initialising = status.is_initialising or raw_quality & 0xFC == WAITING_FOR_INITIAL_DATA
        source_time = b"" if source_time_ns is None else b"\x22" + self._source_time.encode(source_time_ns)
        if raw_source_time:
            text = raw_source_time.encode("utf-8", "replace")
            source_time += b"\x2a" + varint(len(text)) + text
        length = len(encoded_value)
        value_head = _VALUE_HEADS[length] if length < len(_VALUE_HEADS) else b"\x0a" + varint(length)
        return b"".join((value_head, encoded_value, quality, source_time, status.encoded))

    def _quality(self, raw_quality: int) -> bytes:
        encoded = b"\x10" + varint(quality_class(raw_quality)) + (b"\x18" + varint(raw_quality) if raw_quality else b"")
        if len(self._qualities) < _REMEMBERED:
            self._qualities[raw_quality] = encoded
        return encoded

    def _status(self, message: MxStatus, encoded: bytes) -> _Status:
        status = _Status(
            b"\x32" + varint(len(encoded)) + encoded, message.success == 0, message.raw_detail in INITIALISING_DETAILS
        )
        if len(self._statuses) < _REMEMBERED:
            self._statuses[encoded] = status
        return status

    def _combined(self, messages: Sequence[MxStatus]) -> _Status:
        each = [self._status(message, message.SerializeToString()) for message in messages]
        return _Status(
            b"".join(status.encoded for status in each),
            any(status.is_failure for status in each),
            any(status.is_initialising for status in each),
        )


def event_record(
    sequence: int, kind: int, server_handle: int, item_handle: int, worker_time: bytes, body: bytes
) -> bytes:
    """Return the record of one event; `worker_time` comes from a TimeEncoder, `body` is the message `kind` names."""
    size = len(body)
    # One-byte varints without a call: nearly all events take this way.
    server = _BYTES[server_handle] if 0 <= server_handle < 0x80 else varint(server_handle)
    body_length = _BYTES[size] if size < 0x80 else varint(size)
    # The head has 16 bytes, and three tags stand between the rest.
    length = 19 + len(server) + len(worker_time) + len(body_length) + size
    return b"".join(
        (
            b"\x0a",
            _BYTES[length] if length < 0x80 else varint(length),
            _HEAD(_SEQUENCE_TAG, sequence, _ITEM_HANDLE_TAG, item_handle, _KIND_TAG, kind),
            _SERVER_HANDLE_TAG,
            server,
            _WORKER_TIME_TAG,
            worker_time,
            _BODY_TAGS[kind],
            body_length,
            body,
        )
    )


def data_change_of(record: bytes) -> DataChange:
    """Return the DataChange inside a record."""
    return EventBatch.FromString(record).events[0].data_change
