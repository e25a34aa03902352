"""A file that producer and readers share.

It says whether to send, how far the slowest reader has come, and how far the producer can be ahead of that reader.

With it every system gets the same load, even a system that could store more events.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "BENCH_WINDOW"
EVENTS = 100_000

# How many seconds a producer that is far enough ahead waits before it reads the file again.
LOOK_AGAIN_S = 0.0005

_CELLS = struct.Struct("<QQQd")
_CELL = struct.Struct("<Q")
_SECONDS = struct.Struct("<d")


class Window:
    """The file, mapped into memory. `is_open` and `sequence` are written by the readers and read by the producer."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CELLS.size)

    @classmethod
    def create(cls, path: Path) -> Window:
        """Create the file, closed and with sequence 0, and name it in the environment of later processes."""
        path.write_bytes(_CELLS.pack(0, 0, EVENTS, LOOK_AGAIN_S))
        os.environ[VARIABLE] = str(path)
        return cls(path)

    @classmethod
    def named(cls) -> Window:
        """Open the file that the environment names."""
        return cls(Path(os.environ[VARIABLE]))

    def reset(self, events: int = EVENTS, producers: int = 1) -> None:
        """Close the window and set the sequence to 0. Each producer can then be `events` ahead of the slowest reader.

        With several `producers`, each reads the file less often, because reading it would otherwise keep the machine
        busy.
        """
        self._map[:] = _CELLS.pack(0, 0, events, LOOK_AGAIN_S * producers)

    @property
    def is_open(self) -> bool:
        return bool(_CELL.unpack_from(self._map, 0)[0])

    def open(self) -> None:
        """Let the producer send. All subscribers must be attached."""
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
        """Wait until the readers open the window.

        Raises:
            TimeoutError: the readers did not open it in time.
        """
        until = time.monotonic() + timeout_s
        while not self.is_open:
            if time.monotonic() > until:
                raise TimeoutError("no reader opened the window")
            time.sleep(0.001)
