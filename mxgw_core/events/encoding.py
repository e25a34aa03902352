"""Reads encoded events without parsing them: cuts a batch at an event, and reads the first fields of an event.

A batch is `repeated Event events = 1`, so it is a series of records: tag 0x0A, varint length, encoded Event. Every
Event begins with `09 <sequence: 8 bytes> 11 <item serial: 8 bytes> 18 <kind: 1 byte>`. Then follow `25 <item handle: 4
bytes>` and `28 <server handle: varint>`, each of which is left out when it is 0. (See events.proto; a test of the
worker checks this.) The records of feeds begin in the same way, but have other numbers in place of serial and item
handle (see api/feeds.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mxgw.v1.event_service_pb2 import StreamEventsResponse

_HEAD = struct.Struct("<BQBQBB")  # tag, sequence, tag, item serial, tag, kind
_HEAD_TAGS = (0x09, 0x11, 0x18)
_ITEM_TAG = 0x25
_ITEM_HANDLE = struct.Struct("<i")
_RECORD_TAG = 0x0A
_RECORD_START = bytes([_RECORD_TAG])
# Serials are less than this number, so that a serial and a kind fit into 64 bits together. Source: events.proto.
SERIALS_END = 1 << 56
_EVENTS_TAG = bytes([StreamEventsResponse.EVENTS_FIELD_NUMBER << 3 | 2])


class MalformedBatch(ValueError):
    """The bytes are not a series of encoded events."""


def varint(number: int) -> bytes:
    """Return `number` (>= 0) in protobuf's variable-length form."""
    if number < 0x4000:  # most numbers need only one or two bytes
        return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def events_prefix(batch_bytes: int) -> bytes:
    """Return the bytes that, put in front of an encoded EventBatch of this size, make it a StreamEventsResponse."""
    return _EVENTS_TAG + varint(batch_bytes)


def record_of(event: bytes) -> bytes:
    """Return the record of an encoded Event: its tag, its length, and the event."""
    return b"".join((_RECORD_START, varint(len(event)), event))


def record_bounds(data: bytes | bytearray | memoryview, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield three offsets of each record from `offset` on: the start of its tag, the start of its Event, and its end.

    Raises:
        MalformedBatch: a record has another tag or reaches past the end.
    """
    size = len(data)
    while offset < size:
        start = offset
        if data[offset] != _RECORD_TAG:
            raise MalformedBatch(f"byte {offset} of an event batch is no event record")
        offset += 1
        if offset < size and data[offset] < 0x80:  # most records are short, so their length takes one byte
            offset += 1
            end = offset + data[offset - 1]
            if end > size:
                raise MalformedBatch(f"the event record at byte {start} reaches past the batch")
            yield start, offset, end
            offset = end
            continue
        length = shift = 0
        while True:
            if offset >= size or shift > 28:
                raise MalformedBatch(f"the event record at byte {start} has no readable length")
            byte = data[offset]
            offset += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        end = offset + length
        if end > size:
            raise MalformedBatch(f"the event record at byte {start} reaches past the batch")
        yield start, offset, end
        offset = end


def offset_after(data: bytes | bytearray | memoryview, events: int, offset: int = 0) -> int:
    """Return the offset behind the first `events` records that begin at `offset`."""
    if events <= 0:
        return offset
    for _, _, end in record_bounds(data, offset):
        events -= 1
        if events == 0:
            return end
    raise MalformedBatch("the batch has fewer events than its numbers say")


def event_head(data: bytes | bytearray | memoryview, body: int) -> tuple[int, int, int]:
    """Return `(sequence, item_serial, kind)` of the Event that begins at `body`.

    Raises:
        MalformedBatch: the event does not begin as the contract says.
    """
    try:
        tag1, sequence, tag2, item_serial, tag3, kind = _HEAD.unpack_from(data, body)
    except struct.error as error:
        raise MalformedBatch(f"the event at byte {body} is too short") from error
    if (tag1, tag2, tag3) != _HEAD_TAGS or kind > 0x7F or item_serial >= SERIALS_END:
        raise MalformedBatch(f"the event at byte {body} does not begin with sequence, item and kind")
    return sequence, item_serial, kind


def fourth_field(data: bytes | bytearray | memoryview, body: int, end: int) -> int:
    """Return the item handle of the Event in `data[body:end]`; for a record of a feed, the number of its field 4."""
    at = body + _HEAD.size
    if at + 5 > end or data[at] != _ITEM_TAG:
        return 0  # the handle is 0, because protobuf leaves out a field that is 0
    number: int = _ITEM_HANDLE.unpack_from(data, at + 1)[0]
    return number
