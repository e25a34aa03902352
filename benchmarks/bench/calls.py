"""Runs `mxgw` and counts its calls: `python -m bench.calls FILE WORKER ARGUMENTS...`.

It counts every function, in Python or in C, that the thread of the event loop calls. Unlike a time, this number is the
same on a busy and on an idle machine, so it shows small differences between two gateways.
"""

from __future__ import annotations

import mmap
import struct
import sys
from pathlib import Path
from types import FrameType

from bench.launch import launch

_NUMBER = struct.Struct("<Q")


class Calls:
    """The number of calls, in a file that the gateway writes and the harness can read at any time."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def number(self) -> int:
        return int(_NUMBER.unpack_from(self._map)[0])

    def count(self) -> None:
        """Begin to count the calls of this thread."""
        number, write, cell = 0, _NUMBER.pack_into, self._map

        def on_call(_frame: FrameType, event: str, _of: object) -> None:
            nonlocal number
            if event in ("call", "c_call"):
                number += 1
                write(cell, 0, number)

        sys.setprofile(on_call)


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    path.write_bytes(_NUMBER.pack(0))
    Calls(path).count()
    launch()
