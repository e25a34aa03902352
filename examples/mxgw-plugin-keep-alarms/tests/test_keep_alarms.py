"""Tests of the plugin: the policy alone, and the plugin in a gateway with a real worker and real streams."""

import asyncio

import pytest
from mxgw_plugin_keep_alarms import KeepAlarmsPolicy

from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, EVENT_KIND_WRITE_COMPLETE
from mxgw_client import DataChange, Gap, GapReason, Policy, connect, errors
from mxgw_core.api import Conflate, Disconnect, ItemRecord, Lag, QueueLimits, Select
from mxgw_core.testing import running_gateway

LIMITS = QueueLimits(events=10, bytes=0, seconds=0.0)
SETTINGS = {
    "plugins.enabled": ["backpressure", "keep_alarms"],
    "plugins.backpressure.queue_events": 300,
    "backends.sim.profile": "load",
    "backends.sim.items": 20,
    "backends.sim.rate": 5_000,
}


def lag(over_limit_s: float = 0.0) -> Lag:
    return Lag("reader", 11, 0, 0.0, LIMITS, over_limit_s)


def item(handle: int) -> ItemRecord:
    return ItemRecord(handle, 1, handle, f"Load.Item{handle:05d}")


def test_events_of_the_named_items_and_completions_are_kept() -> None:
    action = KeepAlarmsPolicy(frozenset({3}), 60.0).on_overflow(lag())

    assert isinstance(action, Select)
    assert action.keep(item(3), EVENT_KIND_DATA_CHANGE)
    assert action.keep(item(4), EVENT_KIND_WRITE_COMPLETE)
    assert not action.keep(item(4), EVENT_KIND_DATA_CHANGE)


def test_without_items_the_newest_value_of_each_is_kept_until_patience_ends() -> None:
    policy = KeepAlarmsPolicy(frozenset(), 60.0)

    assert policy.on_overflow(lag()) == Conflate()
    assert policy.on_overflow(lag(60.1)) == Disconnect()


@pytest.mark.asyncio
async def test_a_reader_that_stops_for_a_while_gets_every_alarm() -> None:
    async with (
        running_gateway(SETTINGS) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        server = await session.register("test")
        alarm = await session.add_item("Load.Item00007", server_handle=server)
        others = [await session.add_item(f"Load.Item{n:05d}", server_handle=server) for n in range(8, 21)]
        async with session.events(policy=Policy("keep_alarms", {"items": str(alarm.handle)})) as stream:
            for item in [alarm, *others]:
                await session.advise(item)
            await asyncio.sleep(1.0)  # the reader does not read, and its connection buffers little
            lost, values = 0, []
            async for event in stream:
                if isinstance(event, Gap):
                    assert event.reason is GapReason.QUEUE_DROPPED
                    lost += event.count
                elif isinstance(event, DataChange) and event.item_handle == alarm.handle:
                    values.append(event.value)
                if lost and len(values) > 300:
                    break

    assert stream.opened is not None
    assert stream.opened.policy == "keep_alarms"
    # The k-th value of item 7 is 7 * 2**32 + k, so this shows that no value is missing.
    assert values == [float(7 * 2**32 + k) for k in range(len(values))]
    assert lost > 500


@pytest.mark.asyncio
@pytest.mark.parametrize(("default", "policy"), [(True, "keep_alarms"), (False, "disconnect")])
async def test_a_site_may_make_it_the_default_for_everybody(default: bool, policy: str) -> None:
    async with (
        running_gateway({**SETTINGS, "plugins.keep_alarms.default": default}) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
        session.events() as stream,
    ):
        assert stream.opened is not None
        assert stream.opened.policy == policy


@pytest.mark.asyncio
async def test_what_a_reader_says_is_checked() -> None:
    async with (
        running_gateway({**SETTINGS, "plugins.keep_alarms.most_items": 2}) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        for items in ("three", "1;2", "1,2,3"):
            with pytest.raises(errors.InvalidRequest, match="item"):
                await session.events(policy=Policy("keep_alarms", {"items": items})).open()
