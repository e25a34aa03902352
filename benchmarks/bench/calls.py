"""`mxgw` with its calls counted: `python -m bench.calls FILE WORKER ARGUMENTS...`.

Counts what the event loop's thread calls, functions in Python and in C alike. Unlike time, the number is the same on a
busy machine and on an idle one, so a small difference between two gateways shows.
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
    """The number, in a file that the gateway writes and the harness reads at any time."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def number(self) -> int:
        return int(_NUMBER.unpack_from(self._map)[0])

    def count(self) -> None:
        """Count from now on what this thread calls."""
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
