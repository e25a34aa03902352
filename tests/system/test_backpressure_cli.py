"""`mxgw sessions SESSION` as processes: the subscribers of a session, once and kept up to date."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mxgw_client import connect
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

MXGW = [sys.executable, "-m", "mxgw_cli", "sessions"]
SETTINGS = {"plugins.enabled": ["backpressure"], "plugins.backpressure.queue_events": 500}


@pytest_asyncio.fixture
async def session() -> AsyncIterator[tuple[str, str]]:
    """A session with two subscribers; the gateway's address, and the session's id."""
    async with (
        running_gateway(SETTINGS) as gateway,
        connect(gateway.target) as client,
        client.open_session(client_name="owner") as session,
        session.events(client_name="desk"),
        session.events(policy="conflate", client_name="wall screen"),
    ):
        yield gateway.target, session.session_id


async def run(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*MXGW, *arguments],
        env={**os.environ, "MXGWCLI_GATEWAY": target},
        capture_output=True,
        text=True,
        timeout=30,
    )


async def test_a_session_is_shown_with_its_subscribers(session: tuple[str, str]) -> None:
    target, session_id = session
    shown = await run(target, session_id[:8])
    document = json.loads((await run(target, "show", session_id, "--json")).stdout)

    assert shown.returncode == 0, shown.stderr
    for wanted in ("2 of at most 8 subscribers", "desk", "wall screen", "disconnect", "conflate", "0 of 500"):
        assert wanted in shown.stdout
    followers = document["events"]["subscribers"]
    assert [(f["client_name"], f["policy"], f["limit_events"]) for f in followers] == [
        ("desk", "disconnect", 500),
        ("wall screen", "conflate", 500),
    ]


async def test_watching_writes_a_line_a_second_until_the_session_ends(session: tuple[str, str]) -> None:
    target, session_id = session
    process = await asyncio.create_subprocess_exec(
        *MXGW,
        session_id,
        "--watch",
        "--json",
        env={**os.environ, "MXGWCLI_GATEWAY": target},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
        closed = await run(target, "close", session_id, "--yes")
        _, said = await process.communicate()

    assert closed.returncode == 0
    assert [len(line["subscribers"]) for line in lines] == [2, 2]
    assert lines[0]["session_id"] == session_id
    assert process.returncode == 0
    assert b"the session ended by client" in said


async def test_watching_in_a_terminal_paints_the_table_and_ctrl_c_ends_it(session: tuple[str, str]) -> None:
    target, session_id = session
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *MXGW,
        "--watch",
        session_id,
        env={**os.environ, "MXGWCLI_GATEWAY": target, "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        seen = await asyncio.to_thread(read_until, leader, b"wall screen")
        process.send_signal(2)
        async with asyncio.timeout(60):
            code = await process.wait()
    finally:
        os.close(leader)

    assert b"2 of at most 8" in seen
    assert code == 130


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """Read a terminal until something shows."""
    seen, until = b"", time.monotonic() + 60
    while wanted not in seen and time.monotonic() < until:
        seen += os.read(descriptor, 65_536)
    return seen
