"""Where output goes: rich consoles for people, JSON for scripts, diagnostics on stderr."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

# Tables written into a pipe keep their columns whole up to this width; a terminal's own width counts otherwise.
PIPE_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout (or stderr) that never reads markup, so that `Object.Array[]` stays what it is."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> NoReturn:
            # Rich would exit with 1 from here; the command line ends this its own way.
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def is_live() -> bool:
    """Return whether stdout is a terminal that can repaint itself."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def silence_stdout() -> None:
    """Let what is still to be written to a stdout without reader go nowhere; Python would complain at its exit."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_json(document: object) -> None:
    """Write one JSON document and its line end to stdout, and flush: a reader behind a pipe gets it at once."""
    sys.stdout.write(json_text(document) + "\n")
    sys.stdout.flush()


def json_text(document: object) -> str:
    """Return one line of JSON. Everything beyond ASCII is escaped, so the line is safe in any terminal and encoding.

    Times become ISO 8601 in UTC, spans seconds, bytes base64; numbers JSON has no form for become the strings
    "NaN", "Infinity" and "-Infinity", as in the JSON mapping of Protocol Buffers.
    """
    return json.dumps(_plain(document), allow_nan=False, separators=(", ", ": "))


def _plain(value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case Enum():
            return value.name.lower()
        case int():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case Mapping():
            return {str(key): _plain(element) for key, element in value.items()}
        case Sequence() | set() | frozenset():
            return [_plain(element) for element in value]
        case Path():
            return str(value)
        case _:
            raise TypeError(f"no JSON form for {type(value).__name__}")
