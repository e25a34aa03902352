"""How a result is made: systems are measured in turn within one run, and only neighbouring turns are compared.

Other work on the machine, its temperature and its clock speed then disturb all systems in the same way. A ratio has its
median, lowest and highest value of at least five pairs of turns.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import random
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PAIRS = 5
# With at least so many pairs, the interval of the median decides whether a goal is reached, and not the median alone.
PAIRS_OF_AN_INTERVAL, RESAMPLED, CONFIDENCE = 20, 2_000, 0.95
Turn = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that was measured in every turn: the system, the circumstances, the name, the unit and the values."""

    system: str
    circumstance: str
    what: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The figures of one system divided by those of another, pair by pair.

    `goal` is the lowest median that is good enough or, with `is_limit`, the highest; None when there is no goal.
    """

    what: str
    circumstance: str
    values: list[float]
    goal: float | None = None
    is_limit: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The range in which the median of 95 of 100 such runs would lie, found by resampling.

        None when there are too few pairs.
        """
        if len(self.values) < PAIRS_OF_AN_INTERVAL:
            return None
        draw = random.Random(0)
        medians = sorted(statistics.median(draw.choices(self.values, k=len(self.values))) for _ in range(RESAMPLED))
        outside = round(RESAMPLED * (1 - CONFIDENCE) / 2)
        return medians[outside], medians[-1 - outside]

    @property
    def is_noise(self) -> bool:
        """True when the goal lies within the interval, so that nothing is shown about it."""
        return self.goal is not None and self.interval is not None and self.interval[0] <= self.goal < self.interval[1]

    @property
    def is_reached(self) -> bool | None:
        """True when the goal is reached, False when it is not.

        None when there is no goal or nothing is shown about it.
        """
        if self.goal is None or self.is_noise:
            return None
        return self.median <= self.goal if self.is_limit else self.median >= self.goal


@dataclass(slots=True)
class Result:
    """The results of one case."""

    case: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def add(self, runs: Mapping[str, Sequence[Mapping[str, Any]]], circumstance: str, **units: str) -> None:
        """Add the figures of every system that has them. `units` maps the key of a figure to its unit."""
        for system, results in runs.items():
            for key, unit in units.items():
                values = [float(result[key]) for result in results if key in result]
                if values:
                    self.figures.append(Figure(system, circumstance, key, unit, values))

    def compare(
        self,
        runs: Mapping[str, Sequence[Mapping[str, Any]]],
        key: str,
        of: str,
        against: str,
        circumstance: str,
        *,
        goal: float | None = None,
        is_limit: bool = False,
    ) -> None:
        """Add the ratio of two systems, pair by pair, if both were measured."""
        if of in runs and against in runs:
            pairs = zip(runs[of], runs[against], strict=True)
            values = [float(ours[key]) / float(theirs[key]) for ours, theirs in pairs]
            self.ratios.append(Ratio(f"{key}: {of} / {against}", circumstance, values, goal, is_limit))

    def limit(
        self,
        runs: Mapping[str, Sequence[Mapping[str, Any]]],
        of: str,
        key: str,
        circumstance: str,
        goal: float,
        *,
        is_limit: bool = True,
    ) -> None:
        """Add a figure with a goal of its own, as a ratio to 1 of its unit."""
        values = [float(result[key]) for result in runs[of]]
        self.ratios.append(Ratio(f"{key}: {of}", circumstance, values, goal, is_limit))

    def merge(self, earlier: Result) -> None:
        """Copy those results of an earlier run whose circumstances this run left out."""
        here = {entry.circumstance for entry in (*self.figures, *self.ratios)}
        self.figures = [*(f for f in earlier.figures if f.circumstance not in here), *self.figures]
        self.ratios = [*(r for r in earlier.ratios if r.circumstance not in here), *self.ratios]
        self.notes = list(dict.fromkeys((*earlier.notes, *self.notes)))

    def as_json(self) -> dict[str, Any]:
        result = asdict(self)
        for group, objects in (("figures", self.figures), ("ratios", self.ratios)):
            for entry, one in zip(result[group], objects, strict=True):
                entry["values"] = [float(f"{value:.6g}") for value in one.values]
                entry |= {
                    "median": float(f"{one.median:.6g}"),
                    "min": float(f"{min(one.values):.6g}"),
                    "max": float(f"{max(one.values):.6g}"),
                }
        for entry, ratio in zip(result["ratios"], self.ratios, strict=True):
            if ratio.interval is not None:
                entry["interval"] = [float(f"{end:.6g}") for end in ratio.interval]
        return result


def result_from_json(data: Mapping[str, Any]) -> Result:
    """Return the result that `as_json` wrote."""
    derived = {"median", "min", "max", "interval"}
    figures = [Figure(**{k: v for k, v in entry.items() if k not in derived}) for entry in data["figures"]]
    ratios = [Ratio(**{k: v for k, v in entry.items() if k not in derived}) for entry in data["ratios"]]
    return Result(**{**data, "figures": figures, "ratios": ratios})


def alternate(
    turns: Mapping[str, Turn], pairs: int = PAIRS, on_turn: Callable[[str], None] = lambda _: None
) -> dict[str, list[Mapping[str, Any]]]:
    """Let every system take `pairs` turns, and return the results of each system.

    The order of the systems is reversed from one pair to the next.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name in turns}
    for number in range(pairs):
        for name in list(turns)[:: 1 if number % 2 == 0 else -1]:
            on_turn(f"{name}, {number + 1} of {pairs}")
            runs[name].append(turns[name]())
    return runs


def environment() -> dict[str, str]:
    """Return the facts about the machine and software that a reader of the figures must know."""
    facts = {
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _said("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
    }
    for package in ("mxgw", "grpcio", "protobuf", "uvloop", "asyncua"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    for program, option in (("nats-server", "--version"), ("redis-server", "--version"), ("mosquitto", "-h")):
        if found := shutil.which(program, path=path):
            facts[program] = _said(found, option)[:60]
    return facts


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
