"""What producer and readers share through a file: whether to send, how far the slowest reader is, and how far ahead of
it to be.

So every system gets the same load, even one that could buffer more.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "BENCH_WINDOW"
EVENTS = 100_000

# How long a producer that is ahead far enough waits before it looks again.
LOOK_AGAIN_S = 0.0005

_CELLS = struct.Struct("<QQQd")
_CELL = struct.Struct("<Q")
_SECONDS = struct.Struct("<d")


class Window:
    """The file, mapped. `is_open` and `sequence` are written by the reader and read by the producer."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CELLS.size)

    @classmethod
    def create(cls, path: Path) -> Window:
        """Make the file, closed and at 0, and name it in the environment of processes started later."""
        path.write_bytes(_CELLS.pack(0, 0, EVENTS, LOOK_AGAIN_S))
        os.environ[VARIABLE] = str(path)
        return cls(path)

    @classmethod
    def named(cls) -> Window:
        """Open the one the environment names."""
        return cls(Path(os.environ[VARIABLE]))

    def reset(self, events: int = EVENTS, producers: int = 1) -> None:
        """Close it, and start again from 0; each of `producers` may be `events` ahead.

        Many of them look less often, or looking would be what fills the machine.
        """
        self._map[:] = _CELLS.pack(0, 0, events, LOOK_AGAIN_S * producers)

    @property
    def is_open(self) -> bool:
        return bool(_CELL.unpack_from(self._map, 0)[0])

    def open(self) -> None:
        """Let the producer send: every subscriber is there."""
        _CELL.pack_into(self._map, 0, 1)

    @property
    def sequence(self) -> int:
        return int(_CELL.unpack_from(self._map, 8)[0])

    @sequence.setter
    def sequence(self, number: int) -> None:
        _CELL.pack_into(self._map, 8, number)

    @property
    def look_again_s(self) -> float:
        return float(_SECONDS.unpack_from(self._map, 24)[0])

    def has_room(self, last_sent: int) -> bool:
        return last_sent < self.sequence + int(_CELL.unpack_from(self._map, 16)[0])

    def wait_open(self, timeout_s: float = 30.0) -> None:
        """Wait for the readers.

        Raises:
            TimeoutError: they did not come.
        """
        until = time.monotonic() + timeout_s
        while not self.is_open:
            if time.monotonic() > until:
                raise TimeoutError("no reader opened the window")
            time.sleep(0.001)
