"""Record data changes in SQLite, each exactly once: values and position are committed in one transaction.

    python examples/record_to_sqlite.py [TARGET [DATABASE [EVENTS]]]

Run it again with the same file: if its session is still open, the program attaches to it and goes on after the last
event that it committed. Events that the gateway no longer holds by then are listed in the table `gaps`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys

from mxgw_client import DataChange, EventBatch, Gap, Gateway, Position, Session, Start, after, connect, errors

TAGS = ("Tank_001.Level", "Tank_002.Level", "Boiler_001.Pressure")

SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (epoch TEXT, sequence INTEGER, reference TEXT, value, quality INTEGER,
                                    source_time TEXT, PRIMARY KEY (epoch, sequence));
CREATE TABLE IF NOT EXISTS gaps (epoch TEXT, first_lost INTEGER, last_lost INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS place (only INTEGER PRIMARY KEY CHECK (only = 1), session_id TEXT, position TEXT);
"""


async def session_to_use(gateway: Gateway, session_id: str) -> tuple[Session, bool]:
    """Return the session of the earlier run if it is still open, or a new one; and True when it is the earlier one."""
    if session_id:
        with contextlib.suppress(errors.SessionNotFound, errors.SessionEnded):
            return await gateway.attach_session(session_id).open(), True
    session = await gateway.open_session(client_name="record-to-sqlite", lease_s=600, keep=True).open()
    await session.subscribe(*TAGS)
    return session, False


def store(database: sqlite3.Connection, frame: EventBatch | Gap, session_id: str, position: Position) -> int:
    """Commit one frame and the position after it. Return how many data changes the frame had."""
    rows: list[tuple[object, ...]] = []
    with database:
        if isinstance(frame, EventBatch):
            rows = [
                (position.epoch.hex(), e.sequence, e.reference, e.value, e.raw_quality, str(e.source_time))
                for e in frame
                if isinstance(e, DataChange) and isinstance(e.value, int | float | str | None)
            ]
            database.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", rows)
        else:
            lost = (frame.epoch.hex(), frame.first_lost, frame.last_lost, frame.reason.name)
            database.execute("INSERT INTO gaps VALUES (?, ?, ?, ?)", lost)
        database.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (session_id, position.to_text()))
    return len(rows)


async def main(target: str, path: str, events_wanted: int | None) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
        session_id, text = database.execute("SELECT session_id, position FROM place").fetchone() or ("", "")
        async with connect(target) as gateway:
            session, is_old = await session_to_use(gateway, session_id)
            start = after(Position.from_text(text)) if is_old else Start.OLDEST
            print(f"{'attached to' if is_old else 'opened'} session {session.session_id}")
            stored = 0
            async with session.events(start=start) as events:
                async for frame in events.batches():
                    if isinstance(frame, EventBatch | Gap) and events.position is not None:
                        stored += store(database, frame, session.session_id, events.position)
                    if events_wanted is not None and stored >= events_wanted:
                        break
            print(f"{stored} changes stored, up to {events.position}")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("127.0.0.1:50051", "changes.sqlite", "0")[len(sys.argv) - 1 :]]
    asyncio.run(main(arguments[0], arguments[1], int(arguments[2]) or None))
