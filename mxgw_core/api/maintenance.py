"""What a plugin adds to `mxgw backup` and `mxgw doctor`. For plugins with files or with needs of their own."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class BackupKind(enum.Enum):
    """How a file is copied while a gateway may be writing it."""

    FILE = "file"
    """As it is: a file that is written once, or replaced as a whole."""
    DATABASE = "database"
    """As SQLite copies a database: one moment of it, what is still in the write-ahead log included."""
    LINES = "lines"
    """Text to which whole lines are appended: cut after the last whole line."""


@dataclass(frozen=True, slots=True)
class BackupEntry:
    """One file that belongs into a backup.

    A file below `gateway.data_dir` is restored to the same place below the new data directory, any other file to a
    directory there that is named after the plugin. `prepare` gets a connection to the copy of a DATABASE before it is
    stored, to remove what must not leave this machine; it must not commit.
    """

    path: Path
    kind: BackupKind = BackupKind.FILE
    prepare: Callable[[sqlite3.Connection], None] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning of a plugin in `mxgw doctor`: its subject, what was found, and what to do."""

    title: str
    detail: str
    cure: str
