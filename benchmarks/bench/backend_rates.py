"""Measures backends in a process of a worker's Python, in turns: `mxaccess` on the double of its COM object, and `sim`.

benchmarks/mxaccess.py runs this in 32-bit Windows Python, with the path of the double's library as its first argument.
There is no worker and no gateway: what is measured is what lies between the source and the worker's sink. Each turn
prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import Backend
from mxgw_worker.backends.mxaccess import MxAccessBackend
from mxgw_worker.backends.sim import SimBackend

# More than either source can send.
_FULL_SPEED = 1_000_000.0
_TARGET = "Load.Target"
_IN_FLIGHT = 50
_WAIT_S = 300.0
# The double begins with its load after its last item has been there for a second.
_SETTLE_S = 2.0


class CountingSink:
    """Counts events, and keeps the values of data changes while `values` is a list."""

    def __init__(self) -> None:
        self.changes = 0
        self.gaps = 0
        self.values: list[tuple[int, float]] | None = None
        self.failure = ""
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []
        self._completions: asyncio.Queue[float] = asyncio.Queue()

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        del server_handle, quality, source_time_ns, statuses, raw_source_time
        self.changes += 1
        if self.values is not None:
            self.values.append((item_handle, value.double))  # the simulator uses its messages again

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        del server_handle, item_handle
        assert statuses[0].success, "a write has failed"
        self._completions.put_nowait(time.perf_counter())

    async def completed(self) -> float:
        """Return when the next write completed."""
        async with asyncio.timeout(_WAIT_S):
            return await self._completions.get()

    def source_gap(self, reason: int, detail: str, count: int = 0) -> None:
        del reason, detail
        self.gaps += count

    def failed(self, detail: str) -> None:
        self.failure = detail

    def source_health(self, health: int, detail: str) -> None: ...

    def operation_complete(self, *event: object) -> None: ...

    def buffered_data_change(self, *event: object) -> None: ...


def _mxaccess(rate: float) -> Backend:
    knobs = {"RATE": rate, "RESOLVE_MS": 0, "COMPLETE_MS": 0, "SCAN_MS": 60_000}
    os.environ.update({f"LMXDOUBLE_{name}": str(value) for name, value in knobs.items()})
    return MxAccessBackend({})


def _sim(rate: float) -> Backend:
    return SimBackend({"profile": "load", "items": 20_000, "rate": rate, "completion_delay_s": 0.0})


BACKENDS = {"mxaccess": _mxaccess, "sim": _sim}


async def _with(
    name: str, rate: float, measure: Callable[[Backend, CountingSink, int], Coroutine[Any, Any, Any]]
) -> Any:
    gc.collect()
    sink = CountingSink()
    backend = BACKENDS[name](rate)
    await backend.start(sink)  # type: ignore[arg-type]  # it takes less than a whole sink
    try:
        measured = await measure(backend, sink, await backend.register("bench"))
    finally:
        await backend.stop()
    if sink.failure:
        raise SystemExit(f"{name}: {sink.failure}")
    return measured


async def events(backend: Backend, sink: CountingSink, server: int, *, items: int, seconds: float) -> dict[str, float]:
    """Measure data changes per second at full speed, and check that none is missing."""
    for number in range(1, items + 1):
        await backend.advise(server, await backend.add_item(server, f"Load.Item{number:05d}"))
    await asyncio.sleep(_SETTLE_S)
    sink.values, changes, began = [], sink.changes, time.perf_counter()
    await asyncio.sleep(seconds)
    passed, made = time.perf_counter() - began, sink.changes - changes
    values, sink.values = sink.values, None
    if not sink.gaps:
        _check(values)
    return {"events_per_s": made / passed, "dropped": sink.gaps}


def _check(values: Sequence[tuple[int, float]]) -> None:
    """Check that each item has counted on by one from each of its values to the next."""
    last: dict[int, float] = {}
    for item, value in values:
        if value != last.get(item, value - 1) + 1:
            raise SystemExit(f"item {item} went from {last[item]} to {value}: the stream is wrong")
        last[item] = value


async def commands(backend: Backend, sink: CountingSink, server: int, *, number: int) -> dict[str, float]:
    """Measure commands per second: AddItem and RemoveItem by turns, one by one, and with many in flight."""
    del sink

    async def one() -> None:
        await backend.remove_item(server, await backend.add_item(server, _TARGET))

    began = time.perf_counter()
    for _ in range(number // 2):
        await one()
    alone_s = time.perf_counter() - began

    async def several() -> None:
        for _ in range(number // 2 // _IN_FLIGHT):
            await one()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_IN_FLIGHT):
            tasks.create_task(several(), name="commands")
    return {
        "commands_per_s": number / alone_s,
        "commands_per_s_in_flight": number // 2 // _IN_FLIGHT * _IN_FLIGHT * 2 / (time.perf_counter() - began),
    }


async def writes(backend: Backend, sink: CountingSink, server: int, *, number: int) -> dict[str, float]:
    """Measure the time from a write to its completion, one write after the other."""
    item = await backend.add_item(server, _TARGET)
    await backend.advise(server, item)
    async with asyncio.timeout(_WAIT_S):
        while not sink.changes:  # noqa: ASYNC110  the sink has no other way to tell
            await asyncio.sleep(0.001)
    times_ms = []
    for count in range(number):
        began = time.perf_counter()
        await backend.write(server, item, MxValue(double=float(count)), 0)
        times_ms.append((await sink.completed() - began) * 1000)
    times_ms.sort()
    return {
        "write_p50_ms": statistics.median(times_ms),
        "write_p99_ms": times_ms[int(len(times_ms) * 0.99)],
    }


async def many(backend: Backend, sink: CountingSink, server: int, *, items: int) -> dict[str, float]:
    """Measure how long it takes to add and advise many items, until each has its first value."""
    began = time.perf_counter()
    numbers = itertools.count(1)

    async def several() -> None:
        while (number := next(numbers)) <= items:
            await backend.advise(server, await backend.add_item(server, f"Load.Item{number:05d}"))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_IN_FLIGHT):
            tasks.create_task(several(), name="items")
    advised_s = time.perf_counter() - began
    async with asyncio.timeout(_WAIT_S):
        while sink.changes < items:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.005)
    return {
        "advised_s": advised_s,
        "first_values_s": time.perf_counter() - began,
    }


async def turn(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure one backend once."""
    return {
        **await _with(name, _FULL_SPEED, lambda *a: events(*a, items=1000, seconds=options.seconds)),
        **await _with(name, 1.0, lambda *a: commands(*a, number=options.commands)),
        **await _with(name, 1.0, lambda *a: writes(*a, number=options.writes)),
        **await _with(name, 1.0, lambda *a: many(*a, items=options.items)),
    }


def main() -> None:
    """Measure the backends in turns, and print each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", help="the double of MXAccess, as Windows names it")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--writes", type=int, default=300)
    parser.add_argument("--items", type=int, default=10_000)
    options = parser.parse_args()
    getattr(ctypes, "OleDLL")(options.library).DllRegisterServer()  # noqa: B009  only Windows has it
    for pair in range(options.pairs):
        for name in ("mxaccess", "sim") if pair % 2 == 0 else ("sim", "mxaccess"):
            measured = asyncio.run(turn(name, options))
            print(json.dumps({"pair": pair, "backend": name, **measured}), flush=True)


if __name__ == "__main__":
    main()
