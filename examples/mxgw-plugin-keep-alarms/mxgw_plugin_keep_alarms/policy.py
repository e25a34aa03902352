"""The policy: which events a subscriber keeps when it falls behind. It needs no gateway, so it can be tested alone."""

from __future__ import annotations

from dataclasses import dataclass

from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE
from mxgw_core.api import Action, Conflate, Disconnect, ItemRecord, Lag, Select


@dataclass(frozen=True, slots=True)
class KeepAlarmsPolicy:
    """Keeps every event of the items in `items`, and every event that is not a value.

    If `items` is empty, it keeps the newest value of each item instead. The policy only chooses. The gateway drops the
    events, counts them, and reports them to the subscriber in exact gaps.
    """

    items: frozenset[int]
    patience_s: float
    name: str = "keep_alarms"

    def on_overflow(self, lag: Lag) -> Action:
        """Answer an overflow.

        The event loop of the gateway waits meanwhile, so this must be quick and must not wait.
        """
        if lag.over_limit_s > self.patience_s:
            return Disconnect()
        return Select(self.is_kept) if self.items else Conflate()

    def is_kept(self, item: ItemRecord, kind: int) -> bool:
        """Return True when these events are kept. Called once per item and kind of event."""
        return kind != EVENT_KIND_DATA_CHANGE or item.item_handle in self.items
