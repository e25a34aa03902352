"""For tests: a clock that moves only when a test moves it, and a sink that records events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from mxgw.convert import PyValue, from_value
from mxgw.v1.events_pb2 import GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.sim.timers import Cancellable

# The time at which a manual clock starts: 2024-01-01T00:00:00Z.
START_NS = 1_704_067_200 * 1_000_000_000


class _Call:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock whose time moves only in `advance` and `stall`. `advance` runs the calls that become due, in order."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0
        self._count = 0
        self._calls: list[tuple[float, int, _Call]] = []

    def monotonic(self) -> float:
        return self._elapsed_s

    def wall_ns(self) -> int:
        return START_NS + round(self._elapsed_s * 1e6) * 1_000

    def call_at(self, when: float, callback: Callable[[], object]) -> Cancellable:
        call = _Call(callback)
        self._count += 1
        heappush(self._calls, (when, self._count, call))
        return call

    def advance(self, seconds: float) -> None:
        """Move the time forward by `seconds`, and run the calls that become due."""
        end = self._elapsed_s + seconds
        while self._calls and self._calls[0][0] <= end:
            when, _, call = heappop(self._calls)
            self._elapsed_s = max(self._elapsed_s, when)
            if call.callback is not None:
                call.callback()
        self._elapsed_s = end

    def turn(self) -> None:
        """Run the calls that are due, as one iteration of an event loop does. Calls that are scheduled meanwhile wait
        for the next call of `turn`.
        """
        due: list[_Call] = []
        while self._calls and self._calls[0][0] <= self._elapsed_s:
            due.append(heappop(self._calls)[2])
        for call in due:
            if call.callback is not None:
                call.callback()

    def stall(self, seconds: float) -> None:
        """Move the time forward without running any call, as a blocked event loop does."""
        self._elapsed_s += seconds

    def pending(self) -> int:
        """Return the number of scheduled calls that are not cancelled."""
        return sum(1 for _, _, call in self._calls if call.callback is not None)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event, with its messages converted to Python values. `kind` is the name of the sink's method."""

    kind: str
    server: int
    item: int
    value: PyValue = None
    qualities: tuple[int, ...] = ()
    times_ns: tuple[int | None, ...] = ()
    data_type: int | None = None
    success: int = 0
    category: int = 0
    detected_by: int = 0
    detail: int = 0

    @property
    def quality(self) -> int:
        """The quality of a data change."""
        (quality,) = self.qualities
        return quality

    @property
    def time_ns(self) -> int | None:
        """The source time of a data change."""
        (time_ns,) = self.times_ns
        return time_ns


class RecordingSink:
    """An `EventSink` that keeps events, gaps, health and failures in lists."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.gaps: list[tuple[GapReason.ValueType, str, int]] = []
        self.healths: list[SourceHealth.ValueType] = []
        self.failures: list[str] = []

    def take(self, kind: str = "") -> list[Recorded]:
        """Return the events so far, or only those of one kind, and forget all events."""
        events, self.events = self.events, []
        return [event for event in events if not kind or event.kind == kind]

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",  # noqa: ARG002 - the simulator has none
    ) -> None:
        self._keep("data_change", server_handle, item_handle, statuses, value, (quality,), (source_time_ns,))

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._keep("write_complete", server_handle, item_handle, statuses)

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        self._keep("operation_complete", server_handle, item_handle, statuses)

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        source_times_ns: Sequence[int],
        statuses: Sequence[MxStatus],
    ) -> None:
        self._keep(
            "buffered_data_change", server_handle, item_handle, statuses, value, qualities, source_times_ns, data_type
        )

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        self.gaps.append((reason, detail, count))

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:  # noqa: ARG002 - prose
        self.healths.append(health)

    def failed(self, detail: str) -> None:
        self.failures.append(detail)

    def _keep(
        self,
        kind: str,
        server: int,
        item: int,
        statuses: Sequence[MxStatus],
        value: MxValue | None = None,
        qualities: Sequence[int] = (),
        times_ns: Sequence[int | None] = (),
        data_type: int | None = None,
    ) -> None:
        (status,) = statuses  # Every event has exactly one status: docs/reference/mxaccess.md#statuses.
        self.events.append(
            Recorded(
                kind,
                server,
                item,
                None if value is None else from_value(value),
                tuple(qualities),
                tuple(times_ns),
                data_type,
                status.success,
                status.raw_category,
                status.raw_detected_by,
                status.raw_detail,
            )
        )
