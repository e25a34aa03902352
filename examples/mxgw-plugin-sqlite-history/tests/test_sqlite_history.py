"""Tests of the store and of the recording. A test with a whole gateway checks that stored and live events fit."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mxgw_plugin_sqlite_history import EventStore
from mxgw_plugin_sqlite_history import plugin as plugin_module
from mxgw_plugin_sqlite_history.plugin import Recording, SqliteHistory, SqliteHistoryPlugin, SqliteHistorySettings

from mxgw.v1.events_pb2 import GAP_REASON_QUEUE_DROPPED, Event, EventBatch
from mxgw_core.api import (
    Followed,
    FollowedBatch,
    FollowedGap,
    FollowedItems,
    HistoryPage,
    ItemRecord,
    Position,
)
from mxgw_core.api.errors import GatewayDraining, GatewayError, SessionEnded

EPOCH, OTHER = bytes(16), bytes(range(16))


def item(serial: int) -> ItemRecord:
    return ItemRecord(serial, 1, serial, f"Tank{serial}.PV")


def batch(first: int, last: int, serial: int = 7) -> tuple[int, int, bytes]:
    events = [Event(sequence=s, item_serial=serial, item_handle=serial) for s in range(first, last + 1)]
    return first, last, EventBatch(events=events).SerializeToString()


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore(tmp_path / "history.db")


def write(store: EventStore, *ranges: tuple[int, int], epoch: bytes = EPOCH, items: Sequence[ItemRecord] = ()) -> None:
    for first, last in ranges:
        store.append("session", Position(epoch, last), batch(first, last), items)


def sequences(page: HistoryPage) -> list[int]:
    return [event.sequence for event in EventBatch.FromString(page.events).events]


def test_events_items_and_place_are_written_together_or_not_at_all(store: EventStore) -> None:
    write(store, (1, 3), items=[item(7)])
    with pytest.raises(sqlite3.IntegrityError):
        store.append("session", Position(EPOCH, 9), batch(1, 9), [item(8)])

    assert store.places() == {"session": Position(EPOCH, 3)}
    assert store.span(EPOCH) == (1, 3)
    assert store.span(OTHER) is None
    (page,) = store.pages(EPOCH, 0, 9)
    assert page.items == [item(7)]


def test_the_span_is_the_newest_run_without_a_hole(store: EventStore) -> None:
    write(store, (1, 3), (6, 7), (9, 10), (11, 11))
    write(store, (5, 5), epoch=OTHER)

    assert store.span(EPOCH) == (9, 11)
    assert store.span(OTHER) == (5, 5)


def test_pages_are_runs_without_holes_and_stop_where_they_were_told_to(store: EventStore) -> None:
    write(store, (1, 3), (4, 5), (8, 12))

    async def pages() -> list[list[int]]:
        return [sequences(page) async for page in SqliteHistory(store).read(EPOCH, 1, 9)]

    assert asyncio.run(pages()) == [[2, 3, 4, 5], [8, 9]]


class Following:
    """A follower that gives what a test says, and remembers what was acknowledged."""

    session_id, epoch = "session", EPOCH

    def __init__(self, *followed: Followed, end_error: GatewayError | None = None) -> None:
        self._followed = list(followed)
        self.end_error = end_error
        self.stored: list[int] = []

    @property
    def acknowledged(self) -> int:
        return max(self.stored, default=0)

    async def __aenter__(self) -> "Following":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> Followed:
        if not self._followed:
            raise StopAsyncIteration
        return self._followed.pop(0)

    def acknowledge(self, sequence: int) -> None:
        self.stored.append(sequence)


def record(
    store: EventStore, *followed: Followed, end_error: GatewayError | None = None, is_stopping: bool = False
) -> tuple[Following, list[Any]]:
    """Record one session. Return its follower, and the arguments with which it was asked for."""
    follower, asked = Following(*followed, end_error=end_error), list[Any]()

    def follow(*arguments: object, **options: object) -> Following:
        asked.extend((*arguments, options))
        return follower

    async def recorded() -> None:
        async with asyncio.TaskGroup() as tasks:
            gateway: Any = SimpleNamespace(follow=follow)
            session: Any = SimpleNamespace(session_id="session", epoch=EPOCH)
            recording = Recording(gateway, store, tasks)
            recording.is_stopping = is_stopping
            recording.begin(session)

    asyncio.run(recorded())
    return follower, asked


def test_what_was_written_is_acknowledged_and_the_next_run_goes_on_behind_it(store: EventStore) -> None:
    gap = FollowedGap(3, 5, 3, GAP_REASON_QUEUE_DROPPED, "too slow")
    follower, asked = record(
        store, FollowedItems([item(7)]), FollowedBatch(*batch(1, 2)), gap, FollowedBatch(*batch(6, 6))
    )

    assert asked[:2] == ["session", Position(EPOCH, 0)]
    assert follower.stored == [2, 5, 6]
    assert [sequences(page) for page in store.pages(EPOCH, 0, 9)] == [[1, 2], [6]]
    assert all(page.items == [item(7)] for page in store.pages(EPOCH, 0, 9))
    assert record(store)[1][:2] == ["session", Position(EPOCH, 6)]


Failing = Callable[[int, sqlite3.Error], None]
ENDED = SessionEnded("its client closed it", close_reason="CLIENT")


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Return a function after whose call the next writes fail."""
    append, failures = EventStore.append, list[sqlite3.Error]()

    def failing(self: EventStore, *arguments: Any) -> None:
        if failures:
            raise failures.pop()
        append(self, *arguments)

    monkeypatch.setattr(plugin_module, "_RETRY_S", 0)
    monkeypatch.setattr(EventStore, "append", failing)
    return lambda times, error: failures.extend([error] * times)


@pytest.mark.parametrize("end_error", [None, ENDED], ids=["the session goes on", "the session has ended"])
def test_while_the_file_cannot_be_written_nothing_is_acknowledged_and_nothing_is_lost(
    store: EventStore, fail: Failing, end_error: GatewayError | None
) -> None:
    fail(2, sqlite3.OperationalError("database or disk is full"))
    follower, _ = record(store, FollowedBatch(*batch(1, 2)), end_error=end_error)

    assert (follower.stored, store.span(EPOCH)) == ([2], (1, 2))


@pytest.mark.parametrize(
    ("error", "end_error", "is_stopping"),
    [
        pytest.param(sqlite3.OperationalError("disk is full"), GatewayDraining("goes on"), False, id="left"),
        pytest.param(sqlite3.OperationalError("disk is full"), ENDED, True, id="the gateway has stopped"),
        pytest.param(sqlite3.DatabaseError("the file is damaged"), None, False, id="a damaged file"),
    ],
)
def test_a_session_that_cannot_be_recorded_ends_nothing_but_its_own_recording(
    store: EventStore, fail: Failing, error: sqlite3.Error, end_error: GatewayError | None, is_stopping: bool
) -> None:
    fail(1, error)
    follower, _ = record(store, FollowedBatch(*batch(1, 2)), end_error=end_error, is_stopping=is_stopping)

    assert (follower.stored, store.span(EPOCH)) == ([], None)


def test_a_file_that_cannot_be_used_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    plugin = SqliteHistoryPlugin()
    (tmp_path / "file").touch()
    problems = []
    for file in (tmp_path / "file", tmp_path / "new" / "history.db", tmp_path, tmp_path / "file" / "history.db"):
        plugin._configure(SqliteHistorySettings(file=file))
        problems.append(plugin.mxgw_check_settings())

    assert problems == [
        [],
        [],
        [f"plugins.sqlite_history.file: {tmp_path} is a directory, and must be a file"],
        [f"plugins.sqlite_history.file: {tmp_path}/file is not a directory"],
    ]
    assert not (tmp_path / "new").exists()
