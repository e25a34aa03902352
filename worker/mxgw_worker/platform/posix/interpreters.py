"""How another Python is started on POSIX systems."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

assert sys.platform != "win32"


def python_program(python: Path) -> tuple[Path, Mapping[str, str]]:
    """Return the program whose process is this Python, and the variables that its environment needs besides.

    On POSIX systems that is the program itself, in a virtual environment too.
    """
    return python, {}
