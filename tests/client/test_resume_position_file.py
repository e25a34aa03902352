"""Position files: whole, private, never ahead of the application, and refused when they belong to another session."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import pytest
from client.scripted import EPOCH, Scripted, changes, heartbeat, opened, read_until
from client.test_resume_stream import CLOSED, CUT, QUICK, place, resumed, snapshot, snapshot_end, streams
from support.access import is_private

from mxgw_client import (
    DataChange,
    EventBatch,
    Position,
    Session,
    Start,
    StoredPosition,
    StreamCut,
    StreamOpened,
    after,
    errors,
    position_file,
    read_position_file,
)
from mxgw_client.position_file import PositionFile

FIVE = Position(EPOCH, 5)


def at(path: Path) -> int | None:
    stored = read_position_file(path)
    return None if stored is None else stored.position.sequence


def write(path: Path, sequence: int = 5, session_id: str = "session-1", *, snapshot_owed: bool = False) -> None:
    file = PositionFile(path, session_id, 0)
    file.note(Position(EPOCH, sequence), snapshot_owed=snapshot_owed)
    file.close()


# The file itself


def test_a_file_names_session_and_place_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "place"
    write(path, snapshot_owed=True)

    assert read_position_file(path) == StoredPosition("session-1", FIVE, snapshot_owed=True)
    assert is_private(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["place"]

    document = json.loads(path.read_text())

    assert (document["session_id"], document["position"]) == ("session-1", FIVE.to_text())
    assert "saved_at" in document


@pytest.mark.skipif(os.name != "nt", reason="only Windows refuses to replace a file that is open")
def test_a_file_that_another_program_has_open_for_a_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "place"
    write(path, 5)
    scanner = path.open()
    monkeypatch.setattr(position_file, "_pause", scanner.close)
    write(path, 6)

    assert at(path) == 6


def test_no_file_is_no_place(tmp_path: Path) -> None:
    assert read_position_file(tmp_path / "none") is None


GOOD = {"mxgw_position_file": 1, "session_id": "session-1", "position": FIVE.to_text()}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"mxgw1.00.5",
        json.dumps({**GOOD, "mxgw_position_file": 2}).encode(),
        json.dumps({**GOOD, "session_id": ""}).encode(),
        json.dumps({**GOOD, "session_id": 7}).encode(),
        json.dumps({**GOOD, "position": "mxgw1.zz.5"}).encode(),
        json.dumps({**GOOD, "position": None}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "position"}).encode(),
        json.dumps(GOOD).encode() + b" " * 5000,
        b"[" * 4000,
    ],
    ids=lambda content: repr(content[:40]),
)
def test_what_is_no_position_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "place"
    path.write_bytes(content)
    with pytest.raises(errors.PositionFileError, match="restore it from a copy, or delete it"):
        read_position_file(path)
    with pytest.raises(errors.PositionFileError):
        PositionFile(path, "session-1", 0)

    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(errors.PositionFileError, match=r"cannot be read: (Is a directory|Permission denied)"):
        read_position_file(tmp_path)


def test_the_file_of_another_session_is_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path / "place", session_id="session-1")
    with pytest.raises(errors.PositionFileError, match=r"attach_session\('session-1'\)"):
        PositionFile(tmp_path / "place", "session-2", 0)


@pytest.mark.parametrize("path", ["no such directory/place", "file/place"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.PositionFileError, match="irectory"):
        PositionFile(tmp_path / path, "session-1", 0)


def test_an_interval_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.PositionFileError, match="position_interval_s"):
        PositionFile(tmp_path / "place", "session-1", -1)


def test_a_failed_write_leaves_the_old_place_and_is_told_to_whoever_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    directory.mkdir()
    path = directory / "place"
    write(path)
    file = PositionFile(path, "session-1", 0)
    (directory / f".place.{os.getpid()}.new").mkdir()  # so that the new file cannot be written
    with pytest.raises(errors.PositionFileError, match=f"cannot be written.*{FIVE.to_text()} may come again"):
        file.note(Position(EPOCH, 6))
    with pytest.raises(errors.PositionFileError, match="cannot be written"):
        file.note(Position(EPOCH, 7))
    with pytest.raises(errors.PositionFileError, match="cannot be written"):
        file.close()

    assert at(path) == 5


def test_writes_are_no_closer_than_the_interval_and_the_last_place_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "place"
    file = PositionFile(path, "session-1", 3600)
    file.note(Position(EPOCH, 1))
    deadline = time.monotonic() + 60
    while at(path) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first = path.stat().st_ino
    for sequence in range(2, 100):
        file.note(Position(EPOCH, sequence))

    assert path.stat().st_ino == first
    assert at(path) == 1

    file.close()

    assert at(path) == 99
    assert not [thread for thread in threading.enumerate() if thread.name == "mxgw-client-position"]

    file.close()
    file.note(Position(EPOCH, 100))

    assert at(path) == 99


def test_the_interval_over_the_newest_place_is_written_without_being_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "place"
    file = PositionFile(path, "session-1", 0.02)
    file.note(Position(EPOCH, 1))
    file.note(Position(EPOCH, 2))
    deadline = time.monotonic() + 60
    while at(path) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    file.close()


# With a stream


@pytest.mark.asyncio
async def test_what_is_in_the_file_is_done_with_and_never_ahead(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    streams(scripted, [opened(), changes(1, 4), heartbeat(4), CLOSED])
    events = session.events(position_file=path, position_interval_s=0)
    seen, _ = await read_until(
        errors.SessionClosed, events, lambda item: (getattr(item, "sequence", type(item).__name__), at(path))
    )

    # While the application processes an event, the file has the position of the event before.
    assert seen == [("StreamOpened", None), (1, 0), (2, 1), (3, 2), (4, 3), ("Heartbeat", 4)]
    assert at(path) == 4

    await events.close()


@pytest.mark.asyncio
async def test_a_batch_is_done_with_as_a_whole(scripted: Scripted, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "place"
    streams(scripted, [opened(), changes(1, 4), changes(5, 9), CLOSED])
    events = session.events(position_file=path, position_interval_s=0)
    seen, _ = await read_until(errors.SessionClosed, events.batches(), lambda frame: (type(frame), at(path)))

    assert seen == [(StreamOpened, None), (EventBatch, 0), (EventBatch, 4)]
    assert at(path) == 9

    await events.close()


@pytest.mark.asyncio
async def test_a_new_stream_goes_on_where_the_file_says_whatever_its_start(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    write(path)
    requests = streams(scripted, [resumed(5), changes(6, 6), CLOSED])
    async with session.events(start=Start.NOW, position_file=path) as events:
        assert events.position == FIVE
        await read_until(errors.SessionClosed, events, type)

    assert requests[0].start.after == place(5)
    assert at(path) == 6


@pytest.mark.asyncio
async def test_without_a_file_yet_the_start_counts(scripted: Scripted, session: Session, tmp_path: Path) -> None:
    requests = streams(scripted, [resumed(3), CLOSED])
    async with session.events(start=after(Position(EPOCH, 3)), position_file=tmp_path / "place") as events:
        await read_until(errors.SessionClosed, events, type)

    assert requests[0].start.after == place(3)
    assert at(tmp_path / "place") == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["leaves", "fails", "is cancelled"])
async def test_the_last_item_counts_when_the_application_leaves_and_not_when_it_fails(
    scripted: Scripted, session: Session, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "place"
    streams(scripted, [opened(), changes(1, 5)])

    async def follow() -> None:
        async with session.events(position_file=path) as events:
            async for item in events:
                if isinstance(item, DataChange) and item.sequence == 3:
                    if how == "fails":
                        raise LookupError
                    if how == "is cancelled":
                        raise asyncio.CancelledError
                    break

    if how == "leaves":
        await follow()
    else:
        with pytest.raises((LookupError, asyncio.CancelledError)):
            await follow()

    assert at(path) == (3 if how == "leaves" else 2)


@pytest.mark.asyncio
async def test_the_file_follows_the_stream_over_a_cut(scripted: Scripted, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "place"
    streams(scripted, [opened(), changes(1, 5), CUT], [resumed(5), changes(6, 9), CLOSED])
    events = session.events(position_file=path, position_interval_s=0, resume=QUICK)
    seen, _ = await read_until(errors.SessionClosed, events, lambda item: (type(item), at(path)))

    assert (StreamCut, 5) in seen
    assert at(path) == 9

    await events.close()


@pytest.mark.asyncio
async def test_a_snapshot_that_was_not_finished_is_owed_to_the_next_run(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    requests = streams(
        scripted,
        [opened(5), snapshot(6)],
        [resumed(5), changes(6, 6), snapshot(6), snapshot_end(6), CLOSED],
        [resumed(6), CLOSED],
    )
    async with session.events(start=Start.SNAPSHOT, position_file=path) as events:
        await anext(events)
        await anext(events)
    owed = read_position_file(path)
    for _ in range(2):
        async with session.events(start=Start.SNAPSHOT, position_file=path) as events:
            await read_until(errors.SessionClosed, events, type)

    assert owed == StoredPosition("session-1", FIVE, snapshot_owed=True)
    assert [request.with_snapshot for request in requests] == [False, True, False]
    assert read_position_file(path) == StoredPosition("session-1", Position(EPOCH, 6))


@pytest.mark.asyncio
async def test_a_stream_refuses_the_file_of_another_session(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    write(tmp_path / "place", session_id="another")
    with pytest.raises(errors.PositionFileError, match="belongs to session another"):
        session.events(position_file=tmp_path / "place")


@pytest.mark.asyncio
async def test_a_disk_that_fails_stops_the_stream_before_more_is_handed_out(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    streams(scripted, [opened(), changes(1, 5)])
    events = session.events(position_file=tmp_path / "place", position_interval_s=0)
    await anext(events)
    await anext(events)
    (tmp_path / f".place.{os.getpid()}.new").mkdir()
    with pytest.raises(errors.PositionFileError):
        await anext(events)
    with pytest.raises(errors.PositionFileError):
        await events.close()

    assert at(tmp_path / "place") == 0


@pytest.mark.asyncio
async def test_a_stream_that_is_dropped_writes_what_was_done_with(
    scripted: Scripted, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    streams(scripted, [opened(), changes(1, 5)])
    events = session.events(position_file=path, position_interval_s=3600)
    for _ in range(4):
        await anext(events)
    del events
    async with asyncio.timeout(60):
        while at(path) != 2:
            import gc

            gc.collect()
            await asyncio.sleep(0.01)
