"""A whole worker around a scripted backend, connected to its gateway by a real socket."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW, SOURCE_HEALTH_LOST
from mxgw.worker.v1.worker_pb2 import CommandRequest, GetInfo, Ping, Stop, WorkerEnvelope
from mxgw_worker.backends.base import EventSink
from mxgw_worker.testing import ScriptedBackend, WorkerDriver, WorkerGone
from mxgw_worker.worker import ExitCode

pytestmark = pytest.mark.asyncio


async def until_gone(driver: WorkerDriver) -> None:
    with suppress(WorkerGone):
        while True:
            await driver.receive()


async def test_events_of_one_turn_of_the_loop_share_a_block_and_nobody_waits_for_more(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, _):
        for _ in range(3):
            backend.emit(1, 1, 1.0)
        await driver.until_events(3)
        blocks = driver.blocks
        backend.emit(1, 1, 2.0)
        await driver.until_events(4)

        assert (blocks, driver.blocks) == (1, 2)


async def test_a_gateway_that_does_not_read_costs_the_oldest_events_and_is_told_which(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend, outbox_events=1000) as (driver, _):
        emitted = 30_000
        for number in range(emitted):
            backend.emit(1, 1, float(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        while not driver.events or driver.events[-1].sequence < emitted:
            await driver.receive()
        sequences = [event.sequence for event in driver.events]
        (gap,) = (envelope.gap for envelope in driver.gaps)
        info = (await driver.ask(CommandRequest(get_info=GetInfo()))).info

        assert sequences == [*range(1, gap.first_lost), *range(gap.last_lost + 1, emitted + 1)]
        assert gap.count == info.events_lost == gap.last_lost - gap.first_lost + 1
        assert driver.blocks < len(sequences) / 50


async def test_pings_are_answered_while_a_backend_call_hangs_and_while_it_starts(attached) -> None:
    backend = ScriptedBackend()
    backend.holds["start"] = asyncio.Event()
    async with attached(backend, is_ready=False) as (driver, _):
        driver.send(WorkerEnvelope(ping=Ping(token=1)))
        assert (await driver.receive()).pong.token == 1
        early = await driver.ask(CommandRequest(get_info=GetInfo()))
        assert early.failure.reason == "WORKER_NOT_READY"
        backend.holds["start"].set()
        await driver.ready()
        backend.holds["register"] = asyncio.Event()
        driver.request(CommandRequest(mx=c.MxCommand(register={"client_name": "x"})))
        driver.send(WorkerEnvelope(ping=Ping(token=2)))

        assert (await driver.receive()).pong.token == 2


class EagerBackend(ScriptedBackend):
    """Has an event before it is ready."""

    async def start(self, sink: EventSink) -> None:
        sink.source_gap(GAP_REASON_SOURCE_OVERFLOW, "early")
        self.reached["eager"].set()
        await super().start(sink)


async def test_events_of_a_starting_backend_wait_for_ready(attached) -> None:
    backend = EagerBackend()
    backend.holds["start"] = asyncio.Event()
    async with attached(backend, is_ready=False) as (driver, _):
        await backend.reached["eager"].wait()
        driver.send(WorkerEnvelope(ping=Ping(token=1)))
        kinds = [(await driver.receive()).WhichOneof("body")]
        backend.holds["start"].set()
        kinds += [(await driver.receive()).WhichOneof("body") for _ in range(2)]

        assert kinds == ["pong", "ready", "gap"]


async def test_events_before_an_answer_arrive_before_it(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, _):
        server = (await driver.mx(c.MxCommand(register={"client_name": "x"}))).server_handle
        item = (await driver.mx(c.MxCommand(add_item={"server_handle": server, "item_definition": "A"}))).item_handle
        await driver.mx(c.MxCommand(suspend={"server_handle": server, "item_handle": item}))

        assert [event.WhichOneof("body") for event in driver.events] == ["operation_complete"]


async def test_the_health_of_the_source_comes_with_every_pong(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, _):
        backend.sink.source_health(SOURCE_HEALTH_LOST, "unplugged")
        driver.send(WorkerEnvelope(ping=Ping(token=1)))
        pong = (await driver.receive()).pong

        assert (pong.source_health, pong.source_detail) == (SOURCE_HEALTH_LOST, "unplugged")


async def test_a_failed_backend_ends_the_worker_with_its_last_events(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, running):
        backend.emit(1, 1, 1.0)
        backend.sink.failed("the thread died")
        await until_gone(driver)

        assert await running == ExitCode.BACKEND_FAILED
        assert driver.goodbye == "BACKEND_FAILED"
        assert len(driver.events) == 1
        assert backend.is_stopped


async def test_a_stop_ends_commands_stops_the_backend_and_sends_what_is_left(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, running):
        server = (await driver.mx(c.MxCommand(register={"client_name": "x"}))).server_handle
        driver.request(
            CommandRequest(mx=c.MxCommand(read_bulk={"server_handle": server, "items": [{"item_definition": "A"}]}))
        )
        await backend.reached["advise"].wait()
        backend.emit(1, 9, 1.0)
        driver.send(WorkerEnvelope(stop=Stop(grace_ms=2000)))
        await until_gone(driver)

        assert await running == ExitCode.STOPPED
        assert driver.goodbye == "STOPPED"
        assert len(driver.events) == 1
        assert [call[0] for call in backend.calls[-3:]] == ["un_advise", "remove_item", "stop"]


async def test_a_backend_that_does_not_stop_is_left_after_the_grace(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend) as (driver, running):
        backend.holds["stop"] = asyncio.Event()
        driver.send(WorkerEnvelope(stop=Stop(grace_ms=50)))
        await until_gone(driver)

        assert await running == ExitCode.STOPPED
        assert driver.goodbye == "STOPPED"
        assert not backend.is_stopped


async def test_a_backend_that_raises_when_it_starts_or_stops_is_survived(attached) -> None:
    backend = ScriptedBackend()
    backend.failures["start"].append(RuntimeError("inner detail"))
    backend.failures["stop"].append(RuntimeError("again"))
    async with attached(backend, is_ready=False) as (driver, running):
        error = await driver.ready()

        assert "correlation" in error
        assert "inner detail" not in error
        assert await running == ExitCode.BACKEND_UNAVAILABLE


async def test_a_backend_that_refuses_to_start_says_why(attached) -> None:
    async with attached(ScriptedBackend({"refuse": "the source is locked"}), is_ready=False) as (driver, running):
        assert await driver.ready() == "the source is locked"
        assert await running == ExitCode.BACKEND_UNAVAILABLE


async def test_answers_for_a_lost_connection_do_not_reach_the_next_one(attached) -> None:
    backend = ScriptedBackend()
    async with attached(backend, orphan_lifetime_ms=10_000) as (driver, _):
        backend.holds["register"] = asyncio.Event()
        driver.request(CommandRequest(mx=c.MxCommand(register={"client_name": "x"}), timeout_ms=60_000))
        await backend.reached["register"].wait()
        await driver.disconnect()
        await driver.accept()
        await driver.shake_hands()
        await driver.ready()
        backend.holds["register"].set()
        reply = await driver.ask(CommandRequest(get_info=GetInfo()))
        await driver.mx(c.MxCommand(register={"client_name": "y"}))

        assert reply.info.backend == "scripted 1"
        assert list(backend.registrations.values()) == ["x", "y"]
        assert driver.replies_nobody_asked_for == []
