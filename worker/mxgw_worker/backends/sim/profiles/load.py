"""Profile `load`: many items that change at a given rate, with values that a checker can compute.

The items are `Load.Item00001` to `Load.Item<items>`. After Advise, an item handle gets values number k = 0, 1, 2 and so
on. For item n, value k is the Double `n * 2**32 + k % 2**32`; see `expected_value`. With `text_bytes` the value is the
same number as a String, padded with dots. The quality is always good, and no value is sent before the first real one,
so a client gets exactly one event per value. At each Advise k starts at 0 again, and k has no holes: a value that is
missing at the client was lost on the way.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator

from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import SimObject
from mxgw_worker.backends.sim.items import Attribute, ChangeListener, Item
from mxgw_worker.backends.sim.options import SimOptions
from mxgw_worker.backends.sim.status import GOOD, OK, DataType

log = logging.getLogger(__name__)

# The clock is read once per this number of events. These events share a source time. A run of events can therefore last
# longer than `_SLICE_S`, but only by the time for these events.
_CHUNK_EVENTS = 50
_SLICE_S = 0.003
_SLICE_EVENTS = 2_000
# The shortest pause between two runs of events. Shorter pauses would cost more in wake-ups than they gain in
# smoothness.
_TICK_S = 0.002
# After a delay, missed events are made up for, but at most the events of this number of seconds.
_DEBT_S = 5.0
_PAUSE_S = 0.05
_LISTED_ITEMS = 10_000
_NAME = re.compile(r"item(\d{5,7})", re.ASCII)


def expected_value(number: int, count: int) -> float:
    """Return the value with index `count` (from 0) of the item `number`. A float is exact: it is below 2**53."""
    return float(number * 2**32 + count % 2**32)


def expected_text(number: int, count: int, text_bytes: int) -> str:
    """Return value `count` of item `number` as the text that is sent with the option `text_bytes`."""
    return f"{expected_value(number, count):.0f}".ljust(text_bytes, ".")


def build_load(emitter: Emitter, options: SimOptions) -> None:
    """Fill the galaxy with the object `Load`. Nothing runs before the first item is advised."""
    emitter.galaxy.add(LoadObject(LoadGenerator(emitter, options), options))


class _LoadAttribute(Attribute):
    """The attribute of one item. Its values come from the generator, and not from changes of the attribute."""

    __slots__ = ("_generator", "number")

    def __init__(self, number: int, data_type: DataType, generator: LoadGenerator) -> None:
        super().__init__(f"Item{number:05d}", data_type, None, "Deterministic load")
        self.object_name = "Load"
        self.number = number
        self._generator = generator

    def attach(self, item: Item, listener: ChangeListener) -> None:  # noqa: ARG002 - the generator makes the events
        self._generator.add(item, self.number)

    def detach(self, item: Item) -> None:
        self._generator.remove(item)


class LoadObject(SimObject):
    """The object `Load`. Its items are named by number, and are made when they are looked up."""

    def __init__(self, generator: LoadGenerator, options: SimOptions) -> None:
        listed = "" if options.items <= _LISTED_ITEMS else f"; a browse lists the first {_LISTED_ITEMS}"
        super().__init__("Load", "", f"{options.items} items from Item00001, {options.rate:g} events/s in all{listed}")
        self._generator = generator
        self._items = options.items
        self._data_type = DataType.STRING if options.text_bytes else DataType.DOUBLE
        self.add_writeable("Target", DataType.DOUBLE, 0.0, "Takes writes, for measuring them")

    def attributes(self) -> Iterator[Attribute]:
        yield from super().attributes()
        for number in range(1, min(self._items, _LISTED_ITEMS) + 1):
            yield _LoadAttribute(number, self._data_type, self._generator)

    def find(self, name: str) -> Attribute | None:
        match = _NAME.fullmatch(name.lower())
        if match is None:
            return super().find(name)
        number = int(match[1])
        # `Item000001` would be a second name for the same item. In a Galaxy no item has a second name.
        if not 1 <= number <= self._items or match[1] != f"{number:05d}":
            return None
        return _LoadAttribute(number, self._data_type, self._generator)


class LoadGenerator:
    """Sends first values in the order of the advises. Then it sends values round robin to all items that have their
    first value.
    """

    def __init__(self, emitter: Emitter, options: SimOptions) -> None:
        self._emitter = emitter
        self._rate = options.rate
        self._is_unthrottled = options.burst == "max"
        self._text_bytes = options.text_bytes
        self._message = MxValue()  # The sink encodes before it returns, so one message serves all events.
        # Key: item that gets values. Value: False until its first value was sent; True when it gets its values round
        # robin.
        self._members: dict[Item, bool] = {}
        self._first: deque[Item] = deque()
        self._ring: list[Item] = []
        self._next = 0
        self._is_ring_stale = False
        self._is_sending_first = False
        self._is_ticking = False
        self._due_events = 0.0
        self._accounted_until = 0.0

    def add(self, item: Item, number: int) -> None:
        """Send values to this item from now on. The number of the first value is `item.count`. Nothing happens when the
        item gets values already.
        """
        if item in self._members:
            return
        item.base = float(number * 2**32)
        self._members[item] = False
        self._first.append(item)
        if not self._is_sending_first:
            self._is_sending_first = True
            self._emitter.timers.after(0.0, self._send_first)

    def remove(self, item: Item) -> None:
        """Send no more values of this item."""
        if self._members.pop(item, False):
            self._is_ring_stale = True

    def _send_first(self) -> None:
        if self._is_ring_stale:
            self._compact()
        batch: list[Item] = []
        while self._first and len(batch) < _SLICE_EVENTS // 4 and not self._emitter.is_down:
            item = self._first.popleft()
            if self._members.get(item) is False:
                self._members[item] = True
                batch.append(item)
        self._send(batch, 0, len(batch))
        self._ring += batch
        if self._first:
            self._emitter.timers.after(_PAUSE_S if self._emitter.is_down else 0.0, self._send_first)
        else:
            self._is_sending_first = False
        if not self._is_ticking and (self._rate > 0 or self._is_unthrottled):
            self._is_ticking = True
            self._accounted_until = self._emitter.clock.monotonic()
            self._emitter.timers.after(_TICK_S, self._tick)

    def _tick(self) -> None:
        if self._is_ring_stale:
            self._compact()
        now = self._emitter.clock.monotonic()
        elapsed_s, self._accounted_until = now - self._accounted_until, now
        if not self._ring or self._emitter.is_down:
            self._due_events = 0.0
            if self._members:
                self._emitter.timers.after(_PAUSE_S, self._tick)
            else:
                self._is_ticking = False
            return
        if self._is_unthrottled:
            self._send_next(_SLICE_EVENTS)
            self._emitter.timers.after(0.0, self._tick)
            return
        self._due_events += elapsed_s * self._rate
        if self._due_events > (most := self._rate * _DEBT_S):
            log.warning("the load is behind by %d events more than it makes up for", self._due_events - most)
            self._due_events = most
        self._due_events -= self._send_next(min(int(self._due_events), _SLICE_EVENTS))
        pause_s = 0.0 if self._due_events >= 1 else max(_TICK_S, (1 - self._due_events) / self._rate)
        self._emitter.timers.after(min(pause_s, 1.0), self._tick)

    def _send_next(self, count: int) -> int:
        """Send up to `count` events round robin, for at most about `_SLICE_S`. Return how many events were sent."""
        clock = self._emitter.clock
        deadline = clock.monotonic() + _SLICE_S
        sent = 0
        while sent < count:
            stop = min(self._next + _CHUNK_EVENTS, self._next + count - sent, len(self._ring))
            self._send(self._ring, self._next, stop)
            sent += stop - self._next
            self._next = stop if stop < len(self._ring) else 0
            if clock.monotonic() >= deadline:
                break
        return sent

    def _send(self, items: list[Item], start: int, stop: int) -> None:
        """Send one value of each of these items. This is the hot loop of the simulator: it makes no call per event
        except that of the sink.
        """
        message, text_bytes, sample = self._message, self._text_bytes, self._emitter.sample
        data_change = self._emitter.sink.data_change
        now_ns = self._emitter.clock.wall_ns()
        for item in items[start:stop]:
            number = item.base + item.count % 4294967296
            item.count += 1
            if item.samples is not None:
                sample(item, f"{number:.0f}".ljust(text_bytes, ".") if text_bytes else number, GOOD, now_ns)
                continue
            if text_bytes:
                message.string = f"{number:.0f}".ljust(text_bytes, ".")
            else:
                message.double = number
            data_change(item.server.handle, item.handle, message, GOOD, now_ns, OK)

    def _compact(self) -> None:
        before = sum(1 for item in self._ring[: self._next] if self._members.get(item))
        self._ring = [item for item in self._ring if self._members.get(item)]
        self._next = before if before < len(self._ring) else 0
        self._is_ring_stale = False
