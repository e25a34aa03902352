"""What a plugin adds to `mxgw backup` and `mxgw doctor`. For plugins that keep files or have warnings to report."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class BackupKind(enum.Enum):
    """How a file is copied. A gateway can be writing to the file at the same time."""

    FILE = "file"
    """Copy the bytes. For a file that is written once, or that is replaced as a whole when it changes."""
    DATABASE = "database"
    """Copy the file with SQLite's backup function, which copies the database at one moment with its write-ahead log."""
    LINES = "lines"
    """Copy a text to which lines are appended. The copy ends after the last complete line."""


@dataclass(frozen=True, slots=True)
class BackupEntry:
    """One file that belongs into a backup.

    A file below `gateway.data_dir` is restored to the same place below the new data directory. Any other file is
    restored to a directory below the new data directory that has the name of the plugin. For a DATABASE, `prepare` is
    called before the copy is stored, with a connection to the copy. `prepare` can delete from the copy what must not
    leave this machine, and must not commit.
    """

    path: Path
    kind: BackupKind = BackupKind.FILE
    prepare: Callable[[sqlite3.Connection], None] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning of a plugin in `mxgw doctor`: its title, what the plugin found, and what the reader should do."""

    title: str
    detail: str
    cure: str
