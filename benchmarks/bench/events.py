"""The event that every system carries: one encoded mxgw record of 120 bytes, the same bytes in all systems.

A producer changes only two places of the record: the sequence, and in measurements of latency the time at which it was
sent. Both have a fixed width, so that producing an event costs almost nothing and readers find both without parsing.
"""

from __future__ import annotations

import struct
import time

from mxgw.convert import ok_status, timestamp_from_ns, to_value
from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, DataChange, Event, EventBatch
from mxgw.v1.values_pb2 import QUALITY_GOOD

RECORD_BYTES = 120
# Every record contains this text exactly once, as the raw text of its source time. Readers that cannot count by length
# count these texts. It is long and repeats no character, so that a search can skip many bytes at a time.
MARKER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ:-+<>"
RAW_SOURCE_TIME = MARKER.decode()
_STAMP = 1.5
# A time in the middle of a second. Its nanoseconds take as many bytes as those of nearly all times.
_TIME_NS = time.time_ns() // 1_000_000_000 * 1_000_000_000 + 500_000_000

BLOCK_EVENTS = 256
_LOW_BYTES = bytes(range(256))

SEQUENCE = struct.Struct("<Q")
# The value of the event: CLOCK_MONOTONIC in nanoseconds. A double can hold it exactly for a hundred days of uptime.
STAMP = struct.Struct("<d")


def _record() -> bytes:
    change = DataChange(
        value=to_value(_STAMP),
        quality=QUALITY_GOOD,
        raw_quality=192,
        source_time=timestamp_from_ns(_TIME_NS),
        raw_source_time=RAW_SOURCE_TIME,
        statuses=[ok_status()],
    )
    event = Event(
        sequence=1,
        item_serial=1,
        item_handle=1,
        kind=EVENT_KIND_DATA_CHANGE,
        server_handle=1,
        worker_time=timestamp_from_ns(_TIME_NS),
        data_change=change,
    )
    return EventBatch(events=[event]).SerializeToString()


RECORD = _record()
# The place of the sequence: after the tag and the length of the record, and the tag of Event.sequence.
SEQUENCE_AT = 3
STAMP_AT = RECORD.index(STAMP.pack(_STAMP))
MARKER_AT = RECORD.index(MARKER)
assert len(RECORD) == RECORD_BYTES, len(RECORD)


def record_of(sequence: int, stamp_ns: int = 0) -> bytes:
    """Return the record with this sequence and, in measurements of latency, this time."""
    record = bytearray(RECORD)
    SEQUENCE.pack_into(record, SEQUENCE_AT, sequence)
    STAMP.pack_into(record, STAMP_AT, float(stamp_ns))
    return bytes(record)


class Blocks:
    """Makes blocks of 256 consecutive events. The first block has 255 events, because there is no event 0.

    `before` and `after` are the bytes that the protocol puts around each record.
    """

    def __init__(self, before: bytes = b"", after: bytes = b"") -> None:
        self._step = len(before) + RECORD_BYTES + len(after)
        self._sequence_at = len(before) + SEQUENCE_AT
        self._bytes = bytearray((before + RECORD + after) * BLOCK_EVENTS)
        self._bytes[self._sequence_at :: self._step] = _LOW_BYTES
        # The number of the block whose sequences the bytes contain at present, without their lowest byte.
        self._high = 0

    def block(self, number: int) -> tuple[int, int, bytes]:
        """Return block `number` (from 0): its first and last sequence, and its bytes."""
        changed, self._high = number ^ self._high, number
        for index in range(7):
            if changed >> 8 * index & 0xFF:
                upper = bytes([number >> 8 * index & 0xFF]) * BLOCK_EVENTS
                self._bytes[self._sequence_at + 1 + index :: self._step] = upper
        first = number * BLOCK_EVENTS
        if number == 0:
            return 1, BLOCK_EVENTS - 1, bytes(memoryview(self._bytes)[self._step :])
        return first, first + BLOCK_EVENTS - 1, bytes(self._bytes)
