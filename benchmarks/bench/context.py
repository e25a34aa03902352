"""What a case is given: a directory, how thorough to be, and where to report progress."""

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
    """One run of one case. `quick` has fewer pairs and shorter turns; do not quote its figures."""

    directory: Path
    quick: bool = False
    pairs: int = PAIRS
    peers: Sequence[str] = ()
    only: Sequence[str] = ()
    on_step: Callable[[str], None] = lambda _: None
    _notes: list[str] = field(default_factory=list)

    def seconds(self, full: float) -> float:
        """Return how long one turn lasts."""
        return full * 0.4 if self.quick else full

    def wants(self, circumstance: str) -> bool:
        """Whether this part of the case was asked for: parts are named by words such as `N=8` and `1000/s`."""
        words = circumstance.replace(",", " ").split()
        return all(part in words for part in self.only)

    def installed_peers(self, *wanted: type[System]) -> list[System]:
        """Return the peers that are here, of `wanted` or of all, and note those that are not."""
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
        """Run systems side by side; those that take no turn are idle."""
        with ExitStack() as stack:
            for system in systems:
                self.on_step(f"starting {system.name}")
                stack.enter_context(system.running(self.directory))
            yield list(systems)

    def turns(self, circumstance: str, systems: Sequence[System], load: Load) -> dict[str, list[Mapping[str, Any]]]:
        """Let systems take turns under one load."""
        return self.alternate(circumstance, {system.name: partial(system.turn, load) for system in systems})

    def alternate(self, circumstance: str, turns: Mapping[str, Turn]) -> dict[str, list[Mapping[str, Any]]]:
        """Let systems take turns; see `measuring.alternate`."""
        return alternate(turns, self.pairs, lambda turn: self.on_step(f"{circumstance}: {turn}"))

    def finish(self, result: Result, systems: Sequence[System] = ()) -> Result:
        """Add what a reader has to know of the systems measured."""
        result.settings |= {"pairs": self.pairs, "quick": self.quick}
        result.notes += [f"{system.name}: {system.note}" for system in systems if system.note]
        result.notes += dict.fromkeys(self._notes)
        return result
