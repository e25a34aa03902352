"""What the screen of one session shows: the session's items with their latest values, and its latest events."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mxgw.convert import timestamp_to_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as ss
from mxgw_dashboard_tui.tui.event_rows import event_row, gap_row, left_out_row
from mxgw_dashboard_tui.tui.model import own
from mxgw_dashboard_tui.tui.text import session_name
from mxgw_dashboard_tui.tui.widgets.grid import Row

_LOG_ROWS = 2000


@dataclass(slots=True)
class Item:
    """One item. `state` is from the latest list of items; `value` is the latest data change, which can be newer."""

    state: ss.ItemState
    value: e.DataChange | None
    sequence: int
    # When the worker received the value, by the clock of the worker's machine; 0 when the value is from a list.
    worker_ns: int = 0


class SessionModel:
    """Collects what the source reports about one session, for its screen: details, items and events."""

    def __init__(self) -> None:
        self.detail: pb.WatchSessionResponse | None = None
        self.received_at: float | None = None
        # Key: item serial (item handles are used again after a removal).
        self.items: dict[int, Item] = {}
        self.items_at: float | None = None
        self.total_items = 0
        self.events: deque[Row] = deque(maxlen=_LOG_ROWS)
        self.event_count = 0
        self.events_at: float | None = None

    @property
    def name(self) -> str:
        return session_name(self.detail.row.session) if self.detail is not None else ""

    @property
    def now_ns(self) -> int:
        """The gateway's time in the latest details, in nanoseconds since 1970; 0 before any details arrived."""
        return timestamp_to_ns(self.detail.as_of) if self.detail is not None else 0

    @property
    def is_over(self) -> bool:
        return self.detail is not None and self.detail.row.session.HasField("closed_at")

    @property
    def source_is_lost(self) -> bool:
        return self.detail is not None and self.detail.row.session.source_health == e.SOURCE_HEALTH_LOST

    def take_detail(self, detail: pb.WatchSessionResponse, now: float) -> None:
        """Replace the details of the session."""
        self.detail, self.received_at = detail, now

    def take_items(self, pages: Sequence[pb.ListItemsResponse], now: float) -> None:
        """Replace the items with a new list from the worker. A value from an event is kept if it is newer."""
        known = self.items
        self.items = {}
        for page in pages:
            for state in page.state.items:
                key = state.item_serial
                old = known.get(key)
                if old is not None and old.sequence >= state.last_sequence:
                    self.items[key] = Item(state, old.value, old.sequence, old.worker_ns)
                else:
                    value = state.last_value if state.HasField("last_value") else None
                    self.items[key] = Item(state, value, state.last_sequence)
            self.total_items = page.state.total_items
        self.items_at = now

    def take_events(self, message: pb.WatchEventsResponse, now: float) -> None:
        """Add rows for gaps and events, and store the new values in the items."""
        self.events_at = now
        for gap in message.gaps:
            self.events.append(gap_row(gap))
        for event in message.events:
            self.event_count += 1
            item = self.items.get(event.item_serial)
            name = item.state.item_definition if item is not None else ""
            self.events.append(event_row(event, name))
            if item is not None and event.kind == e.EVENT_KIND_DATA_CHANGE:
                item.sequence = event.sequence
                item.worker_ns = timestamp_to_ns(event.worker_time)
                item.value = own(event.data_change)
        if message.conflated_events:
            self.events.append(left_out_row(message))
