"""The four MXAccess events as typed views, alone and in batches.

A view holds the protobuf event and converts a field only when it is read, so that unread fields cost nothing. Only
`sequence` is copied at once: nearly every application needs it to keep its position, and reading an attribute is five
times faster than calling a property. Views stay valid for as long as they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeAlias, overload

from mxgw.convert import PyValue
from mxgw.v1 import events_pb2, values_pb2
from mxgw_client.enums import Quality
from mxgw_client.position import Position
from mxgw_client.references import ReferenceMap
from mxgw_client.values import Status, moment, statuses_from_messages, value_of


class StreamContext:
    """What all events of one stream share: their epoch, and the references of the session's items."""

    __slots__ = ("epoch", "references")

    def __init__(self, epoch: bytes, references: ReferenceMap) -> None:
        self.epoch = epoch
        self.references = references


class EventView:
    """What the four events have in common. `raw` is the contract's message.

    Views are made by `view_of`, which sets their attributes: a constructor would make that a quarter slower.
    """

    __slots__ = ("_context", "raw", "sequence")

    raw: events_pb2.Event
    sequence: int
    _context: StreamContext

    @property
    def position(self) -> Position:
        """The position of this event: a stream started `after` it begins with the next one."""
        return Position(self._context.epoch, self.sequence)

    @property
    def item_handle(self) -> int:
        """The handle of the item; 0 when the event belongs to none."""
        return self.raw.item_handle

    @property
    def item_serial(self) -> int:
        """The serial of the item. Unlike its handle, no other item of the epoch ever has it; see `Item.serial`."""
        return self.raw.item_serial

    @property
    def server_handle(self) -> int:
        """The Register handle the item belongs to."""
        return self.raw.server_handle

    @property
    def reference(self) -> str:
        """The reference with which this session object added the item; empty when another one added it."""
        return self._context.references.lookup(self.raw.item_serial)

    @property
    def worker_time(self) -> datetime:
        """When the worker got the event from MXAccess (UTC, by the worker's clock)."""
        return moment(self.raw.worker_time)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The MXSTATUS_PROXY array."""
        return ()

    @property
    def ok(self) -> bool:
        """Whether no status is a failure. If False, the value must not replace a good one that came before."""
        return all(status.ok for status in self.statuses)

    def __repr__(self) -> str:
        name = self.reference or f"item {self.item_handle}"
        return f"<{type(self).__name__} {self.sequence} {name}>"


class DataChange(EventView):
    """OnDataChange."""

    __slots__ = ()

    @property
    def value(self) -> PyValue:
        """The value; None when the source sent none."""
        # In a oneof only the field that is set can differ from its default, so a field that is not 0 or False is the
        # value. Asking which field is set costs as much as reading four, so that comes last.
        message = self.raw.data_change.value
        return message.double or message.float or message.integer or message.boolean or value_of(message)

    @property
    def quality(self) -> Quality:
        """The OPC class of the quality: good, uncertain or bad."""
        return Quality(self.raw.data_change.quality)

    @property
    def raw_quality(self) -> int:
        """The quality as the source gave it."""
        return self.raw.data_change.raw_quality

    @property
    def source_time(self) -> datetime | None:
        """The source's time in UTC; None when it sent none, or one that is no valid time (see `raw_source_time`)."""
        change = self.raw.data_change
        return moment(change.source_time) if change.HasField("source_time") else None

    @property
    def raw_source_time(self) -> str:
        """The source's time as text; empty unless the source sent text."""
        return self.raw.data_change.raw_source_time

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.data_change.statuses)

    @property
    def ok(self) -> bool:
        return all(status.success for status in self.raw.data_change.statuses)

    @property
    def is_good(self) -> bool:
        """Whether the value may be used as current: no failure status and good quality."""
        return self.raw.data_change.quality == values_pb2.QUALITY_GOOD and self.ok


class WriteComplete(EventView):
    """OnWriteComplete, paired with its write by the worker."""

    __slots__ = ()

    @property
    def write_id(self) -> int:
        """The `WriteResult.write_id` of the write that completed; 0 when the worker knows no open write of the item."""
        return self.raw.write_complete.write_id

    @property
    def missing(self) -> bool:
        """True when no completion came in time. The outcome of the write is then unknown; count it as failed."""
        return self.raw.write_complete.missing

    @property
    def pairing_uncertain(self) -> bool:
        """True when an earlier write of the item has no completion: this one may belong to that write."""
        return self.raw.write_complete.pairing_uncertain

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.write_complete.statuses)

    @property
    def ok(self) -> bool:
        """Whether the write succeeded for certain: its completion came and has no failure."""
        complete = self.raw.write_complete
        return not complete.missing and all(status.success for status in complete.statuses)


class OperationComplete(EventView):
    """OperationComplete, which follows Suspend."""

    __slots__ = ()

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.operation_complete.statuses)


class BufferedDataChange(EventView):
    """OnBufferedDataChange: several values of one item as parallel lists, in the order in which they came."""

    __slots__ = ()

    @property
    def values(self) -> list[PyValue]:
        """The values; element n belongs to `raw_qualities[n]` and `source_times[n]`."""
        values = value_of(self.raw.buffered_data_change.value)
        return list(values) if isinstance(values, list) else [values]

    @property
    def raw_qualities(self) -> list[int]:
        """The qualities as the source gave them."""
        return list(self.raw.buffered_data_change.raw_qualities)

    @property
    def source_times(self) -> list[datetime]:
        """The source's times in UTC."""
        return [moment(stamp) for stamp in self.raw.buffered_data_change.source_times]

    @property
    def raw_data_type(self) -> int:
        """The native MxDataType number."""
        return self.raw.buffered_data_change.raw_data_type

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.buffered_data_change.statuses)


class UnknownEvent(EventView):
    """An event of a kind this release of the client does not know; `raw` has it."""

    __slots__ = ()


Event: TypeAlias = DataChange | WriteComplete | OperationComplete | BufferedDataChange | UnknownEvent

DATA_CHANGE = events_pb2.EVENT_KIND_DATA_CHANGE
# The view classes of the other kinds.
OTHERS: dict[int, type[Event]] = {
    events_pb2.EVENT_KIND_WRITE_COMPLETE: WriteComplete,
    events_pb2.EVENT_KIND_OPERATION_COMPLETE: OperationComplete,
    events_pb2.EVENT_KIND_BUFFERED_DATA_CHANGE: BufferedDataChange,
}


def view_of(raw: events_pb2.Event, context: StreamContext) -> Event:
    """Return the view of an event.

    `EventBatch.__iter__` and `EventStream.__anext__`, which run for every event, repeat these lines: calling this
    function would double the cost.
    """
    view = DataChange() if raw.kind == DATA_CHANGE else OTHERS.get(raw.kind, UnknownEvent)()
    view.raw, view._context, view.sequence = raw, context, raw.sequence
    return view


class EventBatch(Sequence[Event]):
    """Consecutive events as they came in one message: oldest first, never empty.

    Indexing and iterating make a new view each time. `raw` has the contract's messages, to read them without views.
    """

    __slots__ = ("_context", "raw")

    def __init__(self, raw: Sequence[events_pb2.Event], context: StreamContext) -> None:
        self.raw = raw
        self._context = context

    @property
    def context(self) -> StreamContext:
        """What the events of its stream share."""
        return self._context

    @property
    def first_sequence(self) -> int:
        """Sequence of the first event."""
        return self.raw[0].sequence

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event."""
        return self.raw[-1].sequence

    @property
    def position(self) -> Position:
        """The position of the last event."""
        return Position(self._context.epoch, self.last_sequence)

    def after(self, sequence: int) -> EventBatch:
        """Return the rest of the batch after the event with this `sequence`, which must not be the last one."""
        return self[1 + next(n for n, raw in enumerate(self.raw) if raw.sequence == sequence) :]

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Event]:
        context = self._context
        for raw in self.raw:
            view = DataChange() if raw.kind == DATA_CHANGE else OTHERS.get(raw.kind, UnknownEvent)()
            view.raw, view._context, view.sequence = raw, context, raw.sequence
            yield view

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventBatch: ...
    def __getitem__(self, index: int | slice) -> Event | EventBatch:
        if isinstance(index, slice):
            return EventBatch(self.raw[index], self._context)
        return view_of(self.raw[index], self._context)

    def __repr__(self) -> str:
        return f"<EventBatch of {len(self)}: {self.first_sequence} to {self.last_sequence}>"
