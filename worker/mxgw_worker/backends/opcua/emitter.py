"""Makes events of DataValues: the only module of this backend that sends events of items to the sink."""

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
    """Sends nothing before `open` and after `close`. Values of buffered items are gathered here, and sent as arrays by
    `flush`.

    They are gathered here and not at the server, because servers may ignore a changed publishing interval, and limit
    their queues. A buffer that has `buffer_limit_events` values is sent early, so that none is lost.
    """

    def __init__(self, buffer_limit_events: int) -> None:
        self._sink: EventSink | None = None
        self._buffer_limit_events = buffer_limit_events
        self._gathered: dict[int, dict[Item, None]] = {}

    def open(self, sink: EventSink) -> None:
        """Start emitting into `sink`."""
        self._sink = sink

    def close(self) -> None:
        """Stop emitting."""
        self._sink = None

    def notify(self, notifications: Sequence[Any], items: dict[int, Item]) -> None:
        """Emit one DataChangeNotification's values, in its order; `items` by client handle."""
        overflow_told = False
        for notification in notifications:
            item = items.get(notification.ClientHandle)
            if item is None:  # un-advised meanwhile, or of a request whose answer never came
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
            item.failure = 0
            self._emit(item, value, code)

    def repeat(self, item: Item) -> None:
        """Report the last known value again: the server kept the subscription, so it is still the current one."""
        item.stale = False
        if item.last is not None:
            code = item.last.StatusCode.value if item.last.StatusCode is not None else 0
            self._emit(item, item.last, code)

    def fail(self, item: Item, code: int) -> None:
        """Report that the item cannot be read; the same failure only once in a row."""
        if item.failure == code:
            return
        item.failure = code
        self._bad(item, status.quality_of(code), status.failure_statuses(code))

    def lose(self, item: Item) -> None:
        """Report, once per outage, that the server is not connected."""
        if not item.stale:
            item.stale = True
            item.failure = 0
            self._bad(item, status.BAD_COMMUNICATION, status.lost_statuses())

    def write_complete(self, item: Item, statuses: Sequence[MxStatus]) -> None:
        """Emit the result of the item's oldest unanswered write."""
        if self._sink is not None and not item.removed:
            self._sink.write_complete(item.server_handle, item.handle, statuses)

    def operation_complete(self, item: Item, statuses: Sequence[MxStatus]) -> None:
        """Emit the result of a suspend or activate."""
        if self._sink is not None and not item.removed:
            self._sink.operation_complete(item.server_handle, item.handle, statuses)

    def gap(self, reason: GapReason.ValueType, detail: str) -> None:
        """Report a gap: an unknown number of events is missing here."""
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
        """Send gathered values each `interval_ms`, until cancelled."""
        while True:
            await asyncio.sleep(interval_ms / 1000)
            self.flush(server_handle)

    def _emit(self, item: Item, value: Any, code: int) -> None:
        if self._sink is None or item.removed:  # its handle may be another item's
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
            # The contract has one time per value: without one from the server it is the time of arrival.
            [now_ns if (ns := values.source_time_ns(v)) is None else ns for v in held],
            status.value_statuses(next((code for code in codes if code), 0)),
        )
