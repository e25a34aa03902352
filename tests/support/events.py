"""Events and batches for tests, a clock that a test moves, and functions to read what a subscriber returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import DataChange, Event, EventBatch, EventKind
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.subscriber import Control, End, Output, Progress, Subscriber

EPOCH = bytes(range(16))
OTHER_EPOCH = bytes(16)


class Clock:
    """A monotonic clock in seconds. It moves only when a test sets `now`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def serial_of(server_handle: int, item_handle: int) -> int:
    """Return the serial of the item with these handles. (In these tests no handle is used twice.)"""
    return (server_handle & 0xFFFFF) << 32 | item_handle & 0xFFFFFFFF


class EveryItem(ItemBook):
    """An item book that contains an item for every serial that `serial_of` can return.

    Attributes:
        forgotten: the serials that the book does not know all the same.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self.forgotten: set[int] = set()

    def get(self, serial: int) -> ItemRecord | None:
        if serial in self.forgotten:
            return None
        return ItemRecord(serial, serial >> 32, serial & 0xFFFFFFFF, f"Item_{serial & 0xFFFFFFFF}.PV")


def event(sequence: int, item_handle: int = 1, *, text: str = "") -> Event:
    """Return a data change."""
    value = MxValue(string=text) if text else MxValue(integer=sequence % 1000)
    return Event(
        sequence=sequence,
        item_serial=serial_of(1, item_handle),
        item_handle=item_handle,
        kind=EventKind.EVENT_KIND_DATA_CHANGE,
        server_handle=1,
        data_change=DataChange(value=value, raw_quality=192),
    )


def batch(sequences: Iterable[int], *, item_handle: int = 1, text: str = "") -> bytes:
    """Return the encoded batch of events with these sequences."""
    return EventBatch(events=[event(s, item_handle, text=text) for s in sequences]).SerializeToString()


def frame_of(chunk: Chunk) -> StreamEventsResponse:
    """Decode a chunk as a client does."""
    return StreamEventsResponse.FromString(chunk.frame)


def sequences_of(chunk: Chunk) -> list[int]:
    """Return the sequences of the events in a chunk."""
    return [e.sequence for e in frame_of(chunk).events.events]


def taken(subscriber: Subscriber, limit_bytes: int = 1 << 20) -> list[Output]:
    """Call `take` of a subscriber until it returns nothing or the end, and return all results."""
    items: list[Output] = []
    while (item := subscriber.take(limit_bytes)) is not None:
        items.append(item)
        if isinstance(item, End):
            break
    return items


def told(items: Sequence[Output]) -> list[object]:
    """Return results of `take` in a short form.

    An event is its sequence, such as 5; a gap is a pair, such as (6, 9); then "progress 7" and "end REASON"; a control
    frame is its bytes.
    """
    short: list[object] = []
    for item in items:
        match item:
            case Chunk():
                short += sequences_of(item)
            case Gap(first=first, last=last):
                short.append((first, last))
            case Progress(sequence):
                short.append(f"progress {sequence}")
            case End(error):
                short.append(f"end {error.reason}")
            case Control(frame):
                short.append(frame)
    return short
