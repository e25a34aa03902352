"""The object that every case gets: a directory, how thorough to measure, and where to report progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.measuring import PAIRS, Result, Turn, alternate
from bench.peers import PEERS
from bench.systems import Load, System


@dataclass(slots=True)
class Context:
    """One run of one case. With `quick` it has fewer pairs and shorter turns; do not quote its figures."""

    directory: Path
    quick: bool = False
    pairs: int = PAIRS
    peers: Sequence[str] = ()
    only: Sequence[str] = ()
    on_step: Callable[[str], None] = lambda _: None
    _notes: list[str] = field(default_factory=list)

    def seconds(self, full: float) -> float:
        """Return the length of a turn in seconds; `full` is its length without `quick`."""
        return full * 0.4 if self.quick else full

    def wants(self, circumstance: str) -> bool:
        """Return True when this part of the case was asked for.

        A part has words such as `N=8` and `1000/s` as its name.
        """
        words = circumstance.replace(",", " ").split()
        return all(part in words for part in self.only)

    def installed_peers(self, *wanted: type[System]) -> list[System]:
        """Return the peers that are installed, of `wanted` or of all peers. Note the others in the result."""
        found: list[System] = []
        for peer in wanted or PEERS:
            if self.peers and peer.name not in self.peers:
                continue
            if peer.is_installed():
                found.append(peer())
            else:
                self._notes.append(f"{peer.name} is not installed here (make bench-peers)")
        return found

    @contextmanager
    def running(self, systems: Sequence[System]) -> Iterator[list[System]]:
        """Run several systems at the same time. A system is idle while it has no turn."""
        with ExitStack() as stack:
            for system in systems:
                self.on_step(f"starting {system.name}")
                stack.enter_context(system.running(self.directory))
            yield list(systems)

    def turns(self, circumstance: str, systems: Sequence[System], load: Load) -> dict[str, list[Mapping[str, Any]]]:
        """Measure the systems in turn under one load."""
        return self.alternate(circumstance, {system.name: partial(system.turn, load) for system in systems})

    def alternate(self, circumstance: str, turns: Mapping[str, Turn]) -> dict[str, list[Mapping[str, Any]]]:
        """Measure several things in turn; see `measuring.alternate`."""
        return alternate(turns, self.pairs, lambda turn: self.on_step(f"{circumstance}: {turn}"))

    def finish(self, result: Result, systems: Sequence[System] = ()) -> Result:
        """Add to the result what a reader of the figures must know about the systems that were measured."""
        result.settings |= {"pairs": self.pairs, "quick": self.quick}
        result.notes += [f"{system.name}: {system.note}" for system in systems if system.note]
        result.notes += dict.fromkeys(self._notes)
        return result
