"""How far the reader is, shared with the producer: keeps a pre-made load from running away from its reader."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from struct import Struct

VARIABLE = "BENCH_WINDOW"
EVENTS = 100_000

_SEQUENCE = Struct("<Q")


class Window:
    """A number in a file that both processes have mapped. Written by one, read by the other."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _SEQUENCE.size)

    @classmethod
    def create(cls, path: Path) -> Window:
        """Make the file, and name it in the environment of processes started later."""
        path.write_bytes(_SEQUENCE.pack(0))
        os.environ[VARIABLE] = str(path)
        return cls(path)

    @classmethod
    def named(cls) -> Window:
        """Open the one the environment names."""
        return cls(Path(os.environ[VARIABLE]))

    @property
    def sequence(self) -> int:
        (number,) = _SEQUENCE.unpack_from(self._map)
        return int(number)

    @sequence.setter
    def sequence(self, number: int) -> None:
        _SEQUENCE.pack_into(self._map, 0, number)
