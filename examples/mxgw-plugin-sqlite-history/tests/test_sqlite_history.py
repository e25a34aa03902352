"""Tests of the store and its pages. A test with a whole gateway checks that older and live events fit together."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from mxgw_plugin_sqlite_history import EventStore
from mxgw_plugin_sqlite_history.plugin import SqliteHistory

from mxgw.v1.events_pb2 import Event, EventBatch

EPOCH, OTHER = bytes(16), bytes(range(16))


def rows(*sequences: int) -> list[tuple[int, bytes]]:
    return [(s, Event(sequence=s, item_serial=7, item_handle=7).SerializeToString()) for s in sequences]


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "history.db")


def test_events_and_place_are_written_together(store: EventStore) -> None:
    store.append(EPOCH, rows(1, 2, 3), "session", "after 3")
    with pytest.raises(sqlite3.Error):
        store.append(EPOCH, [(4, b"x"), (5, None)], "session", "after 5")  # type: ignore[list-item]

    assert store.place("session") == "after 3"
    assert store.span(EPOCH) == (1, 3)
    assert store.place("another") is None
    assert store.span(OTHER) is None


def test_the_span_is_the_newest_run_without_a_hole(store: EventStore) -> None:
    store.append(EPOCH, rows(1, 2, 3, 6, 7, 9, 10, 11), "session", "a")
    store.append(OTHER, rows(5), "session", "b")

    assert store.span(EPOCH) == (9, 11)
    assert store.span(OTHER) == (5, 5)


def test_what_is_written_again_stays_what_it_was(store: EventStore) -> None:
    store.append(EPOCH, rows(1), "session", "a")
    store.append(EPOCH, [(1, b"other"), *rows(2)], "session", "b")

    assert store.read(EPOCH, 0, 9, 10) == rows(1, 2)


def test_another_process_reads_while_one_writes(store: EventStore, tmp_path: Path) -> None:
    reader = EventStore(tmp_path / "history.db", read_only=True)
    store.append(EPOCH, rows(1, 2), "session", "a")

    assert reader.read(EPOCH, 1, 9, 10) == rows(2)
    with pytest.raises(sqlite3.OperationalError):
        reader.append(EPOCH, rows(3), "session", "b")


def test_pages_are_runs_without_holes_and_stop_where_they_were_told_to(store: EventStore) -> None:
    store.append(EPOCH, rows(1, 2, 3, 6, 7, 9), "session", "a")

    async def pages() -> list[tuple[int, int, list[int]]]:
        history = SqliteHistory(store, page_events=2)
        return [
            (page.first_sequence, page.last_sequence, [e.sequence for e in EventBatch.FromString(page.events).events])
            async for page in history.read(EPOCH, 1, 8)
        ]

    assert asyncio.run(pages()) == [(2, 3, [2, 3]), (6, 7, [6, 7])]
