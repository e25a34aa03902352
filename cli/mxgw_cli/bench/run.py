"""`mxgw bench`: measures how fast a gateway is, and says whether the figures are normal."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass

import mxgw_client
from mxgw.convert import timestamp_to_ns
from mxgw_cli.children import temporary_directory
from mxgw_cli.gateway import as_failures, connected, session_of
from mxgw_cli.latency import LatencyHistogram
from mxgw_cli.one_key import own_gateway
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import write_json
from mxgw_cli.shell import SilentFailure, console, is_live
from mxgw_client import EventBatch, Gap

OPENED = 5
SETTLE_S = 0.5
PACED_RATE = 1_000
PACED_ITEMS, LOAD_ITEMS = 100, 1_000
# A figure that is worse than its limit is reported as a problem.
# Source: the limits are several times worse than the figures in docs/performance.md.
SLOW_OPEN_MS, SLOW_P99_MS, SLOW_CLIENT_EVENTS_PER_S = 500.0, 20.0, 50_000.0
_BACKENDS: dict[str, dict[str, object]] = {
    "bench-paced": {"rate": PACED_RATE, "items": PACED_ITEMS},
    "bench-load": {"burst": "max"},
}


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """The arguments of `mxgw bench`."""

    tags: tuple[str, ...]
    private: bool
    seconds: float
    backend: str
    as_json: bool


@dataclass(frozen=True, slots=True)
class Followed:
    """The figures of one stream. The delays `p50_ms` and `p99_ms` are None when no event arrived."""

    seconds: float
    events: int
    gaps: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """All results of a run.

    `paced` has the figures of a stream with events at a steady rate, or as the named tags change. `load` has the
    figures of a stream with as many events as one client can read. `paced` or `load` is None when it was
    not measured.
    """

    open_median_ms: float
    open_slowest_ms: float
    paced: Followed | None
    load: Followed | None

    @property
    def gaps(self) -> int:
        """The number of gaps in the `paced` stream. Gaps under full load do not count: they are normal there."""
        return self.paced.gaps if self.paced else 0


async def measure(where: GatewayTarget, request: BenchRequest) -> None:
    """Make all measurements, and print the figures and what they mean.

    Raises:
        CliFailure: the gateway cannot be reached, or refuses a call.
        SilentFailure: an event was lost in the `paced` stream.
    """
    async with _target(where, request) as target:
        status = console(stderr=True).status("Measuring …") if is_live() else nullcontext()
        with as_failures(), status:
            async with connected(target) as gateway:
                measured = await _measure(gateway, request)
    if request.as_json:
        write_json(asdict(measured))
    else:
        for line in report_lines(measured, request):
            console().print(line)
    if measured.gaps:
        raise SilentFailure


@asynccontextmanager
async def _target(where: GatewayTarget, request: BenchRequest) -> AsyncIterator[GatewayTarget]:
    if not request.private:
        yield where
        return
    with temporary_directory("mxgw-bench-") as directory:
        settings: dict[str, object] = {
            "backends.default": "bench-paced",
            # Under full load the benchmark's client falls far behind. The limits of the lag are large, because an
            # overflow would end the stream.
            "events.queue_events": 5_000_000,
            "events.queue_bytes": 1_000_000_000,
            "events.unattached_events": 1_000_000,
        }
        for backend, options in _BACKENDS.items():
            for key, value in {"kind": "sim", "profile": "load", "items": LOAD_ITEMS, **options}.items():
                settings[f"backends.{backend}.{key}"] = value
        async with own_gateway(directory, settings) as own:
            yield GatewayTarget(own.target, None, None, None, None, where.timeout_s, own.api_key)


async def _measure(gateway: mxgw_client.Gateway, request: BenchRequest) -> Measured:
    took: list[float] = []
    for _ in range(OPENED):
        began = time.perf_counter()
        async with session_of(gateway, command="bench", backend=request.backend):
            took.append((time.perf_counter() - began) * 1000)
    paced = load = None
    if request.private:
        paced = await _follow(gateway, "bench-paced", _load_tags(PACED_ITEMS), request.seconds)
        load = await _follow(gateway, "bench-load", _load_tags(LOAD_ITEMS), request.seconds)
    elif request.tags:
        paced = await _follow(gateway, request.backend, request.tags, request.seconds)
    return Measured(statistics.median(took), max(took), paced, load)


def _load_tags(items: int) -> tuple[str, ...]:
    return tuple(f"Load.Item{number:05d}" for number in range(1, items + 1))


async def _follow(gateway: mxgw_client.Gateway, backend: str, tags: tuple[str, ...], seconds: float) -> Followed:
    """Follow tags in a new session for `seconds`, and measure.

    Events of the first `SETTLE_S` seconds, for example the first value of every tag, are not counted.
    """
    delays = LatencyHistogram()
    events = gaps = 0
    async with session_of(gateway, command="bench", backend=backend) as session:
        await session.subscribe(*tags)
        stream = session.events()
        began = time.perf_counter()
        counted_from = began + SETTLE_S
        try:
            async with asyncio.timeout(SETTLE_S + seconds):
                async for frame in stream.batches():
                    now_ns = time.time_ns()
                    if isinstance(frame, Gap):
                        gaps += 1
                    elif isinstance(frame, EventBatch) and time.perf_counter() >= counted_from:
                        events += len(frame)
                        for raw in frame.raw:
                            delays.add((now_ns - timestamp_to_ns(raw.worker_time)) / 1e6)
        except TimeoutError:
            pass
        finally:
            await stream.close()
    return Followed(seconds, events, gaps, delays.percentile(0.5), delays.percentile(0.99))


def report_lines(measured: Measured, request: BenchRequest) -> list[str]:
    """Return the report: one line per figure. A figure that is worse than its limit has a sentence about the cause."""
    lines = [
        f"Opening a session   {measured.open_median_ms:,.0f} ms, slowest of {OPENED} {measured.open_slowest_ms:,.0f} ms"
        + _comment(
            measured.open_median_ms <= SLOW_OPEN_MS,
            "slow: the machine is busy, or the backend takes long to connect; `mxgw doctor` tells which, and "
            "workers.warm_pool hides it",
        )
    ]
    if (paced := measured.paced) is not None:
        what = f"Events as they come  {paced.events_per_s:,.0f} /s"
        if paced.p50_ms is None or paced.p99_ms is None:
            lines.append(f"{what}. None came within {paced.seconds:g} s: do these tags change?")
        else:
            lines.append(
                f"{what}, {paced.p50_ms:.2f} ms after the worker had them (1 in 100 later than {paced.p99_ms:.2f} ms)"
                + _comment(
                    paced.p99_ms <= SLOW_P99_MS,
                    "late: the machine or this client is busy, or the clocks of gateway and client differ",
                )
            )
        lines.append(
            "Nothing lost" if not paced.gaps else f"LOST: {paced.gaps} gaps; `mxgw stream` shows where, and why"
        )
    if (load := measured.load) is not None:
        lines.append(
            f"One client at most  {load.events_per_s:,.0f} events/s from one session, with {_cores()} for "
            "worker, gateway and client"
            + _comment(load.events_per_s >= SLOW_CLIENT_EVENTS_PER_S, "little: is the machine busy with other work?")
        )
    if not request.private and not request.tags:
        lines.append("Name tags to have their events measured, or use --private for a load of its own.")
    return lines


def _cores() -> str:
    cores = os.cpu_count()
    return "an unknown number of cores" if cores is None else f"{cores} core{'' if cores == 1 else 's'}"


def _comment(is_well: bool, problem: str) -> str:
    return ": well." if is_well else f": {problem}."
