"""The recorder: it follows a session and writes events and position to the file in the same transaction."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from mxgw_client import EventBatch, Gap, Position, Session, Start, after, connect
from mxgw_plugin_sqlite_history.store import EventStore

log = logging.getLogger(__name__)


async def record(session: Session, store: EventStore) -> None:
    """Write all events of the session until its stream ends. After a cut the client resumes by itself.

    Raises:
        StreamEnded: the session has ended.
    """
    place = store.place(session.session_id)
    start = Start.OLDEST if place is None else after(Position.from_text(place))
    async with session.events(start=start, client_name="history") as events:
        async for frame in events.batches():
            if isinstance(frame, Gap):
                log.warning("events %d to %d are lost: %s", frame.first_lost, frame.last_lost, frame.detail)
            if isinstance(frame, EventBatch):
                rows = [(raw.sequence, raw.SerializeToString()) for raw in frame.raw]
                text = frame.position.to_text()
                # The next batch is read only after this one is on the disk, so the gateway sees a slow disk as lag.
                await asyncio.to_thread(store.append, frame.position.epoch, rows, session.session_id, text)


async def run(target: str, session_id: str, file: Path) -> None:
    """Record one session."""
    store = EventStore(file)
    try:
        key = os.environ.get("MXGW_API_KEY")
        async with connect(target, api_key=key) as gateway, gateway.attach_session(session_id) as session:
            await record(session, store)
    finally:
        store.close()


def main() -> None:
    """The command `mxgw-record-history`. It reads the API key from the environment variable MXGW_API_KEY."""
    parser = argparse.ArgumentParser(description="Write the events of a session to an SQLite file.")
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--session", required=True, help="the session's id")
    parser.add_argument("--file", type=Path, default=Path("history.db"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(arguments.target, arguments.session, arguments.file))


if __name__ == "__main__":
    main()
