"""A worker that dies, stops or lies faults its own session, in time and with its reason; nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest
from support.clients import Client, Refusal, client_of, read_to_the_end, refused
from support.peers import scripted_worker
from support.waiting import until

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.data_directory import DataDirectory
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

HEARTBEAT_S = 1.0
# Whoever is found with these was not found by its silence.
NEVER_SILENT_S = 60.0
SETTINGS: dict[str, object] = {
    "backends.sim.profile": "load",
    "backends.sim.items": 20,
    "backends.sim.rate": 500,
    "workers.heartbeat_interval_s": NEVER_SILENT_S,
}


class Following:
    """A session, and its stream being read all the time."""

    def __init__(self, client: Client, session: ss.Session) -> None:
        self.session = session
        self._stream = client.stream(session.session_id)
        self.received = 0

    async def read(self) -> tuple[list[int], Refusal]:
        _, sequences, refusal = await read_to_the_end(self._stream, self._count)
        return sequences, refusal

    def _count(self, frame: StreamEventsResponse) -> None:
        self.received += len(frame.events.events)

    async def goes_on(self, count: int = 50) -> None:
        """Wait for so many more events."""
        wanted = self.received + count
        await until(lambda: self.received >= wanted)


async def _following(client: Client, name: str) -> Following:
    session = await client.open(name=name)
    following = Following(client, session)
    await client.subscribe(session.session_id, [f"Load.Item{number:05d}" for number in range(1, 21)])
    return following


@asynccontextmanager
async def _two_sessions(heartbeat_s: float) -> AsyncIterator[tuple[RunningGateway, Client, Following, Following]]:
    async with (
        running_gateway({**SETTINGS, "workers.heartbeat_interval_s": heartbeat_s}) as gateway,
        client_of(gateway.target) as client,
    ):
        yield gateway, client, await _following(client, "victim"), await _following(client, "bystander")


async def _fault(strike: Callable[[int], None], heartbeat_s: float = NEVER_SILENT_S) -> Refusal:
    """Strike a worker; return how its stream ended. Everything else must go on."""
    async with _two_sessions(heartbeat_s) as (gateway, client, victim, bystander), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(victim.read())
        other = tasks.create_task(bystander.read())
        await victim.goes_on()
        pid = victim.session.worker_pid
        process = psutil.Process(pid)
        strike(pid)
        sequences, refusal = await reading

        # Everything up to the end came, in order.
        assert sequences == list(range(1, len(sequences) + 1))

        await bystander.goes_on()
        await until(lambda: gateway.api.session(victim.session.session_id) is None)

        assert not process.is_running()
        assert len(list((gateway.directory / "data" / "run").iterdir())) == 1  # the bystander's socket

        session_id = victim.session.session_id
        ended = (await client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id))).session

        assert ended.state == ss.SESSION_STATE_FAULTED
        assert ss.CloseReason.Name(ended.close_reason) == f"CLOSE_REASON_{refusal.reason}"

        gone = await refused(client.stream(session_id))

        assert (gone.reason, gone.metadata["close_reason"]) == ("SESSION_GONE", refusal.reason)

        await client.open(name="successor")
        await client.close(bystander.session.session_id)
        sequences, refusal_of_other = await other

        assert refusal_of_other.reason == "SESSION_CLOSED"
        assert sequences == list(range(1, len(sequences) + 1))
    return refusal


async def test_a_killed_worker_faults_its_session_at_its_end_and_nothing_else() -> None:
    refusal = await _fault(lambda pid: os.kill(pid, signal.SIGKILL))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "WORKER_EXITED")
    assert "signal 9" in refusal.text


async def test_a_stopped_worker_faults_its_session_for_its_silence_and_nothing_else() -> None:
    refusal = await _fault(lambda pid: os.kill(pid, signal.SIGSTOP), HEARTBEAT_S)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "WORKER_SILENT")


async def test_a_worker_told_to_leave_by_somebody_else_says_so() -> None:
    refusal = await _fault(lambda pid: os.kill(pid, signal.SIGTERM))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "WORKER_EXITED")


async def test_commands_under_way_are_told_that_the_worker_died() -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        os.kill(session.worker_pid, signal.SIGSTOP)
        register = c.MxCommand(register=c.RegisterCommand(client_name="x"))
        request = cs.InvokeRequest(session_id=session.session_id, command=register)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(refused(client.commands.Invoke(request)))
            await until(lambda: len(gateway.app.gateway._registry.get(session.session_id).worker.commands) == 1)
            os.kill(session.worker_pid, signal.SIGKILL)

        assert waiting.result().reason == "WORKER_EXITED"


async def test_a_gateway_that_was_stopped_itself_does_not_blame_its_workers() -> None:
    async with _two_sessions(HEARTBEAT_S) as (gateway, client, one, other), asyncio.TaskGroup() as tasks:
        readings = [tasks.create_task(one.read()), tasks.create_task(other.read())]
        await one.goes_on()
        time.sleep(3 * HEARTBEAT_S)  # noqa: ASYNC251  the whole event loop stands still, which is the point
        await one.goes_on()
        await other.goes_on()
        for following in (one, other):
            await client.close(following.session.session_id)
        for reading in readings:
            sequences, refusal = await reading

            assert refusal.reason == "SESSION_CLOSED"
            assert sequences == list(range(1, len(sequences) + 1))

        assert not gateway.api.sessions()


async def test_false_workers_at_a_taken_socket_are_refused_and_the_stream_goes_on() -> None:
    async with _two_sessions(HEARTBEAT_S) as (gateway, client, one, other), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(one.read())
        await one.goes_on()
        for socket in (gateway.directory / "data" / "run").iterdir():
            for _ in range(10):
                async with scripted_worker(socket) as false:
                    false.send_raw(os.urandom(100))

                    assert await false.refusal() == "WRONG_PROCESS"
        await one.goes_on()
        await client.close(one.session.session_id)
        _, refusal = await reading

        assert refusal.reason == "SESSION_CLOSED"

        await client.close(other.session.session_id)


async def test_a_log_and_a_socket_that_cannot_be_removed_end_nothing_and_are_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with _two_sessions(NEVER_SILENT_S) as (gateway, client, victim, bystander), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(victim.read())
        other = tasks.create_task(bystander.read())
        data = DataDirectory(gateway.directory / "data")
        stuck = [data.socket_of(victim.session.session_id), data.log_of(victim.session.session_id)]
        for path in stuck:  # a directory in place of the file: not even root can unlink it
            path.unlink()
            path.mkdir()
        await client.close(victim.session.session_id)
        _, refusal = await reading

        assert refusal.reason == "SESSION_CLOSED"

        await bystander.goes_on()
        await client.open(name="successor")
        await client.close(bystander.session.session_id)
        await other

        assert all(path.is_dir() for path in stuck)

        said = [record for record in caplog.records if record.levelno >= logging.WARNING]

        assert ["cannot be removed" in record.getMessage() for record in said] == [True], said
