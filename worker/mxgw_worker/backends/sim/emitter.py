"""Makes the events of items: first values, changes, completions and buffers. It also resolves references and simulates
outages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mxgw.convert import PyValue, to_value
from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import EventSink
from mxgw_worker.backends.sim import status
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.galaxy import Galaxy
from mxgw_worker.backends.sim.items import Item, Server
from mxgw_worker.backends.sim.status import DataType, Detail, Refused
from mxgw_worker.backends.sim.timers import Clock, Timers

if TYPE_CHECKING:
    from mxgw_worker.backends.sim.options import SimOptions

log = logging.getLogger(__name__)

_NO_VALUE = MxValue()
# The number of samples that fill a buffer. A full buffer is sent before its interval ends, so that nothing is lost and
# memory stays bounded.
BUFFERED_SAMPLES = 1_000
# An outage concerns all items. They are handled in chunks of this size, one chunk per timer call.
_CHUNK_ITEMS = 200


class Emitter:
    """Runs the simulation and sends its events to the sink. It exists from start to stop of the backend."""

    def __init__(self, galaxy: Galaxy, clock: Clock, sink: EventSink, options: SimOptions) -> None:
        self.galaxy = galaxy
        self.clock = clock
        self.sink = sink
        self.timers = Timers(clock, sink.failed)
        self.completion_delay_s = options.completion_delay_s
        # How many of the next write completions are dropped. The attribute `Sim.DropCompletions` sets it.
        self.drop_completions = 0
        self.is_down = False
        self._is_recovering = False
        self._resolve_delay_s = options.resolve_delay_s
        self._recovery_delay_s = options.recovery_delay_s
        # The number of outages so far. A recovery does not finish when the platform has gone down again meanwhile.
        self._outages = 0
        self._advised: dict[Item, None] = {}

    # Methods that run commands of clients.

    def advise(self, item: Item, *, supervisory: bool) -> None:
        """Start data changes. A second advise only changes whether writes count as an operator's or as the client's
        own.
        """
        item.supervisory = supervisory
        if item.advised:
            return
        item.advised = True
        item.last = None
        item.count = 0
        self._advised[item] = None
        if item.samples is not None and item.server.buffer_timer is None:
            self._arm_buffers(item.server)
        if item.attribute is None and self._resolve_delay_s > 0:
            self._later(item, 0.0, self._announce)
            self._later(item, self._resolve_delay_s, self._resolve)
        else:
            self._later(item, 0.0, self._resolve)

    def un_advise(self, item: Item) -> None:
        """Stop data changes, and drop completions that are due. Nothing happens when the item is not advised.

        An accepted write still takes effect, but no completion follows
        (docs/reference/mxaccess.md#writes-need-an-advised-item).
        """
        if item.advised:
            item.generation += 1
            item.advised = item.suspended = False
            if item.samples:
                item.samples.clear()
            self._advised.pop(item, None)
            if item.attribute is not None:
                item.attribute.detach(item)

    def suspend(self, item: Item) -> Sequence[MxStatus]:
        """Stop data changes until `resume`. An operation completion follows, unless the item was suspended already."""
        if item.suspended:
            return status.OK
        item.suspended = True
        if item.attribute is not None:
            item.attribute.detach(item)
        self._later(item, self.completion_delay_s, self._operation_completed)
        return status.PENDING

    def resume(self, item: Item) -> Sequence[MxStatus]:
        """Start data changes again. The present value is reported, unless the client knows it already."""
        if not item.suspended:
            return status.OK
        item.suspended = False
        self._later(item, self.completion_delay_s, self._operation_completed)
        if item.attribute is not None:
            self._later(item, self.completion_delay_s, self._attach)
        return status.PENDING

    def write(self, item: Item, value: PyValue, time_ns: int | None, refused: Callable[[], Detail | None]) -> None:
        """Complete a write after the completion delay. `refused` is called at that time, and returns why security
        refuses the write, or None.
        """
        generation = item.generation
        self.timers.after(
            self.completion_delay_s, lambda: self._complete_write(item, generation, value, time_ns, refused)
        )

    def set_buffered_interval(self, server: Server, interval_s: float) -> None:
        """Set how often the buffered items of this server are reported."""
        server.buffered_interval_s = interval_s
        if server.buffer_timer is not None:
            server.buffer_timer.cancel()
            self._arm_buffers(server)

    # Methods that stop and start the simulated platform.

    def platform_down(self) -> None:
        """Simulate the loss of the platform: every value becomes bad and stays bad, but handles stay valid.

        Source: docs/reference/mxaccess.md#platform-loss.
        """
        if self.is_down and not self._is_recovering:
            return
        self.is_down = True
        self._is_recovering = False
        self._outages += 1
        self.sink.source_health(SOURCE_HEALTH_LOST, "the simulated platform is down; values are stale until it returns")
        self._for_all(self._lost)

    def platform_up(self) -> None:
        """Start the platform again. Good values return after the recovery delay."""
        if not self.is_down or self._is_recovering:
            return
        self._is_recovering = True
        outage = self._outages
        self.sink.source_health(SOURCE_HEALTH_DEGRADED, "the simulated platform is starting again")

        def recovered() -> None:
            if outage == self._outages:
                self.is_down = self._is_recovering = False
                self.sink.source_health(SOURCE_HEALTH_GOOD, "the simulated platform is back")
                self._for_all(self._rebind)

        self.timers.after(self._recovery_delay_s, recovered)

    def stop(self) -> None:
        """Drop all scheduled calls, and un-advise all items. No event follows."""
        self.timers.close()
        for item in list(self._advised):
            self.un_advise(item)

    # Methods that report the values of items.

    def changed(self, item: Item) -> None:
        """Report the item's value, unless the client knows it already. The item's attribute calls this."""
        attribute = item.attribute
        if attribute is None or (self.is_down and not attribute.immune):
            return
        try:
            value = attribute.at(item.index)
        except Refused as refusal:
            if item.last is not refusal.detail:
                item.last = refusal.detail
                self._fail(item, refusal.detail)
            return
        known = (value, attribute.quality)
        if item.last == known:
            return
        item.last = known
        if item.samples is not None:
            self.sample(item, value, attribute.quality, attribute.time_ns)
        else:
            self.sink.data_change(
                item.server.handle,
                item.handle,
                attribute.encoded(item.index),
                attribute.quality,
                attribute.time_ns,
                status.OK,
            )

    def sample(self, item: Item, value: Value, quality: int, time_ns: int) -> None:
        """Add a value to the next report of a buffered item."""
        if item.samples is not None and value is not None:
            item.samples.append((value, quality, time_ns))
            if len(item.samples) >= BUFFERED_SAMPLES:
                self._send_buffer(item)

    def _announce(self, item: Item) -> None:
        """Report a value of quality 32, which says that the real value will follow.

        Source: docs/reference/mxaccess.md#first-values.
        """
        if item.samples is None and not item.suspended and not self.is_down:
            self._initialising(item, Detail.RESOLVING_ATTRIBUTE)

    def _resolve(self, item: Item) -> None:
        """Bind the item to its attribute, or report what is wrong with its reference. As in MXAccess, a wrong reference
        is reported after Advise, and not at AddItem.

        Source: docs/reference/mxaccess.md#wrong-names.
        """
        if item.attribute is not None:
            self._attach(item)
            return
        refusal: Detail | None = None
        try:
            found = self.galaxy.find(item.definition, item.context)
        except Refused as refused:
            refusal = refused.detail
        if self.is_down and (refusal is not None or not found[0].immune):
            refusal = Detail.PLATFORM_COMMUNICATION_ERROR
        if refusal is not None:
            if item.last is not refusal:
                item.last = refusal
                self._fail(item, refusal)
            return
        item.attribute, item.index = found
        self._attach(item)

    def _attach(self, item: Item) -> None:
        attribute = item.attribute
        if attribute is None or item.suspended:
            return
        if self.is_down and not attribute.immune:
            self._lost(item)
        attribute.attach(item, self)

    def _lost(self, item: Item) -> None:
        if item.suspended or (item.attribute is not None and item.attribute.immune):
            return
        if item.last is not Detail.PLATFORM_COMMUNICATION_ERROR:
            item.last = Detail.PLATFORM_COMMUNICATION_ERROR
            self._fail(item, Detail.PLATFORM_COMMUNICATION_ERROR)

    def _rebind(self, item: Item) -> None:
        if item.suspended or (item.attribute is not None and item.attribute.immune):
            return
        item.last = None
        if item.samples is None:
            self._initialising(item, Detail.ENGINE_INITIALIZING)
        self._later(item, self._resolve_delay_s, self._resolve)

    def _initialising(self, item: Item, detail: Detail) -> None:
        self.sink.data_change(
            item.server.handle,
            item.handle,
            _NO_VALUE,
            status.WAITING_FOR_INITIAL_DATA,
            self.clock.wall_ns(),
            status.initialising(detail),
        )

    def _fail(self, item: Item, detail: Detail) -> None:
        lost = detail is Detail.PLATFORM_COMMUNICATION_ERROR
        quality = status.BAD_COMMUNICATION if lost else status.BAD_CONFIGURATION
        now_ns = self.clock.wall_ns()
        server, handle = item.server.handle, item.handle
        if item.samples is None:
            self.sink.data_change(server, handle, _NO_VALUE, quality, now_ns, status.failed(detail))
            return
        self._send_buffer(item)  # Samples from before the failure are sent first.
        self.sink.buffered_data_change(
            server, handle, DataType.NO_DATA, _NO_VALUE, [quality], [now_ns], status.failed(detail)
        )

    # Methods that report completions.

    def _complete_write(
        self,
        item: Item,
        generation: int,
        value: PyValue,
        time_ns: int | None,
        refused: Callable[[], Detail | None],
    ) -> None:
        attribute = item.attribute
        # The backend accepts a write only when the item's reference is resolved, so there is an attribute.
        assert attribute is not None
        accepted: Value = None
        is_lost = self.is_down and not attribute.immune
        detail = Detail.PLATFORM_COMMUNICATION_ERROR if is_lost else refused()
        if detail is None:
            try:
                accepted = attribute.accept(item.index, value)
            except Refused as refusal:
                detail = refusal.detail
        if item.generation == generation:
            self._report_completion(item, detail)
        if detail is None:
            # The completion is sent before the change. On a real engine, the change belongs to the next scan, about 100
            # ms later.
            attribute.set(accepted, self.clock.wall_ns() if time_ns is None else time_ns)
            if attribute.written is not None:
                attribute.written(accepted)

    def _report_completion(self, item: Item, detail: Detail | None) -> None:
        attribute = item.attribute
        # The backend accepts a write only when the item's reference is resolved, so there is an attribute.
        assert attribute is not None
        if self.drop_completions > 0 and not attribute.immune:
            self.drop_completions -= 1
            return
        statuses = status.OK
        if detail is not None:
            statuses = status.failed(detail)
        elif attribute.answers_pending:
            statuses = status.PENDING
        self.sink.write_complete(item.server.handle, item.handle, statuses)

    def _operation_completed(self, item: Item) -> None:
        self.sink.operation_complete(item.server.handle, item.handle, status.OK)

    # Methods that send buffered values.

    def _arm_buffers(self, server: Server) -> None:
        def report() -> None:
            server.buffer_timer = None
            buffered = [i for i in server.items.all() if i.samples is not None and i.advised]
            for item in buffered:
                self._send_buffer(item)
            if buffered:
                self._arm_buffers(server)

        server.buffer_timer = self.timers.after(server.buffered_interval_s, report)

    def _send_buffer(self, item: Item) -> None:
        if not item.samples or item.attribute is None:
            return
        values, qualities, times = zip(*item.samples, strict=True)
        item.samples.clear()
        data_type = item.attribute.data_type
        message = to_value([list(v) if isinstance(v, tuple) else v for v in values], data_type)
        # The event has a field of its own for the data type, so the value does not repeat it.
        message.ClearField("data_type")
        message.ClearField("raw_data_type")
        self.sink.buffered_data_change(item.server.handle, item.handle, data_type, message, qualities, times, status.OK)

    # Methods that schedule calls.

    def _later(self, item: Item, delay_s: float, call: Callable[[Item], None]) -> None:
        generation = item.generation

        def run() -> None:
            if item.generation == generation:
                call(item)

        self.timers.after(delay_s, run)

    def _for_all(self, call: Callable[[Item], None]) -> None:
        """Call `call` for every advised item. This is done in chunks, so that commands and heartbeats can run between
        them.
        """
        items = list(self._advised)
        outages, was_down = self._outages, self.is_down

        def chunk(first: int) -> None:
            if (outages, was_down) != (self._outages, self.is_down):
                # The platform has gone down or come back since. The `_for_all` of that change handles all items, so
                # this one ends.
                return
            for item in items[first : first + _CHUNK_ITEMS]:
                if item.advised:
                    call(item)
            if first + _CHUNK_ITEMS < len(items):
                self.timers.after(0.0, lambda: chunk(first + _CHUNK_ITEMS))

        chunk(0)
