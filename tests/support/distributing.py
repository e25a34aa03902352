"""A distributor whose clock a test moves, with shortcuts to append events, and policies and filters for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.events import EventFilter, Lag, OverflowPolicy, QueueLimits, Retention
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.pieces import Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from support.events import EPOCH, Clock, EveryItem, batch

NO_LIMITS = QueueLimits(events=0, bytes=0, seconds=0.0)
EVERYTHING = Retention(events=1_000_000, bytes=1 << 30, seconds=0.0)


class Pump:
    """A distributor with methods to append events and gaps to it, and to attach subscribers."""

    def __init__(self, *, unattached: Retention = EVERYTHING) -> None:
        self.clock = Clock()
        self.session_failures: list[str] = []
        self.distributor = Distributor(
            items=EveryItem(),
            unattached=unattached,
            on_fail_session=self.session_failures.append,
            clock=self.clock,
        )
        self.distributor.epoch = EPOCH
        self._attached = 0

    @property
    def head(self) -> int:
        return self.distributor.log.head

    def events(self, count: int, *, item_handle: int = 1, text: str = "") -> None:
        """Append a block of `count` data changes, and flush."""
        first, last = self.head + 1, self.head + count
        self.distributor.append(first, last, batch(range(first, last + 1), item_handle=item_handle, text=text))
        self.distributor.flush()

    def gap(self, count: int = 1, reason: e.GapReason.ValueType = e.GAP_REASON_WORKER_OUTBOX_OVERRUN) -> None:
        """Append a gap, and flush."""
        self.distributor.append_gap(Gap(self.head + 1, self.head + count, reason, "lost at the worker"))
        self.distributor.flush()

    def attach(
        self,
        start: Start | Position = Start.NOW,
        *,
        limits: QueueLimits = NO_LIMITS,
        policy: OverflowPolicy | None = None,
        filters: Sequence[EventFilter] = (),
        older_until: int | None = None,
    ) -> Subscriber:
        """Attach a subscriber, and return it."""
        self._attached += 1
        return self.distributor.attach(
            f"s{self._attached}",
            start,
            limits=limits,
            policy=policy or DisconnectPolicy(),
            filters=filters,
            older_until=older_until,
        )


@dataclass
class Told:
    """An overflow policy that returns `answer`, or raises it. It stores every lag with which it was called."""

    answer: object
    name: str = "told"
    asked: list[Lag] = field(default_factory=list)

    def on_overflow(self, lag: Lag) -> Any:
        self.asked.append(lag)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Items:
    """A filter that lets only the events of some items pass."""

    handles: Iterable[int]

    def keep(self, item: ItemRecord, kind: int) -> bool:
        return item.item_handle in self.handles


@dataclass
class KeepIf:
    """A filter that calls a function with the item handle and the kind of the event."""

    condition: Callable[[int, int], bool]

    def keep(self, item: ItemRecord, kind: int) -> bool:
        return self.condition(item.item_handle, kind)
