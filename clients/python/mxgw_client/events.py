"""The four MXAccess events as typed views.

A view holds the protobuf event and turns a field into a Python value when it is asked for, so an event costs what is
read of it. `sequence` and `item_handle` are read at once: nearly every application needs them, and a slot is read five
times faster than a property computes. Views stay valid for as long as they are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import TypeAlias

from mxgw.convert import PyValue
from mxgw.v1 import events_pb2, values_pb2
from mxgw_client.enums import Quality
from mxgw_client.position import Position
from mxgw_client.references import ReferenceMap
from mxgw_client.values import PLAIN_KINDS, Status, moment, statuses_from_messages, value_of

# Items whose kind of value is remembered per stream; about twice the items of one worker.
_KINDS_KEPT = 50_000


_GETTERS: dict[str, Callable[[events_pb2.Event], PyValue]] = {
    kind: attrgetter(f"data_change.value.{kind}") for kind in PLAIN_KINDS
}


class StreamContext:
    """What all events of one stream share."""

    __slots__ = ("epoch", "getters", "references")

    def __init__(self, epoch: bytes, references: ReferenceMap) -> None:
        self.epoch = epoch
        self.references = references
        # What gets the field of the value message that each item used last.
        self.getters: dict[int, Callable[[events_pb2.Event], PyValue]] = {}


class EventView:
    """What the four events have in common. `raw` is the contract's message."""

    __slots__ = ("_context", "item_handle", "raw", "sequence")

    def __init__(self, raw: events_pb2.Event, context: StreamContext) -> None:
        self.raw = raw
        self._context = context
        self.sequence = raw.sequence
        self.item_handle = raw.item_handle

    @property
    def position(self) -> Position:
        """The place of this event: resuming after it continues with the next one."""
        return Position(self._context.epoch, self.raw.sequence)

    @property
    def server_handle(self) -> int:
        """The Register handle the item belongs to."""
        return self.raw.server_handle

    @property
    def reference(self) -> str:
        """The reference this session added the item with; empty when the session object does not know it."""
        raw = self.raw
        return self._context.references.lookup(raw.server_handle, raw.item_handle, raw.sequence)

    @property
    def worker_time(self) -> datetime:
        """When the worker took the event over (UTC, the worker's wall clock)."""
        return moment(self.raw.worker_time)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The MXSTATUS_PROXY array."""
        return ()

    @property
    def ok(self) -> bool:
        """Whether no status is a failure. When False, a value must not replace a known good one."""
        return all(status.ok for status in self.statuses)

    def __repr__(self) -> str:
        name = self.reference or f"item {self.item_handle}"
        return f"<{type(self).__name__} {self.sequence} {name}>"


class DataChange(EventView):
    """OnDataChange."""

    __slots__ = ()

    @property
    def value(self) -> PyValue:
        """The value; None when the source delivered none."""
        # Of a oneof only the field that is set can hold anything but its default. Asking which one is set costs as much
        # as all the rest, so ask only when the field that was set last time does not tell.
        try:
            value: PyValue = self._context.getters[self.item_handle](self.raw)
            if value:
                return value
        except KeyError:
            pass
        return self._value_of_new_kind(self.raw.data_change.value)

    def _value_of_new_kind(self, message: values_pb2.MxValue) -> PyValue:
        kind = message.WhichOneof("kind")
        if kind not in PLAIN_KINDS:
            return value_of(message)
        getters = self._context.getters
        if len(getters) >= _KINDS_KEPT:
            getters.clear()
        getters[self.item_handle] = _GETTERS[kind]
        value: PyValue = getattr(message, kind)
        return value

    @property
    def quality(self) -> Quality:
        """The OPC class of the quality."""
        return Quality(self.raw.data_change.quality)

    @property
    def raw_quality(self) -> int:
        """The quality as the source gave it."""
        return self.raw.data_change.raw_quality

    @property
    def source_time(self) -> datetime | None:
        """The source's time in UTC; None when it gave none or one that cannot be read (see `raw_source_time`)."""
        change = self.raw.data_change
        return moment(change.source_time) if change.HasField("source_time") else None

    @property
    def raw_source_time(self) -> str:
        """The source's time as text, when it came as text."""
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
        """`WriteResult.write_id` of the write this completes; 0 when no write of the session is known for the item."""
        return self.raw.write_complete.write_id

    @property
    def missing(self) -> bool:
        """True when no completion came in time: the outcome of the write is unknown, count it as failed."""
        return self.raw.write_complete.missing

    @property
    def pairing_uncertain(self) -> bool:
        """True after a missing completion of the same item: this may belong to the earlier write."""
        return self.raw.write_complete.pairing_uncertain

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.write_complete.statuses)

    @property
    def ok(self) -> bool:
        """Whether the write is known to have succeeded."""
        complete = self.raw.write_complete
        return not complete.missing and all(status.success for status in complete.statuses)


class OperationComplete(EventView):
    """OperationComplete; follows Suspend."""

    __slots__ = ()

    @property
    def statuses(self) -> tuple[Status, ...]:
        return statuses_from_messages(self.raw.operation_complete.statuses)


class BufferedDataChange(EventView):
    """OnBufferedDataChange: parallel lists, in the order in which they came."""

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
