"""Helpers for a session whose gateway is restarted, and for a subscriber that follows it and checks its stream."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.event_service_pb2 import StartPosition
from mxgw.v1.events_pb2 import Position
from mxgw_core.testing.checker import StreamChecker, observed
from support.clients import Client

LOAD = """
[backends.sim]
profile = "load"
items = 10
rate = 500.0

[plugins]
enabled = ["replay", "reattach"]
"""


def after(checker: StreamChecker) -> StartPosition:
    at = checker.position
    assert at is not None
    return StartPosition(after=Position(epoch=at.epoch, sequence=at.sequence))


async def adopted(client: Client, session_id: str, timeout_s: float = 60) -> ss.Session:
    """Wait until a gateway has adopted the session and it is READY. Return its state."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = await client.sessions.GetSession(
                ss.GetSessionRequest(session_id=session_id), timeout=60, wait_for_ready=True
            )
            if answer.session.state == ss.SESSION_STATE_READY:
                return answer.session  # type: ignore[no-any-return]
            assert answer.session.state == ss.SESSION_STATE_ADOPTING, answer.session
            await asyncio.sleep(0.01)


async def follow(client: Client, session_id: str, checker: StreamChecker, events: int, **fields: Any) -> None:
    """Pass at least `events` more events to a checker, starting after its position, and then end the stream."""
    resuming = checker.position is not None
    start = after(checker) if resuming else StartPosition(oldest_retained={})
    checker.attach(checker.position if resuming else None)
    stream = client.stream(session_id, start, **fields)
    wanted = checker.events + events
    async with asyncio.timeout(60):
        while checker.events < wanted:
            frame = await stream.read()
            assert frame is not grpc.aio.EOF
            for observation in observed(frame):
                checker.observe(observation)
    stream.cancel()
    checker.end("LEFT")
    # Wait until the gateway has noticed the end of the stream, as a session can have only one subscriber.
    request = ss.GetSessionRequest(session_id=session_id)
    async with asyncio.timeout(60):
        while (await client.sessions.GetSession(request)).session.subscribers:  # noqa: ASYNC110  another process's state
            await asyncio.sleep(0.01)
