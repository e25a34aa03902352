"""Events of several items and kinds, timers on a clock that a test moves, and a pump that records its events."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mxgw.v1 import events_pb2 as e
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.api.events import Retention
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.pieces import Gap
from support.accounts import Produced
from support.distributing import EVERYTHING, Pump
from support.events import EPOCH, Clock, EveryItem, serial_of

CHANGE, WRITE = e.EVENT_KIND_DATA_CHANGE, e.EVENT_KIND_WRITE_COMPLETE
OPERATION, BUFFERED = e.EVENT_KIND_OPERATION_COMPLETE, e.EVENT_KIND_BUFFERED_DATA_CHANGE


def happening(
    sequence: int, item: int = 1, *, server: int = 1, kind: e.EventKind.ValueType = CHANGE, text: str = ""
) -> e.Event:
    """Return an event of any kind."""
    event = e.Event(
        sequence=sequence, item_serial=serial_of(server, item), item_handle=item, kind=kind, server_handle=server
    )
    if kind == CHANGE:
        event.data_change.value.CopyFrom(MxValue(string=text) if text else MxValue(integer=sequence))
        event.data_change.raw_quality = 192
    elif kind == WRITE:
        event.write_complete.write_id = sequence
    elif kind == OPERATION:
        event.operation_complete.SetInParent()
    else:
        event.buffered_data_change.raw_qualities.append(192)
    return event


@dataclass
class _Timer:
    then: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Timers:
    """A replacement for `call_later` of the event loop, on a clock that a test moves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._number = itertools.count()
        self._due: list[tuple[float, int, _Timer]] = []

    @property
    def pending(self) -> list[float]:
        """The seconds until each timer is due."""
        return sorted(at - self._clock.now for at, _, timer in self._due if not timer.is_cancelled)

    def call_later(self, delay: float, then: Callable[[], None]) -> _Timer:
        timer = _Timer(then)
        heapq.heappush(self._due, (self._clock.now + delay, next(self._number), timer))
        return timer

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and call the function of each timer when it is due."""
        until = self._clock.now + seconds
        while self._due and self._due[0][0] <= until:
            at, _, timer = heapq.heappop(self._due)
            self._clock.now = max(self._clock.now, at)
            if not timer.is_cancelled:
                timer.then()
        self._clock.now = until


@dataclass
class Held:
    """Records when a distributor held the worker's events back (True) and released them (False)."""

    calls: list[bool] = field(default_factory=list)

    @property
    def now(self) -> bool:
        return bool(self.calls) and self.calls[-1]

    def __call__(self, on: bool) -> None:
        assert on is not self.now, "told twice"
        self.calls.append(on)


class RecordingPump(Pump):
    """A pump that records every event, and whose timers use its clock."""

    def __init__(self, *, unattached: Retention = EVERYTHING) -> None:
        super().__init__(unattached=unattached)
        self.timers = Timers(self.clock)
        self.held = Held()
        self.produced = Produced()
        self.items = EveryItem()
        self.distributor = Distributor(
            items=self.items,
            unattached=unattached,
            on_fail_session=self.session_failures.append,
            clock=self.clock,
            call_later=self.timers.call_later,
        )
        self.distributor.epoch = EPOCH
        self.distributor.hold_with(self.held)

    def happen(self, *events: tuple[int, e.EventKind.ValueType] | int, server: int = 1, text: str = "") -> None:
        """Append a block of events, and flush.

        Each event is an item handle (a data change) or a pair (item handle, kind).
        """
        pairs = [event if isinstance(event, tuple) else (event, CHANGE) for event in events]
        first = self.head + 1
        block = [
            happening(sequence, item, server=server, kind=kind, text=text)
            for sequence, (item, kind) in enumerate(pairs, first)
        ]
        self.append_block(block)

    def append_block(self, block: Iterable[e.Event]) -> None:
        """Append events as one block, and flush."""
        events = list(block)
        self.produced.happened.update((event.sequence, event) for event in events)
        data = e.EventBatch(events=events).SerializeToString()
        self.distributor.append(events[0].sequence, events[-1].sequence, data)
        self.distributor.flush()

    def gap(self, count: int = 1, reason: e.GapReason.ValueType = e.GAP_REASON_WORKER_OUTBOX_OVERRUN) -> None:
        first, last = self.head + 1, self.head + count
        self.produced.happened.update(dict.fromkeys(range(first, last + 1)))
        self.distributor.append_gap(Gap(first, last, reason, "lost at the worker"))
        self.distributor.flush()
