"""Turns OPC UA DataValues into events. No other module of this backend sends events of items to the sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW, GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import EventSink

from . import status, values
from .items import Item


class Emitter:
    """Sends events to the sink between `open` and `close`. It gathers the values of buffered items, and `flush` sends
    them as arrays.

    Values are not gathered at the server, because servers are allowed to ignore a changed publishing interval, and
    limit their queues. A buffer with `buffer_limit_events` values is sent early, so that no value is lost.
    """

    def __init__(self, buffer_limit_events: int) -> None:
        self._sink: EventSink | None = None
        self._buffer_limit_events = buffer_limit_events
        self._gathered: dict[int, dict[Item, None]] = {}

    def open(self, sink: EventSink) -> None:
        """Send events to `sink` from now on."""
        self._sink = sink

    def close(self) -> None:
        """Send no more events."""
        self._sink = None

    def notify(self, notifications: Sequence[Any], items: dict[int, Item]) -> list[Item]:
        """Send the values of one DataChangeNotification, in its order. `items` has the items by client handle.

        Return the items whose last value says that their node does not exist.
        """
        overflow_told = False
        gone: dict[Item, None] = {}
        for notification in notifications:
            item = items.get(notification.ClientHandle)
            # A client handle has no item when the item was un-advised meanwhile, or when the request that created the
            # monitored item got no answer.
            if item is None:
                continue
            value = notification.Value
            code = value.StatusCode.value if value.StatusCode is not None else 0
            if not overflow_told and status.overflowed(code):
                overflow_told = True
                self.gap(
                    GAP_REASON_SOURCE_OVERFLOW,
                    "the server's queue of at least one item dropped values; raise queue_size or publish faster",
                )
            item.last = value
            item.stale = False
            if status.node_is_gone(code):
                gone[item] = None
                # The same failure is reported only once in a row, also when its item was created anew.
                if item.failure == status.failure_of(code):
                    continue
                item.failure = status.failure_of(code)
            else:
                gone.pop(item, None)
                item.failure = 0
            self._emit(item, value, code)
        return list(gone)

    def repeat(self, item: Item) -> None:
        """Report the last known value again. The server kept the subscription during an outage, so this value is still
        current.
        """
        item.stale = False
        if item.last is not None:
            code = item.last.StatusCode.value if item.last.StatusCode is not None else 0
            self._emit(item, item.last, code)

    def fail(self, item: Item, code: int) -> None:
        """Report that the item cannot be read. The same failure is reported only once in a row."""
        if item.failure == status.failure_of(code):
            return
        item.failure = status.failure_of(code)
        self._bad(item, status.quality_of(code), status.failure_statuses(code))

    def lose(self, item: Item) -> None:
        """Report that the server is not connected. This is reported once per outage."""
        if not item.stale:
            item.stale = True
            item.failure = 0
            self._bad(item, status.BAD_COMMUNICATION, status.lost_statuses())

    def write_complete(self, item: Item, statuses: Sequence[MxStatus]) -> None:
        """Emit the result of the item's oldest unanswered write."""
        if self._sink is not None and not item.removed:
            self._sink.write_complete(item.server_handle, item.handle, statuses)

    def operation_complete(self, item: Item, statuses: Sequence[MxStatus]) -> None:
        """Emit the result of a Suspend or Activate."""
        if self._sink is not None and not item.removed:
            self._sink.operation_complete(item.server_handle, item.handle, statuses)

    def gap(self, reason: GapReason.ValueType, detail: str) -> None:
        """Report a gap, because an unknown number of events is missing here."""
        if self._sink is not None:
            self.flush_all()
            self._sink.source_gap(reason, detail)

    def health(self, health: SourceHealth.ValueType, detail: str) -> None:
        """Report the health of the source."""
        if self._sink is not None:
            self._sink.source_health(health, detail)

    def flush(self, server_handle: int) -> None:
        """Send the gathered values of a server handle's buffered items, one event per item."""
        for item in self._gathered.pop(server_handle, ()):
            self._send_buffer(item)

    def flush_all(self) -> None:
        """Send every gathered value."""
        for server_handle in list(self._gathered):
            self.flush(server_handle)

    async def flush_every(self, server_handle: int, interval_ms: float) -> None:
        """Send the gathered values every `interval_ms`, until cancelled."""
        while True:
            await asyncio.sleep(interval_ms / 1000)
            self.flush(server_handle)

    def _emit(self, item: Item, value: Any, code: int) -> None:
        if self._sink is None or item.removed:  # Another item may have the handle by now.
            return
        if item.buffered:
            self._gather(item, value)
            return
        self._sink.data_change(
            item.server_handle,
            item.handle,
            values.to_mx(value.Value),
            status.quality_of(code),
            values.source_time_ns(value),
            status.value_statuses(code),
        )

    def _bad(self, item: Item, quality: int, statuses: Sequence[MxStatus]) -> None:
        if self._sink is None or item.removed:
            return
        now_ns = time.time_ns()
        if not item.buffered:
            self._sink.data_change(item.server_handle, item.handle, MxValue(), quality, now_ns, statuses)
            return
        self._send_buffer(item)
        array, data_type = values.to_mx_array([None])
        self._sink.buffered_data_change(
            item.server_handle, item.handle, data_type, array, [quality], [now_ns], statuses
        )

    def _gather(self, item: Item, value: Any) -> None:
        self._gathered.setdefault(item.server_handle, {})[item] = None
        item.buffer.append(value)
        if len(item.buffer) >= self._buffer_limit_events:
            self._send_buffer(item)

    def _send_buffer(self, item: Item) -> None:
        held, item.buffer = item.buffer, []
        if self._sink is None or not held or item.removed or not item.advised:
            return
        codes = [v.StatusCode.value if v.StatusCode is not None else 0 for v in held]
        array, data_type = values.to_mx_array([v.Value for v in held])
        now_ns = time.time_ns()
        self._sink.buffered_data_change(
            item.server_handle,
            item.handle,
            data_type,
            array,
            [status.quality_of(code) for code in codes],
            # The contract requires one time per value. A value without a time gets the time at which the array is sent.
            [now_ns if (ns := values.source_time_ns(v)) is None else ns for v in held],
            status.value_statuses(next((code for code in codes if code), 0)),
        )
