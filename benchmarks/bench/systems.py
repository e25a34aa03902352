"""The systems to measure, all with the method `turn`. Here is what they have in common; see also `gateway` and `peers`.

A system is started once and then measured in turns. Each turn starts a producer and one process with all subscribers,
and returns what they found. Every system gets the same events, the same window and the same way of counting.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.processes import answer, cpu_s

WARM_UP_S = 0.4
SETTLE_S, SETTLE_LOOK_S, IDLE_SHARE = 5.0, 0.04, 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one turn: how many subscribers, for how long, at which rate (0: full speed), and which events."""

    subscribers: int
    seconds: float
    rate: float = 0
    # True: events are encoded one by one, as a real source must do. False: events were made beforehand.
    encode: bool = False
    # How many seconds are read before counting begins.
    warm_up_s: float = WARM_UP_S
    # For mxgw only: the number of sessions. Each session has `subscribers` subscribers.
    sessions: int = 1
    # For mxgw only: subscribers get only some of the events, so that sequences are missing.
    is_filtered: bool = False
    # How many retained events are read, from the oldest on, instead of live events; 0 for live events.
    replay_events: int = 0


class System(ABC):
    """A system to measure. Use it as `with system.running(directory): system.turn(load)`."""

    name: str
    # A sentence that a reader of the figures must know.
    note: ClassVar[str] = ""
    program: ClassVar[str] = ""

    @classmethod
    def is_installed(cls) -> bool:
        return not cls.program or shutil.which(cls.program) is not None

    @contextmanager
    def running(self, directory: Path) -> Iterator[System]:
        """Run the server with its own directory, which is made in `directory`."""
        self.directory = directory / re.sub(r"\W+", "-", self.name)
        # The path of a Unix socket must be short.
        self.directory = Path(tempfile.mkdtemp(prefix=self.directory.name[:12], dir=directory))
        with ExitStack() as stack:
            self.start(stack)
            yield self

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Start the server, and set `target` and `server_pid`. `stack` ends the server."""

    @abstractmethod
    def turn(self, load: Load) -> dict[str, Any]:
        """Measure once.

        Raises:
            BenchmarkFailed: a process failed, or an event was lost, repeated or out of order.
        """

    target: str
    server_pid: int

    def read(self, load: Load, pids: list[list[int]], **arguments: object) -> dict[str, Any]:
        """Run the process with the subscribers, and return what it found."""
        described = {
            "target": self.target,
            "subscribers": load.subscribers * load.sessions,
            "seconds": load.seconds,
            "warm_up_s": 0 if load.replay_events else load.warm_up_s,
            "stamps": bool(load.rate),
            "is_filtered": load.is_filtered,
            "target_events": load.replay_events,
            "pids": pids,
            **arguments,
        }
        result = answer("reader", described, self.name)
        result["events_per_s"] = result["events"] / result["seconds"]
        if result["events"]:
            result["cpu_s_per_million"] = result["cpu_s"][0] / result["events"] * 1e6
        return result


def settle(pids: list[int]) -> None:
    """Wait until a server is idle, as it is perhaps still busy with the rest of an earlier turn."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        before = cpu_s(pids)
        time.sleep(SETTLE_LOOK_S)
        if cpu_s(pids) - before < SETTLE_LOOK_S * IDLE_SHARE:
            return
