"""The file: batches of encoded events, the items that they are about, and for each session how far it was written."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mxgw.v1.events_pb2 import EventBatch
from mxgw_core.api import HistoryPage, ItemRecord, Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    epoch BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, events BLOB NOT NULL, PRIMARY KEY (epoch, first)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batches_by_end ON batches (epoch, last);
CREATE TABLE IF NOT EXISTS items (
    epoch BLOB NOT NULL, serial INTEGER NOT NULL, server_handle INTEGER NOT NULL, item_handle INTEGER NOT NULL,
    definition TEXT NOT NULL, context TEXT NOT NULL, buffered INTEGER NOT NULL, PRIMARY KEY (epoch, serial)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (session_id TEXT PRIMARY KEY, epoch BLOB NOT NULL, sequence INTEGER NOT NULL);
"""
# Begins at the newest batch and goes back, batch by batch, until the batch before is missing.
_BEGIN_OF_NEWEST_RUN = """
SELECT first FROM batches AS here WHERE epoch = ?
AND NOT EXISTS (SELECT 1 FROM batches WHERE epoch = here.epoch AND last = here.first - 1)
ORDER BY first DESC LIMIT 1
"""
_BEHIND = "SELECT first, last, events FROM batches WHERE epoch = ? AND last > ? AND first <= ? ORDER BY last LIMIT 64"
_BUSY_S = 5.0


class EventStore:
    """An SQLite file. Several threads can use the same object.

    What was written survives when the process is killed. After a power failure the last transactions can be missing,
    with the position that belongs to them.
    """

    def __init__(self, file: Path | str) -> None:
        """Open the file. Create it if it does not exist.

        Raises:
            sqlite3.Error: the file cannot be opened, or has another content.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, timeout=_BUSY_S, check_same_thread=False)
        self._lock = threading.Lock()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def append(
        self, session_id: str, place: Position, batch: tuple[int, int, bytes] | None, items: Iterable[ItemRecord] = ()
    ) -> None:
        """Write a batch (first sequence, last sequence, events), the new items, and the place behind them in one
        transaction. `batch` None means that nothing came up to `place` but a gap.

        Raises:
            sqlite3.Error: nothing was written; for example, the disk is full, or the file has the batch already.
        """
        rows = [
            (place.epoch, i.serial, i.server_handle, i.item_handle, i.item_definition, i.item_context, i.buffered)
            for i in items
        ]
        with self._lock, self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            if batch is not None:
                self._connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (place.epoch, *batch))
            self._connection.execute(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (session_id, place.epoch, place.sequence)
            )

    def places(self) -> dict[str, Position]:
        """Return how far the events of each session were written."""
        with self._lock:
            rows = self._connection.execute("SELECT session_id, epoch, sequence FROM places").fetchall()
        return {session_id: Position(epoch, sequence) for session_id, epoch, sequence in rows}

    def span(self, epoch: bytes) -> tuple[int, int] | None:
        """Return the first and the last sequence of the newest events without a hole; None when there are no events."""
        with self._lock:
            newest = self._connection.execute("SELECT max(last) FROM batches WHERE epoch = ?", (epoch,)).fetchone()
            oldest = self._connection.execute(_BEGIN_OF_NEWEST_RUN, (epoch,)).fetchone()
        return None if oldest is None else (oldest[0], newest[0])

    def pages(self, epoch: bytes, after: int, until: int) -> list[HistoryPage]:
        """Return the next events with `after < sequence <= until` as pages, each without a hole; [] behind the last."""
        with self._lock:
            rows = self._connection.execute(_BEHIND, (epoch, after, until)).fetchall()
        return [self._page(epoch, run, after, until) for run in runs_of(rows)]

    def _page(self, epoch: bytes, run: Sequence[tuple[int, int, bytes]], after: int, until: int) -> HistoryPage:
        # Encoded batches that stand one behind another are one encoded batch.
        batch = EventBatch.FromString(b"".join(events for _, _, events in run))
        kept = [event for event in batch.events if after < event.sequence <= until]
        items = self._items(epoch, {event.item_serial for event in kept})
        encoded = EventBatch(events=kept).SerializeToString()
        return HistoryPage(kept[0].sequence, kept[-1].sequence, encoded, items)

    def _items(self, epoch: bytes, serials: Iterable[int]) -> list[ItemRecord]:
        query = "SELECT * FROM items WHERE epoch = ? AND serial = ?"
        with self._lock:
            found = [self._connection.execute(query, (epoch, serial)).fetchone() for serial in serials]
        return [ItemRecord(*row[1:6], buffered=bool(row[6])) for row in found if row is not None]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def runs_of(rows: Iterable[tuple[int, int, bytes]]) -> Iterator[list[tuple[int, int, bytes]]]:
    """Return the batches in several lists without a hole between them."""
    run: list[tuple[int, int, bytes]] = []
    for row in rows:
        if run and run[-1][1] != row[0] - 1:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def problem_of(file: Path) -> str | None:
    """Return why a store cannot use this file; None when it can. Nothing is created."""
    if file.is_dir():
        return f"{file} is a directory, and must be a file"
    place = next(path for path in (file, *file.absolute().parents) if path.exists())
    if place != file and not place.is_dir():
        return f"{place} is not a directory"
    if not os.access(place, os.R_OK | os.W_OK):
        return f"this user cannot write to {place}"
    return None
