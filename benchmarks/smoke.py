"""The check of CI that mxgw is still as fast as before, compared with floors measured in the same minute.

`make bench-smoke` runs it. Ratios of neighbouring turns are compared with the ratios at the time when they were written
into this file (`ONE_READER` and the others). A ratio fails when it is less than a given part of the earlier one. These
parts are small, because CI machines are busy: they were chosen so that none of the runs in docs/performance.md failed,
and that the mistakes listed there do fail. A measurement that fails is repeated once with twice as many turns. A
machine that was busy for a moment passes then, and a real loss of speed fails again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cases import client, worker
from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Ratio
from bench.peers import Relay
from bench.systems import Load
from bench.window import Window

PAIRS = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """An earlier ratio, and `margin`, the part of it that must at least be reached."""

    what: str
    ratio: float
    margin: float

    @property
    def least(self) -> float:
        return self.ratio * self.margin


# Source: docs/performance.md, "The guard".
ONE_READER = Reference("relay's processor time per event / the gateway's, N=1", 0.55, 0.65)
MANY_READERS = Reference("relay's processor time per event / the gateway's, N=8", 0.75, 0.55)
WORKER = Reference("worker's events per processor second / protobuf's", 0.92, 0.75)
CLIENT = Reference("client's events per processor second / bare grpc.aio's", 0.62, 0.75)


def gateway(context: Context, subscribers: int, what: str) -> Ratio:
    """Return the processor time of the relay divided by that of the gateway, per event.

    Processor time is compared and not events per second, because other work on the machine disturbs it less.
    """
    ours, relay = MxgwPremade(), Relay()
    with context.running([ours, relay]):
        runs = context.turns("gateway", [ours, relay], Load(subscribers, 0.4))
    pairs = zip(runs[relay.name], runs[ours.name], strict=True)
    values = [float(floor["cpu_s_per_million"]) / float(mine["cpu_s_per_million"]) for floor, mine in pairs]
    return Ratio(what, f"N={subscribers}", values)


def worker_alone(context: Context) -> Ratio:
    (ratio,) = [r for r in worker.run(context).ratios if r.what.startswith("events_per_cpu_s")]
    return ratio


def client_alone(context: Context) -> Ratio:
    (ratio,) = [r for r in client.run(context).ratios if "batches" in r.what]
    return ratio


CHECKS: tuple[tuple[Reference, Callable[[Context], Ratio]], ...] = (
    (ONE_READER, partial(gateway, subscribers=1, what=ONE_READER.what)),
    (MANY_READERS, partial(gateway, subscribers=8, what=MANY_READERS.what)),
    (WORKER, worker_alone),
    (CLIENT, client_alone),
)


def main() -> int:
    """Measure and print all ratios. Return exit status 1 when a ratio is too low twice."""
    console, began, failed = Console(width=None if sys.stdout.isatty() else 120), time.monotonic(), 0
    table = Table("ratio", "median", "lowest", "highest", "reference", "at least", "", box=None, pad_edge=False)
    for reference, measure in CHECKS:
        for pairs in (PAIRS, 2 * PAIRS):
            with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory:
                Window.create(Path(directory) / "window")
                ratio = measure(Context(Path(directory), quick=True, pairs=pairs))
            is_well = ratio.median >= reference.least
            figures = (ratio.median, min(ratio.values), max(ratio.values), reference.ratio, reference.least)
            outcome = "well" if is_well else "too low, once more" if pairs == PAIRS else "TOO LOW"
            table.add_row(reference.what, *(f"{figure:.2f}" for figure in figures), outcome)
            if is_well:
                break
        else:
            failed = 1
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s", style="dim")
    return failed


if __name__ == "__main__":
    sys.exit(main())
