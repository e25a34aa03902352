"""The policy: what happens to one reader that fell behind. Needs no gateway, so it can be tested alone."""

from __future__ import annotations

from dataclasses import dataclass

from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE
from mxgw_core.api import Action, Conflate, Disconnect, Lag, Select


@dataclass(frozen=True, slots=True)
class KeepAlarmsPolicy:
    """Keeps every event of `items`, and whatever is no value; without items, the newest value of each item.

    It only chooses; the gateway drops the events, counts them, and reports them to the reader as exact gaps.
    """

    items: frozenset[int]
    patience_s: float
    name: str = "keep_alarms"

    def on_overflow(self, lag: Lag) -> Action:
        """Called in the gateway's event loop: quick, and without waiting for anything."""
        if lag.over_limit_s > self.patience_s:
            return Disconnect()
        return Select(self.is_kept) if self.items else Conflate()

    def is_kept(self, server_handle: int, item_handle: int, kind: int) -> bool:
        """Return whether these events stay; called once per item and kind of event."""
        del server_handle
        return kind != EVENT_KIND_DATA_CHANGE or item_handle in self.items
