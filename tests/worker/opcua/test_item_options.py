"""Deadband and sampling interval of single items."""

from __future__ import annotations

import pytest
from asyncua import ua
from google.protobuf.duration_pb2 import Duration

from mxgw.convert import is_ok, to_value
from mxgw.v1.commands_pb2 import ItemOptions
from mxgw_worker.backends import Tunable
from mxgw_worker.backends.opcua.item_options import data_change_filter, sampling_interval_ms

from .harness import NS, running_backend


async def values_reported(endpoint: str, options: ItemOptions, writes: list[float]) -> list[object]:
    """Return the values that are reported of the measurement while these are written to it, one after the other."""
    async with running_backend(endpoint) as (backend, sink):
        assert isinstance(backend, Tunable)
        server = await backend.register("deadband")
        item = await backend.add_item(server, f"{NS}Writable.Analog")
        await backend.write(server, item, to_value(0.0), 0)
        await sink.written(item)
        await backend.set_item_options(server, item, options)
        await backend.advise(server, item)
        await sink.first(item)
        for count, value in enumerate(writes, 2):
            await backend.write(server, item, to_value(value), 0)
            assert is_ok((await sink.written(item, count)).statuses)
        await sink.until(lambda: sink.changes(item)[-1].value == writes[-1])
        return [change.value for change in sink.changes(item)]


@pytest.mark.asyncio
async def test_changes_within_an_absolute_deadband_are_not_reported(demo: str) -> None:
    seen = await values_reported(demo, ItemOptions(absolute_deadband=1.0), [0.4, 0.8, 5.0, 5.5, 9.0])

    assert seen == [0.0, 5.0, 9.0]


@pytest.mark.asyncio
async def test_changes_within_a_percent_deadband_are_not_reported(other_server: str) -> None:
    # The range of the measurement is 60 wide: 10 % of it are 6.
    seen = await values_reported(other_server, ItemOptions(percent_deadband=10.0), [4.0, 5.0, 7.0, 12.0, 20.0])

    assert seen == [0.0, 7.0, 20.0]


@pytest.mark.asyncio
async def test_a_deadband_that_the_server_refuses_is_told_as_a_failure_of_the_item(other_server: str) -> None:
    async with running_backend(other_server) as (backend, sink):
        server = await backend.register("refused")
        item = await backend.add_item(server, f"{NS}Writable.String")
        await backend.set_item_options(server, item, ItemOptions(absolute_deadband=1.0))
        await backend.advise(server, item)
        change = await sink.first(item)

        assert change.statuses[0].success == 0
        assert ua.StatusCode(change.statuses[1].raw_detail % 2**32).name in (
            "BadFilterNotAllowed",
            "BadMonitoredItemFilterUnsupported",
        )


def test_options_become_the_filter_and_the_interval_of_the_request() -> None:
    trigger = ua.DataChangeTrigger
    both = ItemOptions(percent_deadband=2.5, sampling_interval=Duration(seconds=2, nanos=500_000_000))

    assert data_change_filter(None, None) is None
    assert data_change_filter(ItemOptions(sampling_interval=Duration()), None) is None
    assert data_change_filter(None, trigger.Status) == ua.DataChangeFilter(trigger.Status)
    assert data_change_filter(both, None) == ua.DataChangeFilter(trigger.StatusValue, ua.DeadbandType.Percent, 2.5)
    assert data_change_filter(ItemOptions(absolute_deadband=0.0), trigger.StatusValueTimestamp) == ua.DataChangeFilter(
        trigger.StatusValueTimestamp, ua.DeadbandType.Absolute, 0.0
    )
    assert sampling_interval_ms(both, 7.0) == 2500.0
    assert sampling_interval_ms(ItemOptions(sampling_interval=Duration()), 7.0) == 0.0
    assert sampling_interval_ms(ItemOptions(absolute_deadband=1.0), 7.0) == 7.0
    assert sampling_interval_ms(None, 7.0) == 7.0
