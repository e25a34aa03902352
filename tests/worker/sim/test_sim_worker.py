"""The simulator in a real worker process, driven over its socket as the gateway does."""

from pathlib import Path

import pytest

from mxgw.convert import from_value, to_value
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, EVENT_KIND_WRITE_COMPLETE
from mxgw_worker.backends.sim.controls import CRASH_EXIT_CODE
from mxgw_worker.backends.sim.profiles.load import expected_value
from mxgw_worker.testing.driver import WorkerDriver, running_worker

pytestmark = pytest.mark.asyncio


async def subscribed(driver: WorkerDriver, *references: str) -> list[int]:
    """Register, subscribe in bulk and return the item handles."""
    reply = await driver.mx(c.MxCommand(register=c.RegisterCommand(client_name="test")))
    items = [c.ItemReference(item_definition=reference) for reference in references]
    command = c.SubscribeBulkCommand(server_handle=reply.server_handle, items=items)
    reply = await driver.mx(c.MxCommand(subscribe_bulk=command))
    return [item.item_handle for item in reply.bulk.items]


async def write(driver: WorkerDriver, item: int, value: object) -> None:
    command = c.WriteCommand(server_handle=1, item_handle=item, value=to_value(value))
    await driver.mx(c.MxCommand(write=command))


async def test_load_values_arrive_without_hole(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", {"profile": "load", "items": 50, "rate": 5_000}) as driver:
        handles = await subscribed(driver, *(f"Load.Item{number:05d}" for number in range(1, 51)))

        events = await driver.until_events(3_000)

    numbers = {handle: number for number, handle in enumerate(handles, 1)}
    counts = dict.fromkeys(handles, 0)
    for sequence, event in enumerate(events, 1):
        assert event.sequence == sequence
        assert event.data_change.value.double == expected_value(numbers[event.item_handle], counts[event.item_handle])
        counts[event.item_handle] += 1
    assert driver.gaps == []


async def test_a_write_to_the_plant_completes_and_changes_the_value(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", {"update_period_s": 60.0}) as driver:
        (item,) = await subscribed(driver, "Bench_001.Amount")
        await driver.until_events(2)
        await write(driver, item, 7)

        events = await driver.until_events(4)

    assert [event.kind for event in events[2:]] == [EVENT_KIND_WRITE_COMPLETE, EVENT_KIND_DATA_CHANGE]
    assert events[2].write_complete.write_id > 0
    assert from_value(events[3].data_change.value) == 7.0


async def test_a_crash_on_request_ends_the_worker_process(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", {"controls": True}) as driver:
        (item,) = await subscribed(driver, "Sim.Crash")
        await driver.until_events(2)

        await write(driver, item, True)

        assert await driver.exit_code() == CRASH_EXIT_CODE


async def test_a_wrong_option_is_the_workers_last_word(tmp_path: Path) -> None:
    async with running_worker(tmp_path, "sim", {"profil": "load"}) as driver:
        assert "did you mean 'profile'?" in driver.ready_detail
