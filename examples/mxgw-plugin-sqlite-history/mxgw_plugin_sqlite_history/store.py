"""The file: one row per encoded event, and for each session the position up to which events were written."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    epoch BLOB NOT NULL, sequence INTEGER NOT NULL, event BLOB NOT NULL, PRIMARY KEY (epoch, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (session_id TEXT PRIMARY KEY, position TEXT NOT NULL);
"""
# Begins at the newest event and goes back, event by event, until the event before is missing.
_BEGIN_OF_NEWEST_RUN = """
SELECT sequence FROM events AS here WHERE epoch = ?
AND NOT EXISTS (SELECT 1 FROM events WHERE epoch = here.epoch AND sequence = here.sequence - 1)
ORDER BY sequence DESC LIMIT 1
"""
# How many seconds a reader waits while the file is locked by the writer, and the writer while it is locked by readers.
_BUSY_S = 5.0


class EventStore:
    """An SQLite file.

    One process writes it, and others read it at the same time. Several threads can use the same object.
    """

    def __init__(self, file: Path | str, *, read_only: bool = False) -> None:
        """Open the file. Create it if it does not exist, unless `read_only` is True.

        Raises:
            sqlite3.Error: the file cannot be opened, or has another content.
        """
        mode = "ro" if read_only else "rwc"
        path = Path(file).absolute().as_uri()
        self._connection = sqlite3.connect(f"{path}?mode={mode}", uri=True, timeout=_BUSY_S, check_same_thread=False)
        self._lock = threading.Lock()
        if not read_only:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)

    def append(self, epoch: bytes, events: Iterable[tuple[int, bytes]], session_id: str, position: str) -> None:
        """Write events, as pairs (sequence, encoded event), and the position after them in one transaction.

        Events that the file already has are not changed.
        """
        rows = [(epoch, sequence, event) for sequence, event in events]
        with self._lock, self._connection:
            self._connection.executemany("INSERT INTO events VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            self._connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (session_id, position))

    def place(self, session_id: str) -> str | None:
        """Return the position up to which the events of a session were written; None when there is none."""
        with self._lock:
            row = self._connection.execute("SELECT position FROM places WHERE session_id = ?", (session_id,)).fetchone()
        return None if row is None else str(row[0])

    def span(self, epoch: bytes) -> tuple[int, int] | None:
        """Return the oldest and the newest sequence of the newest events of an epoch; None when there are no events.

        The range goes back from the newest event until an event is missing.
        """
        with self._lock:
            newest = self._connection.execute("SELECT max(sequence) FROM events WHERE epoch = ?", (epoch,)).fetchone()
            oldest = self._connection.execute(_BEGIN_OF_NEWEST_RUN, (epoch,)).fetchone()
        return None if oldest is None else (oldest[0], newest[0])

    def read(self, epoch: bytes, after: int, until: int, limit: int) -> list[tuple[int, bytes]]:
        """Return at most `limit` events with `after < sequence <= until`, oldest first."""
        with self._lock:
            return self._connection.execute(
                "SELECT sequence, event FROM events WHERE epoch = ? AND sequence > ? AND sequence <= ?"
                " ORDER BY sequence LIMIT ?",
                (epoch, after, until, limit),
            ).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
