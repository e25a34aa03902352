"""Receives the backend's events. It encodes them for the outbox, keeps the last values, and pairs write completions
with writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from mxgw.convert import mapped_data_type, timestamp_from_ns
from mxgw.v1.events_pb2 import (
    EVENT_KIND_BUFFERED_DATA_CHANGE,
    EVENT_KIND_OPERATION_COMPLETE,
    EVENT_KIND_WRITE_COMPLETE,
    GAP_REASON_SOURCE_OVERFLOW,
    SOURCE_HEALTH_UNSPECIFIED,
    BufferedDataChange,
    GapReason,
    OperationComplete,
    SourceHealth,
    WriteComplete,
)
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.encoded_events import RecordEncoder
from mxgw_worker.items import ItemTable
from mxgw_worker.outbox import Outbox
from mxgw_worker.writes import PendingWrite, Writes

log = logging.getLogger(__name__)


class WorkerSink:
    """Implements `EventSink`. `on_event` is called after each event, and `on_failed` when the backend has failed for
    good.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        items: ItemTable,
        writes: Writes,
        on_event: Callable[[], None],
        on_failed: Callable[[str], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.health: SourceHealth.ValueType = SOURCE_HEALTH_UNSPECIFIED
        self.health_detail = ""
        self._outbox = outbox
        self._items = items
        self._writes = writes
        self._on_event = on_event
        self._on_failed = on_failed
        self._encoder = RecordEncoder(now_ns)
        writes.on_missing = self._write_missing

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        """Encode a data change; see `EventSink.data_change`. This is the hot path of the worker."""
        encoder = self._encoder
        outbox = self._outbox
        item = self._items.items.get((server_handle, item_handle))
        try:
            record = encoder.data_change(
                outbox.head_sequence + 1,
                self._items.serial_for(server_handle, item_handle) if item is None else item.serial,
                server_handle,
                item_handle,
                value,
                quality,
                source_time_ns,
                statuses,
                raw_source_time,
            )
        except Exception as error:
            self._unusable("data change", error)
            return
        if item is None:
            hidden = self._items.hidden.get((server_handle, item_handle))
            if hidden is not None:
                hidden.offer(record, encoder.is_initialising)
                return
            outbox.append(record)
        else:
            fits = outbox.append(record)
            if fits and (not encoder.has_failure or item.last_has_failure or item.last_record is None):
                item.last_record = record
                item.last_sequence = outbox.head_sequence
                item.last_has_failure = encoder.has_failure
                item.last_is_initialising = encoder.is_initialising
            if item.readings:
                for reading in item.readings:
                    reading.offer(record, encoder.is_initialising)
        self._on_event()

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """Pair a write completion with its write, and encode it; see `EventSink.write_complete`."""
        item = self._items.get(server_handle, item_handle)
        try:
            # The item's state is read before the write ends, because the end of the write can lead to the removal of
            # the item.
            uncertain = item is not None and item.pairing_uncertain
            write_id = 0 if item is None else self._writes.complete(item, statuses)
            body = WriteComplete(statuses=statuses, write_id=write_id, pairing_uncertain=uncertain)
        except Exception as error:
            self._unusable("write completion", error)
            return
        self._append(EVENT_KIND_WRITE_COMPLETE, server_handle, item_handle, body.SerializeToString())

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """Encode an operation completion; see `EventSink.operation_complete`."""
        try:
            body = OperationComplete(statuses=statuses)
        except Exception as error:
            self._unusable("operation completion", error)
            return
        self._append(EVENT_KIND_OPERATION_COMPLETE, server_handle, item_handle, body.SerializeToString())

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        source_times_ns: Sequence[int],
        statuses: Sequence[MxStatus],
    ) -> None:
        """Encode a buffered data change; see `EventSink.buffered_data_change`."""
        try:
            body = BufferedDataChange(
                data_type=mapped_data_type(data_type),
                raw_data_type=data_type,
                value=value,
                raw_qualities=qualities,
                source_times=[timestamp_from_ns(ns) for ns in source_times_ns],
                statuses=statuses,
            )
        except Exception as error:
            self._unusable("buffered data change", error)
            return
        self._append(EVENT_KIND_BUFFERED_DATA_CHANGE, server_handle, item_handle, body.SerializeToString())

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        """Keep a gap in the outbox; see `EventSink.source_gap`."""
        log.warning("the source lost events (%s): %s", GapReason.Name(reason), detail)
        self._outbox.append_gap(reason, detail, count)
        self._on_event()

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:
        """Keep the source's health; see `EventSink.source_health`."""
        if health != self.health:
            log.info("source health is %s: %s", SourceHealth.Name(health), detail)
        self.health = health
        self.health_detail = detail

    def failed(self, detail: str) -> None:
        """Report that the backend has failed for good; see `EventSink.failed`."""
        self._on_failed(detail)

    def _append(self, kind: int, server_handle: int, item_handle: int, body: bytes, serial: int = 0) -> None:
        outbox = self._outbox
        serial = serial or self._items.serial_for(server_handle, item_handle)
        outbox.append(self._encoder.other(outbox.head_sequence + 1, kind, serial, server_handle, item_handle, body))
        self._on_event()

    def _write_missing(self, write: PendingWrite) -> None:
        log.warning("write %d got no completion in time; its outcome is unknown", write.write_id)
        item = write.item
        body = WriteComplete(write_id=write.write_id, missing=True, pairing_uncertain=item.pairing_uncertain)
        # If the item was removed, another item can have its handle now, and the removed item's serial must not be used
        # any more.
        serial = item.serial if self._items.get(*item.key) is item else self._items.next_serial()
        self._append(EVENT_KIND_WRITE_COMPLETE, *item.key, body.SerializeToString(), serial)

    def _unusable(self, what: str, error: Exception) -> None:
        """Report a gap in place of an event that cannot be encoded. The backend has a bug when it delivers such
        data.
        """
        log.error("the backend delivered a %s that cannot be encoded", what, exc_info=error)
        detail = f"the backend delivered a {what} that cannot be encoded; see the worker's log"
        self._outbox.append_gap(GAP_REASON_SOURCE_OVERFLOW, detail, 1)
        self._on_event()
