"""The four MXAccess events as Python objects, and batches of them.

An object, called a view, keeps the protobuf event and converts a field only when the application reads it, so that
other fields cost nothing. Only `sequence` is copied at once, because nearly every application reads it, and reading an
attribute is five times faster than calling a property. A view never becomes invalid.
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
    """The facts that all events of one stream have in common: their epoch and the references of the session's items."""

    __slots__ = ("epoch", "references")

    def __init__(self, epoch: bytes, references: ReferenceMap) -> None:
        self.epoch = epoch
        self.references = references


class EventView:
    """The properties that all kinds of events have. `raw` is the protobuf message of the event.

    There is no `__init__`: `view_of` sets the attributes of a new view, which is faster by a quarter.
    """

    __slots__ = ("_context", "raw", "sequence")

    raw: events_pb2.Event
    sequence: int
    _context: StreamContext

    @property
    def position(self) -> Position:
        """The position of this event. A stream with `start=after(position)` begins with the next event."""
        return Position(self._context.epoch, self.sequence)

    @property
    def item_handle(self) -> int:
        """The handle of the item; 0 when the event belongs to no item."""
        return self.raw.item_handle

    @property
    def item_serial(self) -> int:
        """The serial of the item. No other item of the epoch ever has this serial, while handles are used again."""
        return self.raw.item_serial

    @property
    def server_handle(self) -> int:
        """The server handle (from Register) to which the item belongs."""
        return self.raw.server_handle

    @property
    def reference(self) -> str:
        """The reference of the item, such as `Tank01.Level`.

        It is known for items that this session object added, or that existed when it attached to the session. For other
        items it is empty.
        """
        return self._context.references.lookup(self.raw.item_serial)

    @property
    def worker_time(self) -> datetime:
        """When the worker got the event from its backend, in UTC by the clock of the worker's machine."""
        return moment(self.raw.worker_time)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The statuses that MXAccess sent with the event (the MXSTATUS_PROXY array)."""
        return ()

    @property
    def ok(self) -> bool:
        """True when no status is a failure. When it is False, do not replace an earlier good value by this value."""
        return all(status.ok for status in self.statuses)

    def __repr__(self) -> str:
        name = self.reference or f"item {self.item_handle}"
        return f"<{type(self).__name__} {self.sequence} {name}>"


class DataChange(EventView):
    """The event OnDataChange: the value of an item has changed."""

    __slots__ = ()

    @property
    def value(self) -> PyValue:
        """The value; None when the source sent none."""
        # The value is in one field of a protobuf oneof, and all other fields of the oneof read as 0 or False. A field
        # that reads as something else is therefore the value. Reading four fields costs as much as one call of
        # WhichOneof, which `value_of` makes for the remaining values.
        message = self.raw.data_change.value
        return message.double or message.float or message.integer or message.boolean or value_of(message)

    @property
    def quality(self) -> Quality:
        """The quality in the classes of OPC: good, uncertain or bad."""
        return Quality(self.raw.data_change.quality)

    @property
    def raw_quality(self) -> int:
        """The quality as the number that the source sent."""
        return self.raw.data_change.raw_quality

    @property
    def source_time(self) -> datetime | None:
        """The time of the value by the clock of the source, in UTC.

        None when the source sent no time, or a text that is no valid time; `raw_source_time` is this text.
        """
        change = self.raw.data_change
        return moment(change.source_time) if change.HasField("source_time") else None

    @property
    def raw_source_time(self) -> str:
        """The time of the value as the text that the source sent; empty when the source did not send a text."""
        return self.raw.data_change.raw_source_time

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.data_change.statuses)

    @property
    def ok(self) -> bool:
        return all(status.success for status in self.raw.data_change.statuses)

    @property
    def is_good(self) -> bool:
        """True when the value can be used: no status is a failure, and the quality is good."""
        return self.raw.data_change.quality == values_pb2.QUALITY_GOOD and self.ok


class WriteComplete(EventView):
    """The event OnWriteComplete. The worker finds out to which write the event belongs."""

    __slots__ = ()

    @property
    def write_id(self) -> int:
        """The `WriteResult.write_id` of the write that completed; 0 when the worker knows no such write of the item."""
        return self.raw.write_complete.write_id

    @property
    def missing(self) -> bool:
        """True when MXAccess sent no completion in time. Whether the write took effect is then unknown."""
        return self.raw.write_complete.missing

    @property
    def pairing_uncertain(self) -> bool:
        """True when this completion perhaps belongs to an earlier write of the item, which got none in time."""
        return self.raw.write_complete.pairing_uncertain

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.write_complete.statuses)

    @property
    def ok(self) -> bool:
        """True when the write succeeded: its completion came, and no status is a failure."""
        complete = self.raw.write_complete
        return not complete.missing and all(status.success for status in complete.statuses)


class OperationComplete(EventView):
    """The event OperationComplete, which MXAccess sends after Suspend."""

    __slots__ = ()

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.operation_complete.statuses)


class BufferedDataChange(EventView):
    """The event OnBufferedDataChange: several values of one item, oldest first, in lists of equal length."""

    __slots__ = ()

    @property
    def values(self) -> list[PyValue]:
        """The values. `raw_qualities[n]` and `source_times[n]` belong to `values[n]`."""
        values = value_of(self.raw.buffered_data_change.value)
        return list(values) if isinstance(values, list) else [values]

    @property
    def raw_qualities(self) -> list[int]:
        """The qualities as the numbers that the source sent."""
        return list(self.raw.buffered_data_change.raw_qualities)

    @property
    def source_times(self) -> list[datetime]:
        """The times of the values by the clock of the source, in UTC."""
        return [moment(stamp) for stamp in self.raw.buffered_data_change.source_times]

    @property
    def raw_data_type(self) -> int:
        """The data type of the values as a native MxDataType number; see `DataType`."""
        return self.raw.buffered_data_change.raw_data_type

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.buffered_data_change.statuses)


class UnknownEvent(EventView):
    """An event of a kind that this release of the client does not know; its fields are in `raw`."""

    __slots__ = ()


Event: TypeAlias = DataChange | WriteComplete | OperationComplete | BufferedDataChange | UnknownEvent

DATA_CHANGE = events_pb2.EVENT_KIND_DATA_CHANGE
# Key: a kind of event, except data change. Value: the class of its views.
OTHERS: dict[int, type[Event]] = {
    events_pb2.EVENT_KIND_WRITE_COMPLETE: WriteComplete,
    events_pb2.EVENT_KIND_OPERATION_COMPLETE: OperationComplete,
    events_pb2.EVENT_KIND_BUFFERED_DATA_CHANGE: BufferedDataChange,
}


def view_of(raw: events_pb2.Event, context: StreamContext) -> Event:
    """Return a new view of an event.

    `EventBatch.__iter__` and `EventStream.__anext__` contain a copy of these lines instead of a call of this function.
    They run for every event, and a call would double their cost.
    """
    view = DataChange() if raw.kind == DATA_CHANGE else OTHERS.get(raw.kind, UnknownEvent)()
    view.raw, view._context, view.sequence = raw, context, raw.sequence
    return view


class EventBatch(Sequence[Event]):
    """The events of one message, oldest first; never empty.

    Each access by index and each iteration makes new views. `raw` is the list of the protobuf messages, for programs
    that need no views.
    """

    __slots__ = ("_context", "raw")

    def __init__(self, raw: Sequence[events_pb2.Event], context: StreamContext) -> None:
        self.raw = raw
        self._context = context

    @property
    def context(self) -> StreamContext:
        """The epoch of the events and the references of the session's items."""
        return self._context

    @property
    def first_sequence(self) -> int:
        """The sequence of the first event."""
        return self.raw[0].sequence

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event."""
        return self.raw[-1].sequence

    @property
    def position(self) -> Position:
        """The position of the last event."""
        return Position(self._context.epoch, self.last_sequence)

    def after(self, sequence: int) -> EventBatch:
        """Return the events that follow the event with this `sequence`, which must not be the last of the batch."""
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
