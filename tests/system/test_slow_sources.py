"""Sources that never answer: the sessions that wait for them hold up nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.clients import client_of
from support.waiting import until

from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.api.types import SessionState
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio


class SilentSource:
    """Takes connections, and says nothing."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.port = 0

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)


@pytest_asyncio.fixture
async def source() -> AsyncIterator[SilentSource]:
    silent = SilentSource()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        silent.port = server.sockets[0].getsockname()[1]
        yield silent
        for connection in silent.connections:
            connection.close()


@pytest.mark.parametrize("spares", [0, 1])
async def test_sessions_open_while_more_than_may_start_at_once_wait_for_a_dead_source(
    source: SilentSource, spares: int
) -> None:
    settings = {
        "backends.sim.kind": "sim",
        "backends.dead.kind": "opcua",
        "backends.dead.url": f"opc.tcp://127.0.0.1:{source.port}",
        "backends.dead.connect_timeout_s": 300,
        "backends.dead.request_timeout_s": 600,
        "workers.start_timeout_s": 600,
        "workers.parallel_starts": 1,
        "workers.warm_pool": spares,
    }
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        await until(lambda: gateway.api.observation.spare_workers == spares, 60)
        request = ss.OpenSessionRequest(client_name="waits", backend="dead")
        waiting = [client.sessions.OpenSession(request) for _ in range(2)]
        # Both wait for the source at once, although only one worker at a time may start.
        await until(lambda: len(source.connections) == len(waiting), 60)

        assert (await client.open()).backend == "sim"
        assert [info.state for info in gateway.api.sessions()] == [
            SessionState.CREATING,
            SessionState.CREATING,
            SessionState.READY,
        ]

        for call in waiting:
            call.cancel()
        await until(lambda: len(gateway.api.sessions()) == 1, 60)
