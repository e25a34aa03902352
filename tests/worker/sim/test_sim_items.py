"""Handles, suspending, buffering.

Source: docs/reference/mxaccess.md#methods, #events, #taking-down, #handles.
"""

import pytest

from mxgw.convert import to_value
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, Backend, Browsable, MxError
from mxgw_worker.backends.sim import SimBackend

pytestmark = pytest.mark.asyncio


def fits(backend: Backend) -> Backend:
    """mypy and this call agree that the simulator is a backend."""
    return backend


async def test_the_simulator_is_a_browsable_backend() -> None:
    backend = SimBackend({})

    assert fits(backend) is backend
    assert isinstance(backend, Browsable)
    assert backend.info().kind == "sim"


async def test_handles_are_small_and_given_out_again(start, still) -> None:
    rig = await start(**still)
    handles = [await rig.added("Tank_001.Level") for _ in range(3)]

    await rig.backend.remove_item(rig.server, handles[1])

    assert handles == [1, 2, 3]
    assert await rig.added("Tank_002.Level") == 2
    assert await rig.added("Tank_002.Level") == 4


async def test_a_reused_handle_hears_nothing_of_its_former_item(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.advised("AppEngine_001.ScanCount")
    await rig.backend.remove_item(rig.server, item)

    assert await rig.added("Tank_001.Product") == item
    rig.clock.advance(5)
    assert rig.sink.take() == []


async def test_unregister_releases_everything(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.advised("AppEngine_001.ScanCount")
    buffered = await rig.advised("AppEngine_001.ScanCount", buffered=True)

    await rig.backend.unregister(rig.server)
    rig.clock.advance(5)

    assert rig.sink.take() == []
    for handle in (item, buffered):
        with pytest.raises(MxError):
            await rig.backend.advise(rig.server, handle)
    assert await rig.backend.register("again") == rig.server


async def test_items_belong_to_their_server(start, still) -> None:
    rig = await start(**still)
    other = await rig.backend.register("other")
    item = await rig.added("Tank_001.Level")

    with pytest.raises(MxError):
        await rig.backend.advise(other, item)


async def test_unknown_handles_are_invalid_arguments(start, still) -> None:
    rig = await start(**still)
    backend, server = rig.backend, rig.server
    value = to_value(1)
    for call in (
        backend.unregister(99),
        backend.add_item(99, "Tank_001.Level"),
        backend.add_item2(99, "Level", "Tank_001"),
        backend.add_buffered_item(99, "Level", ""),
        backend.set_buffered_update_interval(99, 100),
        backend.authenticate_user(99, "u", "p"),
        backend.archestra_user_to_id(99, "0" * 32),
        backend.remove_item(server, 99),
        backend.advise(server, 99),
        backend.advise_supervisory(server, 99),
        backend.un_advise(server, 99),
        backend.write(server, 99, value, 0),
        backend.write2(server, 99, value, None, 0),
        backend.write_secured(server, 99, 0, 0, value),
        backend.write_secured2(server, 99, 0, 0, value, None),
        backend.suspend(server, 99),
        backend.activate(server, 0),
        backend.advise(server, -1),
    ):
        with pytest.raises(MxError) as refused:
            await call
        assert refused.value.hresult == E_INVALIDARG


async def test_an_empty_definition_is_an_invalid_argument(start, still) -> None:
    rig = await start(**still)

    with pytest.raises(MxError) as refused:
        await rig.backend.add_item(rig.server, " ")

    assert refused.value.hresult == E_INVALIDARG


async def test_calls_before_start_and_after_stop_fail(still) -> None:
    backend = SimBackend(still)

    with pytest.raises(MxError) as refused:
        await backend.register("x")

    assert refused.value.hresult == E_FAIL
    await backend.stop()


async def test_no_event_follows_stop(start) -> None:
    rig = await start(update_period_s=0.5)
    await rig.advised("AppEngine_001.ScanCount")

    await rig.backend.stop()
    await rig.backend.stop()
    rig.clock.advance(60)

    assert rig.sink.take() == []
    assert rig.clock.pending() == 0


async def test_suspend_is_pending_then_completes_and_stops_data_changes(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.advised("AppEngine_001.ScanCount")

    status = await rig.backend.suspend(rig.server, item)
    rig.clock.advance(5)

    assert status.success != 0
    assert status.raw_category == 1
    (completion,) = rig.sink.take()
    assert (completion.kind, completion.item, completion.success, completion.category) == (
        "operation_complete",
        item,
        -1,
        0,
    )


async def test_activate_brings_the_present_value_and_further_changes(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.advised("AppEngine_001.ScanCount")
    await rig.backend.suspend(rig.server, item)
    rig.clock.advance(5)
    rig.sink.take()

    status = await rig.backend.activate(rig.server, item)
    rig.clock.advance(1)

    assert status.raw_category == 1
    kinds = [event.kind for event in rig.sink.take()]
    assert kinds[0] == "operation_complete"
    assert kinds[1:] == ["data_change"] * 3


async def test_activate_of_an_unchanged_item_brings_no_value(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Tank_001.Product")
    await rig.backend.suspend(rig.server, item)
    await rig.backend.activate(rig.server, item)

    rig.clock.advance(1)

    assert [event.kind for event in rig.sink.take()] == ["operation_complete"] * 2


async def test_activate_of_an_item_that_is_not_suspended_succeeds_at_once_without_an_event(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Tank_001.Product")

    status = await rig.backend.activate(rig.server, item)
    rig.clock.advance(1)

    assert (status.success, status.raw_category) == (-1, 0)
    assert rig.sink.take() == []


async def test_an_item_suspended_before_its_first_value_gets_it_when_activated(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Tank_001.Product")
    await rig.backend.advise(rig.server, item)
    await rig.backend.suspend(rig.server, item)
    rig.clock.advance(1)
    assert rig.sink.take("data_change") == []

    await rig.backend.activate(rig.server, item)
    rig.clock.advance(1)

    assert [event.value for event in rig.sink.take("data_change")] == ["Water"]


async def test_suspending_twice_succeeds_at_once_without_an_event(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Tank_001.Product")
    await rig.backend.suspend(rig.server, item)
    rig.clock.advance(1)
    rig.sink.take()

    status = await rig.backend.suspend(rig.server, item)
    rig.clock.advance(1)

    assert (status.success, status.raw_category) == (-1, 0)
    assert rig.sink.take() == []


async def test_suspend_needs_an_advised_item(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Tank_001.Product")

    with pytest.raises(MxError) as refused:
        await rig.backend.suspend(rig.server, item)

    assert refused.value.hresult == E_INVALIDARG


async def test_buffered_items_report_arrays_at_the_interval(start) -> None:
    rig = await start(update_period_s=0.5)
    await rig.backend.set_buffered_update_interval(rig.server, 2_000)
    item = await rig.added("AppEngine_001.ScanCount", buffered=True)
    await rig.backend.advise(rig.server, item)

    rig.clock.advance(4.2)

    first, second = rig.sink.take()
    assert first.kind == "buffered_data_change"
    assert (first.data_type, second.value) == (2, [4, 5, 6, 7])
    assert len(first.value) == len(first.qualities) == len(first.times_ns)
    assert set(second.qualities) == {192}
    steps = {later - earlier for earlier, later in zip(second.times_ns, second.times_ns[1:], strict=False)}
    assert steps == {500_000_000}


async def test_a_new_interval_takes_effect_at_once(start) -> None:
    rig = await start(update_period_s=0.5, buffered_interval_ms=60_000)
    await rig.advised("AppEngine_001.ScanCount", buffered=True)

    await rig.backend.set_buffered_update_interval(rig.server, 1_000)
    rig.clock.advance(5.5)

    assert len(rig.sink.take("buffered_data_change")) == 5


async def test_samples_of_an_ended_advise_are_not_reported_by_the_next(start) -> None:
    rig = await start(update_period_s=0.5, buffered_interval_ms=10_000)
    item = await rig.advised("AppEngine_001.ScanCount", buffered=True)
    rig.clock.advance(5)

    await rig.backend.un_advise(rig.server, item)
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(10)

    first = rig.sink.take()[0].value
    assert first == list(range(10, 10 + len(first)))


async def test_nothing_runs_for_buffers_that_nobody_has(start) -> None:
    rig = await start(profile="load", rate=0.0)
    item = await rig.advised("Load.Target", buffered=True)
    other = await rig.advised("Load.Target", buffered=True)

    await rig.backend.un_advise(rig.server, item)
    rig.clock.advance(5)
    assert rig.clock.pending() == 1
    await rig.backend.remove_item(rig.server, other)
    rig.clock.advance(5)

    assert rig.clock.pending() == 0


async def test_a_quiet_buffered_item_reports_nothing(start, still) -> None:
    rig = await start(**still)
    await rig.advised("Tank_001.Product", buffered=True)
    rig.clock.advance(2)
    rig.sink.take()

    rig.clock.advance(30)

    assert rig.sink.take() == []


async def test_a_full_buffer_is_sent_early_and_loses_nothing(start) -> None:
    rig = await start(update_period_s=0.01, buffered_interval_ms=3_600_000)
    await rig.advised("AppEngine_001.ScanCount", buffered=True)

    rig.clock.advance(25)

    values = [value for event in rig.sink.take() for value in event.value]
    assert len(values) == 2_000
    assert values == list(range(values[0], values[0] + 2_000))


async def test_a_buffered_array_is_an_array_of_arrays(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Bench_001.Flags[]", buffered=True)
    await rig.backend.advise(rig.server, item)

    rig.clock.advance(1.5)

    (event,) = rig.sink.take()
    assert event.value == [[False] * 4]


async def test_a_wrong_name_fails_a_buffered_item_too(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Bench_001.Nothing", buffered=True)
    await rig.backend.advise(rig.server, item)

    rig.clock.advance(1.5)

    (event,) = rig.sink.take()
    assert (event.kind, event.success, event.detail, event.value) == ("buffered_data_change", 0, 1001, None)


async def test_a_buffered_interval_must_be_positive(start, still) -> None:
    rig = await start(**still)

    with pytest.raises(MxError) as refused:
        await rig.backend.set_buffered_update_interval(rig.server, 0)

    assert refused.value.hresult == E_INVALIDARG
