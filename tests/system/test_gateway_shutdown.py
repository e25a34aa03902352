"""An orderly shutdown: refuse new, tell streams, drain, close, leave nothing."""

from __future__ import annotations

import asyncio

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.clients import client_of, read_events, read_to_the_end, refused
from support.waiting import until

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

LOAD: dict[str, object] = {
    "backends.sim.profile": "load",
    "backends.sim.items": 50,
    "backends.sim.rate": 2_000,
}
NAMES = [f"Load.Item{number:05d}" for number in range(1, 51)]


async def test_a_stream_is_told_to_come_back_gets_what_is_there_and_ends_with_its_reason() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, NAMES)
        stream = client.stream(session.session_id)
        _, sequences = await read_events(stream, 100)
        gateway.app.stop()
        more, rest, refusal = await read_to_the_end(stream)
        sequences += rest
        kinds = [frame.WhichOneof("frame") for frame in more]
        draining = next(frame.draining for frame in more if frame.HasField("draining"))

        assert kinds.count("draining") == 1
        assert draining.retry_after.seconds > 0
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING")
        assert refusal.retry_after_s is not None
        assert sequences == list(range(1, len(sequences) + 1))


async def test_new_sessions_and_streams_are_refused_while_others_drain() -> None:
    slow = {"backends.sim.resolve_delay_s": 0.8, "gateway.drain_timeout_s": 2.0}
    async with running_gateway(slow) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        handle = await client.register(session.session_id)
        read = c.ReadBulkCommand(server_handle=handle, items=[c.ItemReference(item_definition="Boiler_001.X")])
        request = cs.InvokeRequest(session_id=session.session_id, command=c.MxCommand(read_bulk=read))
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(refused_or_done(client.commands.Invoke(request)))
            await until(lambda: len(gateway.app.gateway._registry.get(session.session_id).worker.commands) == 1)
            gateway.app.stop()
            await until(lambda: gateway.app.gateway._registry.draining)
            new = await refused(client.open())
            stream = await refused(client.stream(session.session_id))
            await held

        for refusal in (new, stream):
            assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def refused_or_done(call: object) -> None:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError:
        return


async def test_calls_that_arrive_while_the_server_still_answers_are_told_when_to_come_back() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        gateway.app.gateway._registry.draining = True  # the first step of a shutdown, which goes on at once elsewhere
        for call in (client.open(), client.stream(session.session_id)):
            refusal = await refused(call)

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING")
            assert refusal.retry_after_s is not None


async def test_health_says_that_the_gateway_goes_away_before_it_is_gone() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

        gateway.app.stop()

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING

        watch.cancel()


async def test_nothing_is_left_of_many_sessions() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        sessions = [await client.open() for _ in range(6)]
        processes = [psutil.Process(session.worker_pid) for session in sessions]
        directory = gateway.directory / "data"
        gateway.app.stop()
        await until(gateway.app.gateway._ended.is_set, 60)

        assert not any(process.is_running() for process in processes)
        assert not list((directory / "run").iterdir())
        assert not list((directory / "logs").iterdir())


async def test_a_client_that_reads_nothing_does_not_hold_the_shutdown() -> None:
    settings = {
        **LOAD,
        "backends.sim.rate": 40_000,
        "backends.sim.text_bytes": 500,
        "gateway.drain_timeout_s": 0.5,
        "events.queue_events": 1_000_000,
        "events.queue_bytes": 256 * 1024 * 1024,
    }
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, NAMES)
        stream = client.stream(session.session_id)
        await stream.read()
        await until(lambda: gateway.api.sessions()[0].head_sequence > 20_000, 60)
        gateway.app.stop()
        await until(gateway.app.gateway._ended.is_set, 60)

        stream.cancel()


async def test_stop_may_be_called_before_the_start_and_again() -> None:
    async with running_gateway() as gateway:
        gateway.app.stop()
        gateway.app.stop()
        await until(gateway.app.gateway._ended.is_set)
        gateway.app.stop()
