"""Keeps the events of the object as they came, for the steps of the survey to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mxgw.convert import from_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.mxaccess.com import Statuses
from mxgw_worker.backends.mxaccess.variant_layout import ARRAY, BYREF, TYPE, VarType

DATA_CHANGE, WRITE_COMPLETE, OPERATION_COMPLETE = "OnDataChange", "OnWriteComplete", "OperationComplete"
BUFFERED = "OnBufferedDataChange"
# So many events are kept; more than that come only from a tag that changes very fast.
MOST_EVENTS = 50_000
PENDING = 1  # docs/reference/mxaccess.md#statuses
_LONGEST_TEXT = 200
_1970 = datetime(1970, 1, 1)  # noqa: DTZ001  which zone the times of MXAccess have is what is to be found out


@dataclass(frozen=True, slots=True)
class Seen:
    """One event. `at` is on the clock `time.perf_counter`, `clock_ns` in nanoseconds since 1970 (UTC).

    `types` has the VARTYPE of each argument, where the object is a COM object. `problem` is not "" when the event could
    not be read.
    """

    kind: str
    server: int
    item: int
    at: float
    clock_ns: int
    value: MxValue
    qualities: tuple[int, ...]
    times_ns: tuple[int | None, ...]
    raw_time: str
    statuses: Statuses
    data_type: int | None
    types: Mapping[str, int]
    problem: str = ""

    @property
    def is_pending(self) -> bool:
        """Return whether a data change says only that the value is still to come."""
        return any(category == PENDING for _, category, _, _ in self.statuses)

    @property
    def value_type(self) -> str:
        """The VARTYPE of the value."""
        return vartype_name(self.types.get("value", self.value.variant_type))

    def facts(self, since: float, *, with_value: bool) -> dict[str, object]:
        """Return the event for the file. `since` is the time from which on it is timed."""
        facts: dict[str, object] = {"event": self.kind, "after_s": round(self.at - since, 4)}
        if self.problem:
            return {**facts, "problem": self.problem}
        facts["statuses"] = [
            dict(zip(("success", "category", "detected_by", "detail"), one, strict=True)) for one in self.statuses
        ]
        if self.kind in (DATA_CHANGE, BUFFERED):
            facts["value_type"] = self.value_type
            facts["qualities"] = list(self.qualities[:20])
            facts["times_as_if_utc"] = [time_text(one) for one in self.times_ns[:20]]
        if self.data_type is not None:
            facts["data_type"] = self.data_type
        if self.raw_time:
            facts["raw_time"] = self.raw_time
        if self.types:
            facts["types"] = {name: vartype_name(vt) for name, vt in self.types.items()}
        if with_value and self.kind in (DATA_CHANGE, BUFFERED):
            facts["value"] = value_text(self.value)
        return facts


class Recorder:
    """Implements `ComEvents`. It is made in the event loop, where also its events are looked at; the object calls it in
    the thread of its apartment.
    """

    def __init__(self) -> None:
        self.events: list[Seen] = []
        # What the object said of errors: method, HRESULT, text.
        self.words: list[tuple[str, int, str]] = []
        self.lost = 0
        self._types: Mapping[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()

    async def first(self, wanted: Callable[[Seen], bool], timeout_s: float, start: int = 0) -> Seen | None:
        """Return the first event from number `start` on that is wanted, or None when none comes in time."""
        looked = start
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._arrived.clear()
                    for seen in self.events[looked:]:
                        looked += 1
                        if wanted(seen):
                            return seen
                    await self._arrived.wait()
        except TimeoutError:
            return None

    def types(self, types: Mapping[str, int]) -> None:
        """Take the types of the arguments of the event that is reported next."""
        self._types = types

    def said(self, method: str, hresult: int, text: str) -> None:
        """Take what the object says of an error."""
        self.words.append((method, hresult, text))

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        time_ns: int | None,
        raw_time: str,
        statuses: Statuses,
    ) -> None:
        """See `ComEvents.data_change`."""
        self._put(DATA_CHANGE, server_handle, item_handle, statuses, value, (quality,), (time_ns,), raw_time)

    def write_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """See `ComEvents.write_complete`."""
        self._put(WRITE_COMPLETE, server_handle, item_handle, statuses)

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """See `ComEvents.operation_complete`."""
        self._put(OPERATION_COMPLETE, server_handle, item_handle, statuses)

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        times_ns: Sequence[int],
        statuses: Statuses,
    ) -> None:
        """See `ComEvents.buffered_data_change`."""
        self._put(
            BUFFERED, server_handle, item_handle, statuses, value, tuple(qualities), tuple(times_ns), "", data_type
        )

    def unreadable(self, event: str, reason: str) -> None:
        """See `ComEvents.unreadable`."""
        self._put(event, 0, 0, (), problem=reason)

    def _put(
        self,
        kind: str,
        server: int,
        item: int,
        statuses: Statuses,
        value: MxValue | None = None,
        qualities: tuple[int, ...] = (),
        times_ns: tuple[int | None, ...] = (),
        raw_time: str = "",
        data_type: int | None = None,
        problem: str = "",
    ) -> None:
        types, self._types = self._types, {}
        seen = Seen(
            kind,
            server,
            item,
            time.perf_counter(),
            time.time_ns(),
            value or MxValue(),
            qualities,
            times_ns,
            raw_time,
            statuses,
            data_type,
            types,
            problem,
        )
        self._loop.call_soon_threadsafe(self._take, seen)

    def _take(self, seen: Seen) -> None:
        if len(self.events) < MOST_EVENTS:
            self.events.append(seen)
        else:
            self.lost += 1
        self._arrived.set()


def vartype_name(vt: int) -> str:
    """Return the name of a VARTYPE, for example VT_ARRAY|VT_R8."""
    base = vt & TYPE
    name = f"VT_{VarType(base).name}" if base in VarType._value2member_map_ else f"{base:#x}"
    return f"{'VT_BYREF|' if vt & BYREF else ''}{'VT_ARRAY|' if vt & ARRAY else ''}{name}"


def time_text(ns: int | None) -> str | None:
    """Return nanoseconds since 1970 as a text, to the millisecond."""
    if ns is None:
        return None
    return (_1970 + timedelta(microseconds=ns // 1_000)).isoformat(timespec="milliseconds")


def value_text(value: MxValue) -> str:
    """Return a value as a text that is not long."""
    text = repr(from_value(value))
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"
