"""A program that writes the events of a session to a file, and that tests start as a process and kill at any time.

Arguments: target, position file, output file, last sequence wanted, write interval of the position file in seconds.

It resumes after the position in the position file. Before that, it removes the lines of the output file that are newer
than this position. So the output file has every event exactly once, whenever the program was killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mxgw_client import EventBatch, Gap, connect, read_position_file


def go_back_to(output: Path, sequence: int) -> None:
    """Remove from the output all lines after `sequence`, and an unfinished last line."""
    if not output.exists():
        return
    lines = output.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and int(line.split()[0]) <= sequence]
    output.write_bytes(b"".join(kept))


async def record(target: str, place: Path, output: Path, until: int, interval_s: float) -> None:
    stored = read_position_file(place)
    assert stored is not None
    go_back_to(output, stored.position.sequence)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with (
        connect(target) as gateway,
        gateway.attach_session(stored.session_id) as session,
        session.events(position_file=place, position_interval_s=interval_s) as events,
    ):
        print("following", flush=True)  # noqa: T201 - what its parent waits for
        async for frame in events.batches():
            if isinstance(frame, Gap):
                os.write(file, f"{frame.last_lost} gap {frame.first_lost}\n".encode())
            if isinstance(frame, EventBatch):
                lines = [f"{e.sequence} {e.item_handle} {e.raw.data_change.value.double}\n" for e in frame]
                os.write(file, "".join(lines).encode())
                if frame.last_sequence >= until:
                    return


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
