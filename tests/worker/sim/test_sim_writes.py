"""Writes and their completions.

Source: docs/reference/mxaccess.md#statuses, #references, #early-writes, #writes-need-an-advised-item,
#write-outcomes, #times.
"""

from datetime import UTC, datetime, timedelta

import pytest

from mxgw.convert import to_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio


async def test_a_write_returns_at_once_and_is_completed_later(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")

    await rig.backend.write(rig.server, item, to_value(5), 0)
    at_once = rig.sink.take()
    rig.clock.advance(0.1)

    assert at_once == []
    completion, change = rig.sink.take()
    assert (completion.kind, completion.success, completion.category, completion.detail) == ("write_complete", -1, 0, 0)
    assert (change.kind, change.value, change.quality) == ("data_change", 5, 192)


async def test_completion_takes_the_completion_delay(start, still) -> None:
    rig = await start(completion_delay_s=2.0, **still)
    item = await rig.advised("Bench_001.Count")
    await rig.backend.write(rig.server, item, to_value(5), 0)

    rig.clock.advance(1.9)

    assert rig.sink.take() == []
    rig.clock.advance(0.2)
    assert [event.kind for event in rig.sink.take()] == ["write_complete", "data_change"]


async def test_a_write_before_the_type_is_resolved_is_refused(start, still) -> None:
    rig = await start(resolve_delay_s=3.0, **still)
    item = await rig.added("Bench_001.Count")
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(1)

    with pytest.raises(MxError) as refused:
        await rig.backend.write(rig.server, item, to_value(5), 0)

    assert refused.value.hresult == E_INVALIDARG
    rig.clock.advance(3)
    await rig.backend.write(rig.server, item, to_value(5), 0)


async def test_a_write_without_advise_is_refused(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Bench_001.Count")

    with pytest.raises(MxError, match="Advise") as refused:
        await rig.backend.write(rig.server, item, to_value(5), 0)

    assert refused.value.hresult == E_INVALIDARG


async def test_a_write_after_un_advise_is_refused(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")
    await rig.backend.un_advise(rig.server, item)

    with pytest.raises(MxError, match="Advise"):
        await rig.backend.write(rig.server, item, to_value(5), 0)


async def test_a_write_to_a_wrong_name_is_refused(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Nothing")

    with pytest.raises(MxError) as refused:
        await rig.backend.write(rig.server, item, to_value(5), 0)

    assert refused.value.hresult == E_INVALIDARG


@pytest.mark.parametrize("release", ["un_advise", "remove_item"])
async def test_a_completion_is_lost_when_the_item_goes_first_but_the_write_happens(start, still, release: str) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")
    await rig.backend.write(rig.server, item, to_value(5), 0)

    await getattr(rig.backend, release)(rig.server, item)
    rig.clock.advance(1)

    assert rig.sink.take() == []
    assert await rig.value("Bench_001.Count") == 5


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("Amount", 3, 3.0),
        ("Amount", "2.5", 2.5),
        ("Amount", True, -1.0),
        ("Ratio", 0.1, 0.10000000149011612),
        ("Count", 2.5, 2),
        ("Count", 3.5, 4),
        ("Count", " 12 ", 12),
        ("Count", True, -1),
        ("Flag", 7, True),
        ("Flag", "TRUE", True),
        ("Text", 12, "12"),
        ("Text", True, "True"),
        ("Choice", "green", 1),
        ("Choice", 2, 2),
        ("Moment", "2024-05-06T07:08:09+00:00", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("Span", 90, timedelta(seconds=90)),
        ("Span", "1 02:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("Title", "Größe", "Größe"),
    ],
)
async def test_values_are_converted_as_com_would(start, still, name: str, written: object, read: object) -> None:
    rig = await start(**still)
    item = await rig.advised(f"Bench_001.{name}")

    completion, change = await rig.write(item, written)

    assert completion.detail == 0
    assert change.value == read
    assert type(change.value) is type(read)


@pytest.mark.parametrize(
    ("name", "written", "detail"),
    [
        ("Count", "twelve", 19),
        ("Count", "1_000", 19),
        ("Count", 2**31, 20),
        ("Count", 2**40, 20),
        ("Count", float("nan"), 20),
        ("Count", "9" * 500, 20),
        ("Count", datetime(2024, 1, 1, tzinfo=UTC), 13),
        ("Count", b"bytes", 13),
        ("Count", None, 13),
        ("Count", [1, 2], 14),
        ("Counts[]", 1, 14),
        ("Counts[]", ["x"], 19),
        ("Counts[1]", [1], 14),
        ("Ratio", 1e300, 20),
        ("Moment", 5, 13),
        ("Moment", "yesterday", 19),
        ("Span", "soon", 19),
        ("Span", True, 13),
        ("Span", 1e300, 20),
        ("Span", 1e12, 20),
        ("Choice", "Purple", 19),
        ("Choice", 3, 1004),
        ("Choice", True, 1005),
        ("Percent", 100.5, 1004),
        ("Percent", -1, 1004),
        ("Percent", float("nan"), 1004),
        ("Constant", 1, 1007),
        ("ViewOnly", 1, 1008),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_in_the_completion(
    start, still, name: str, written: object, detail: int
) -> None:
    rig = await start(**still)
    item = await rig.advised(f"Bench_001.{name}")

    (completion,) = await rig.write(item, written)

    assert (completion.kind, completion.success, completion.detail) == ("write_complete", 0, detail)


async def test_a_time_beyond_any_calendar_is_refused_at_once(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Moment")
    value = MxValue()
    value.time.seconds = 2**60

    with pytest.raises(MxError) as refused:
        await rig.backend.write(rig.server, item, value, 0)

    assert refused.value.hresult == E_INVALIDARG


async def test_writing_a_whole_array_resizes_it(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Texts[]")

    _, change = await rig.write(item, [f"t{n}" for n in range(25)])

    assert len(change.value) == 25
    assert (await rig.first_events("Bench_001.Texts[26]"))[-1].detail == 1003


async def test_an_element_fails_when_its_array_shrinks_and_returns_when_it_grows(start, still) -> None:
    rig = await start(**still)
    element, whole = await rig.advised("Bench_001.Counts[5]"), await rig.advised("Bench_001.Counts[]")

    await rig.backend.write(rig.server, whole, to_value([1, 2]), 0)
    rig.clock.advance(0.1)
    gone = [event for event in rig.sink.take("data_change") if event.item == element]
    refused = await rig.detail(element, 9)
    await rig.backend.write(rig.server, whole, to_value([1, 2, 3, 4, 5]), 0)
    rig.clock.advance(0.1)
    back = [event for event in rig.sink.take("data_change") if event.item == element]

    assert [(event.success, event.detail, event.quality) for event in gone] == [(0, 1003, 4)]
    assert refused == 1003
    assert [(event.value, event.quality) for event in back] == [(5, 192)]


async def test_an_element_that_stays_beyond_the_end_fails_once(start, still) -> None:
    rig = await start(**still)
    element, whole = await rig.advised("Bench_001.Counts[5]"), await rig.advised("Bench_001.Counts[]")

    failures = []
    for length in (1, 2, 3):
        await rig.backend.write(rig.server, whole, to_value([1] * length), 0)
        rig.clock.advance(0.1)
        failures += [event for event in rig.sink.take("data_change") if event.item == element]

    assert [event.detail for event in failures] == [1003]


async def test_writing_the_same_value_again_changes_nothing(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")
    await rig.write(item, 5, time_ns=1_000)

    again = await rig.write(item, 5, time_ns=2_000)

    assert [event.kind for event in again] == ["write_complete"]
    assert (await rig.first_events("Bench_001.Count"))[-1].time_ns == 1_000


async def test_an_array_may_be_emptied(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Flags[]")

    _, change = await rig.write(item, [])

    assert change.value == []


async def test_write2_sets_the_source_time(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")

    _, change = await rig.write(item, 5, time_ns=1_600_000_000_123_456_789)

    assert change.time_ns == 1_600_000_000_123_456_789


async def test_write_without_a_time_uses_the_present(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Count")

    await rig.backend.write(rig.server, item, to_value(5), 0)
    rig.clock.advance(0.01)
    _, change = rig.sink.take()

    assert change.time_ns == rig.clock.wall_ns()


async def test_an_accepted_write_may_still_be_pending(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Batch_001.Download")

    completion = (await rig.write(item, True))[0]

    assert completion.success != 0
    assert completion.category == 1


async def test_completions_of_one_item_keep_the_order_of_its_writes(start, still) -> None:
    rig = await start(**still)
    item = await rig.advised("Bench_001.Percent")
    for value in (1.0, 200.0, 2.0, 300.0):
        await rig.backend.write(rig.server, item, to_value(value), 0)

    rig.clock.advance(0.1)

    assert [event.detail for event in rig.sink.take("write_complete")] == [0, 1004, 0, 1004]


async def test_writing_a_setpoint_moves_the_plant(start) -> None:
    rig = await start()
    setpoint, level = await rig.advised("Valve_001.PositionSP"), await rig.advised("Tank_001.Level")
    pump = await rig.advised("Pump_001.Mode")
    await rig.write(pump, "Manual")

    await rig.write(setpoint, 0.0)
    rig.clock.advance(20)
    rig.sink.take()
    rig.clock.advance(60)
    closed = [event for event in rig.sink.take() if event.item == level]
    await rig.write(setpoint, 100.0)
    rig.clock.advance(20)
    filling = [event.value for event in rig.sink.take() if event.item == level]

    assert closed == []
    assert filling == sorted(filling)
    assert filling[-1] > filling[0] + 5
