"""A gateway with workers that wait for sessions: a worker's life has the same steps, and nobody adopts a spare."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from support.adoption import LOAD, adopted
from support.clients import client_of
from support.plugins import InstallPlugin
from support.restarts import Restarts, restarts
from support.waiting import until
from support.workers import started_workers

from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest
from mxgw_core.api import WorkerIdentity, WorkerProof, WorkerSpawn, hookimpl
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

WARM = f"{LOAD}\n[workers]\nwarm_pool = 2\n"


class Steps:
    """What a plugin sees of workers' lives."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []

    @hookimpl
    def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
        self.seen.append(("spawning", spawn.session_id, 0))

    @hookimpl
    def mxgw_worker_started(self, worker: WorkerIdentity) -> None:
        self.seen.append(("started", worker.session_id, worker.pid))

    @hookimpl
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        self.seen.append(("proved", proof.worker.session_id, proof.worker.pid))

    @hookimpl
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        self.seen.append(("ready", worker.session_id, worker.pid))


async def _spares(gateway: Restarts, client: Any) -> set[int]:
    """Wait until both spares are ready, and return their pids."""
    while (await client.gateway.GetGatewayInfo(GetGatewayInfoRequest())).spare_workers < 2:
        pass
    return {worker.pid for worker in gateway.workers()}


async def test_a_session_takes_a_spare_through_the_steps_of_any_worker(install_plugin: InstallPlugin) -> None:
    steps = Steps()
    settings = {
        "plugins.enabled": [install_plugin("steps", steps)],
        "workers.warm_pool": 1,
        "backends.sim": {"profile": "plant"},
        "backends.plant": {"kind": "sim", "profile": "load", "items": 3, "rate": 0},
    }
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        await until(lambda: gateway.api.observation.spare_workers == 1, 60)
        (spare,) = started_workers()

        assert not steps.seen

        # Also one of another backend than the default, which the spare was not told of.
        session = await client.open(backend="plant")
        id_ = session.session_id

        assert session.worker_pid == spare
        assert steps.seen == [
            ("spawning", id_, 0),
            ("started", id_, spare),
            ("proved", id_, spare),
            ("ready", id_, spare),
        ]
        assert len(await client.subscribe(id_, ["Load.Item00003"])) == 1

        await until(lambda: gateway.api.observation.spare_workers == 1, 60)
        other = await client.open()

        assert other.worker_pid != spare


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_next_gateway_adopts_the_session_and_no_spare_is_left(number: signal.Signals) -> None:
    async with restarts(WARM) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            await _spares(gateway, client)
            session = await client.open()
            spares = await _spares(gateway, client) - {session.worker_pid}

        assert len(spares) == 2
        assert [id_ for id_, _ in gateway.rows()] == [session.session_id]

        assert gateway.process is not None
        os.kill(gateway.process.pid, number)
        await gateway.ended()
        await until(lambda: {worker.pid for worker in gateway.workers()} == {session.worker_pid}, 60)

        await gateway.start()
        async with client_of(gateway.target) as client:
            again = await adopted(client, session.session_id)

            assert again.worker_pid == session.worker_pid
            assert not spares & await _spares(gateway, client)

            await client.close(session.session_id)
        await gateway.terminate()
        await gateway.all_is_gone()
