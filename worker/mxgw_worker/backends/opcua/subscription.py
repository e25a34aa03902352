"""One server handle's subscription."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .items import Item


class Subscription:
    """One server handle's subscription: what is on the server, and what is still to be sent there."""

    def __init__(self, server_handle: int) -> None:
        self.server_handle = server_handle
        self.id: int | None = None
        self.items: dict[int, Item] = {}  # by client handle
        self.pending: dict[Item, None] = {}  # advised, not yet monitored
        self.failed: dict[Item, None] = {}  # refused by the server; tried again now and then
        self.doomed: list[int] = []  # monitored items to delete
        self.modes: dict[Item, None] = {}  # suspended or activated since
        self.last_sequence = 0
        self.last_heard = 0.0
        self.silence_limit_s = 0.0
        self.suspected = False  # silent for longer than that at the last look
        self.gap_due = ""  # why values were missed; told when the subscription exists again
        self.closing = False
        # Of a subscription to events instead of items: who takes them, and who is told that some are missing.
        self.on_events: Callable[[Sequence[Any]], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
