"""How another Python is started on Windows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

assert sys.platform == "win32"


def python_program(python: Path) -> tuple[Path, Mapping[str, str]]:
    """Return the program whose process is this Python, and the variables that its environment needs besides.

    The python.exe of a virtual environment only starts the one of the installation as a further process, and waits for
    it: its pid, its handle and its memory would not be those of the Python. So the Python of the installation is
    started as the other one starts it.
    Source: CPython, PC/launcher.c and Lib/multiprocessing/popen_spawn_win32.py.
    """
    for directory in (python.parent, python.parent.parent):
        try:
            lines = (directory / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition("=")
            if key.strip().lower() == "home":
                return Path(value.strip()) / python.name, {"__PYVENV_LAUNCHER__": str(python)}
    return python, {}
