"""Events made beforehand, as a worker encodes them: only their numbers change, so a producer costs next to nothing."""

from __future__ import annotations

import time

from mxgw.convert import ok_status, timestamp_from_ns, to_value
from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, DataChange, Event, EventBatch
from mxgw.v1.values_pb2 import QUALITY_GOOD

BLOCK_EVENTS = 256
# Producers write so many blocks at once: the processor is for what is measured.
BURST_BLOCKS = 16

# Tag and length of the record, then the tag of Event.sequence (fixed64): the record is shorter than 128 bytes.
_SEQUENCE_OFFSET = 3
_LOW_BYTES = bytes(range(256))


class Premade:
    """Blocks of 256 consecutive records; the first has 255, so that every other begins at a multiple of 256."""

    def __init__(self) -> None:
        now = timestamp_from_ns(time.time_ns())
        event = Event(
            sequence=1,
            item_handle=1,
            kind=EVENT_KIND_DATA_CHANGE,
            server_handle=1,
            worker_time=now,
            data_change=DataChange(
                value=to_value(1.5), quality=QUALITY_GOOD, raw_quality=192, source_time=now, statuses=[ok_status()]
            ),
        )
        record = EventBatch(events=[event]).SerializeToString()
        self.record_bytes = len(record)
        assert self.record_bytes < 128
        self._records = bytearray(record * BLOCK_EVENTS)
        self._records[_SEQUENCE_OFFSET :: self.record_bytes] = _LOW_BYTES
        self._high = 0

    def block(self, number: int) -> tuple[int, int, bytes]:
        """Return block `number` from 0: first and last sequence, and the joined records."""
        step = self.record_bytes
        changed = number ^ self._high
        self._high = number
        for index in range(7):
            if changed >> 8 * index & 0xFF:
                self._records[_SEQUENCE_OFFSET + 1 + index :: step] = bytes([number >> 8 * index & 0xFF]) * BLOCK_EVENTS
        first = number * BLOCK_EVENTS
        if number == 0:
            return 1, BLOCK_EVENTS - 1, bytes(memoryview(self._records)[step:])
        return first, first + BLOCK_EVENTS - 1, bytes(self._records)
