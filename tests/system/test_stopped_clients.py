"""A client process that is stopped reads not even its socket. It keeps no place, and no gateway from ending."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import stalled
from support.clients import client_of
from support.loads import load_names
from support.restarts import restarts

from mxgw.v1 import session_service_pb2 as ss

pytestmark = pytest.mark.asyncio

READERS = 4
SETTINGS = f"""
[gateway]
drain_timeout_s = 0.5

[events]
overflow_drain_s = 0.2

[backends.sim]
profile = "load"
items = 100
rate = 20_000.0

[plugins]
enabled = ["backpressure"]

[plugins.backpressure]
maximum_subscribers = {READERS}
queue_events = 1_000
"""


async def test_stopped_readers_lose_their_places_and_the_gateway_ends_without_them() -> None:
    async with restarts(SETTINGS) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session_id = (await client.open()).session_id
            await client.subscribe(session_id, load_names(100))
            command = [sys.executable, str(Path(stalled.__file__)), gateway.target, session_id, str(READERS)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as readers:  # noqa: ASYNC220
                try:
                    assert readers.stdout is not None
                    assert await asyncio.to_thread(readers.stdout.readline)

                    readers.send_signal(signal.SIGSTOP)
                    asked = ss.ListSubscribersRequest(session_id=session_id)
                    async with asyncio.timeout(120):
                        while (await client.sessions.ListSubscribers(asked, timeout=60)).subscribers:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                    assert gateway.process is not None
                    gateway.process.terminate()

                    assert await gateway.ended() == 0
                    assert "stopped after" in gateway.log
                finally:
                    readers.kill()
