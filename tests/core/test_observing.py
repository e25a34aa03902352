"""api.Observation on a real gateway: what it tells, and that looking changes nothing."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import psutil
import pytest
from support.clients import client_of
from support.waiting import until

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.api import CloseReason, Observation
from mxgw_core.api.errors import SessionEnded, SessionNotFound
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio

LOAD = {
    "backends.default": "load",
    "backends.load.kind": "sim",
    "backends.load.profile": "load",
    "backends.load.rate": 2000.0,
}


def seen_of(gateway: RunningGateway) -> Observation:
    observation: Observation = gateway.api.observation
    return observation


async def test_sessions_are_told_as_the_contract_tells_them_live_and_ended() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        seen = seen_of(gateway)
        opened = await client.open(name="first", tag="t")
        (listed,) = seen.sessions()
        known = seen.session(opened.session_id)
        await client.close(opened.session_id)
        ended = seen.session(opened.session_id)

        assert listed.session_id == opened.session_id
        assert known is not None
        assert known.state == ss.SESSION_STATE_READY
        assert ended is not None
        assert ended.close_reason == ss.CLOSE_REASON_CLIENT
        assert seen.session("unknown") is None
        assert seen.subscribers(opened.session_id) is None
        assert not seen.commands("unknown")


async def test_a_mirror_gives_every_item_its_newest_value_once_per_interval_and_accounts_for_the_rest() -> None:
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        await client.subscribe(session.session_id, ["Load.Item00001"])
        covered: list[tuple[int, int]] = []
        began = time.monotonic()
        async with seen_of(gateway).watch(session.session_id, 0.2) as frames:
            async for frame in frames:
                covered += [(event.sequence, event.sequence) for event in frame.events.events]
                if frame.HasField("gap"):
                    covered.append((frame.gap.first_lost, frame.gap.last_lost))
                if time.monotonic() - began > 1:
                    break
        took_s = time.monotonic() - began
        events = sum(first == last for first, last in covered)

    assert events <= took_s / 0.2 + 2  # of about 2000 a second
    assert all(before[1] + 1 == after[0] for before, after in pairwise(covered))


async def test_a_mirror_takes_no_subscribers_place_and_goes_when_it_is_left() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        distributor = gateway.app.gateway._registry.find(session.session_id).distributor
        async with seen_of(gateway).watch(session.session_id, 0.1):
            stream = client.stream(session.session_id)  # single-subscriber mode, and still there is room
            await stream.read()
            listed = seen_of(gateway).subscribers(session.session_id)

            assert listed is not None
            assert len(listed.subscribers) == 1
            assert len(distributor._internal) == 1

        assert not distributor._internal

        stream.cancel()


async def test_a_mirror_ends_with_its_session_and_one_of_no_session_never_begins() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open()
        async with seen_of(gateway).watch(session.session_id, 0.1) as frames:
            gateway.api.close_session(session.session_id, CloseReason.KILLED_BY_OPERATOR)
            with pytest.raises(SessionEnded):
                await anext(frames)
        nowhere = seen_of(gateway).watch("unknown", 0.1)
        with pytest.raises(SessionNotFound):
            await nowhere.__aenter__()


async def test_looking_at_a_sessions_items_does_not_extend_its_lease() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session = await client.open(lease_s=60)
        await client.subscribe(session.session_id, ["Tank_001.Level"])
        held = gateway.app.gateway._registry.find(session.session_id)
        assert held is not None
        leased_until = held._leased_until
        state = await seen_of(gateway).session_state(session.session_id, include_values=True, page_size=10)

        assert [item.item_definition for item in state.items] == ["Tank_001.Level"]
        assert held._leased_until == leased_until


async def test_commands_that_wait_are_named_with_their_age() -> None:
    settings = {"workers.heartbeat_interval_s": 60.0}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        handle = await client.register(session.session_id)
        psutil.Process(session.worker_pid).suspend()
        async with asyncio.TaskGroup() as tasks:
            add = c.AddItemCommand(server_handle=handle, item_definition="Tank_001.Level")
            tasks.create_task(client.invoke(session.session_id, add_item=add))
            await until(lambda: seen_of(gateway).commands(session.session_id))
            (waiting,) = seen_of(gateway).commands(session.session_id)
            psutil.Process(session.worker_pid).resume()

        assert waiting.name == "add_item"
        assert 0 <= waiting.age_s < 60
        assert not seen_of(gateway).commands(session.session_id)


async def test_settings_have_their_origin_and_plugins_their_state() -> None:
    async with running_gateway({"limits.sessions": 7, "plugins.enabled": ["backpressure"]}) as gateway:
        settings = {setting.key: setting for setting in seen_of(gateway).settings()}
        plugins = {plugin.name: plugin.state for plugin in seen_of(gateway).plugins()}

        assert settings["limits.sessions"].value == 7
        assert settings["limits.sessions"].origin != "default"
        assert settings["limits.lease_s"].origin == "default"
        assert plugins["backpressure"] == "loaded"
        assert plugins["replay"] == "available"
        assert seen_of(gateway).session_limit == 7


async def test_killing_a_worker_ends_its_session_although_the_worker_does_not_listen() -> None:
    settings = {"workers.stop_grace_s": 30.0, "workers.heartbeat_interval_s": 60.0}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        worker = psutil.Process(session.worker_pid)
        worker.suspend()

        assert gateway.api.kill_worker(session.session_id, "enough")

        await until(lambda: gateway.api.session(session.session_id) is None)
        ended = seen_of(gateway).session(session.session_id)

        assert not worker.is_running()
        assert ended is not None
        assert ended.close_reason == ss.CLOSE_REASON_KILLED_BY_OPERATOR
        assert not gateway.api.kill_worker(session.session_id)
