"""Profile `load`: exact counts, computable values, bounded bursts."""

import asyncio
import time

import pytest

from mxgw.convert import to_value
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.profiles.load import expected_text, expected_value
from mxgw_worker.backends.sim.testing import Recorded, RecordingSink

pytestmark = pytest.mark.asyncio


async def loaded(start, items: int, **options: object):
    rig = await start(profile="load", items=items, **options)
    for number in range(1, items + 1):
        assert await rig.added(f"Load.Item{number:05d}") == number
        await rig.backend.advise(rig.server, number)
    return rig


def check(events: list[Recorded], items: int) -> None:
    """Every item's values are value 0, 1, 2, … without hole or double."""
    counts = [0] * (items + 1)
    for event in events:
        assert event.value == expected_value(event.item, counts[event.item])
        assert (event.quality, event.success, event.category, event.detail) == (192, -1, 0, 0)
        counts[event.item] += 1


async def test_each_item_has_exactly_one_first_value_in_the_order_of_advise(start) -> None:
    rig = await loaded(start, 3_000, rate=0.0)
    assert rig.sink.events == []

    rig.clock.advance(60)

    events = rig.sink.take()
    assert [event.item for event in events] == list(range(1, 3_001))
    check(events, 3_000)


@pytest.mark.parametrize("rate", [0.5, 7.0, 1_000.0, 33_333.0])
async def test_the_rate_is_kept_and_values_have_no_holes(start, rate: float) -> None:
    rig = await loaded(start, 10, rate=rate)
    rig.clock.advance(1)

    rig.clock.advance(4)

    events = rig.sink.take()
    assert abs(len(events) - (10 + rate * 5)) <= max(2, rate * 0.005)
    check(events, 10)
    per_item = [sum(1 for event in events if event.item == item) for item in range(1, 11)]
    assert max(per_item) - min(per_item) <= 1


async def test_items_beyond_the_number_do_not_exist(start) -> None:
    rig = await start(profile="load", items=10, rate=0.0)

    for name in ("Item00011", "Item00000", "Item000001", "Item1", "Item"):
        assert (await rig.first_events(f"Load.{name}"))[-1].detail == 1001
    assert (await rig.first_events("load.item00010"))[-1].value == expected_value(10, 0)


async def test_a_stall_is_made_up_for_in_bounded_bursts(start) -> None:
    rig = await loaded(start, 10, rate=10_000.0)
    rig.clock.advance(1)
    rig.sink.take()

    rig.clock.stall(2.0)
    bursts = []
    for _ in range(12):
        rig.clock.turn()
        bursts.append(len(rig.sink.take()))

    assert max(bursts) <= 2_000
    assert abs(sum(bursts) - 20_000) < 100
    assert bursts[-1] == 0


async def test_a_very_long_stall_is_not_made_up_for_in_full(start, caplog: pytest.LogCaptureFixture) -> None:
    rig = await loaded(start, 10, rate=1_000.0)
    rig.clock.advance(1)
    events = rig.sink.take()

    rig.clock.stall(3_600.0)
    for _ in range(20):
        rig.clock.turn()
    events += rig.sink.take()

    assert len(events) < 7_000
    assert "behind" in caplog.text
    check(events, 10)


async def test_unthrottled_bursts_leave_the_loop_its_turns(start) -> None:
    rig = await loaded(start, 100, burst="max")
    rig.clock.turn()  # Resolves the items.
    rig.clock.turn()  # Sends first values.
    rig.clock.stall(0.01)
    sizes = []
    for _ in range(5):
        rig.clock.turn()
        sizes.append(len(rig.sink.events))

    assert sizes == [2_100, 4_100, 6_100, 8_100, 10_100]
    check(rig.sink.take(), 100)


async def test_unthrottled_bursts_never_hold_a_real_loop_for_long() -> None:
    class Counting(RecordingSink):
        count = 0

        def data_change(self, *_args: object, **_kwargs: object) -> None:
            Counting.count += 1
            until = time.thread_time() + 0.00002  # An encoder that takes its time.
            while time.thread_time() < until:
                pass

    backend = SimBackend({"profile": "load", "items": 100, "burst": "max"})
    await backend.start(Counting())
    server = await backend.register("x")
    for number in range(1, 101):
        await backend.advise(server, await backend.add_item(server, f"Load.Item{number:05d}"))
    held = []
    while Counting.count <= 10_000:
        sent, before = Counting.count, time.thread_time()
        await asyncio.sleep(0)
        if Counting.count > sent:
            held.append(time.thread_time() - before)
    await backend.stop()
    held.sort()

    # A burst is meant to hold the loop for 5 ms, in processor time: what others take from it does not count.
    assert held[len(held) // 2] < 0.1


async def test_suspended_and_released_items_send_nothing_and_the_others_go_on(start) -> None:
    rig = await loaded(start, 4, rate=1_000.0)
    rig.clock.advance(1)
    await rig.backend.suspend(rig.server, 1)
    await rig.backend.un_advise(rig.server, 2)
    await rig.backend.remove_item(rig.server, 3)
    check([event for event in rig.sink.take() if event.kind == "data_change"], 4)

    rig.clock.advance(1)

    events = rig.sink.take("data_change")
    assert {event.item for event in events} == {4}
    assert 990 <= len(events) <= 1_010


async def test_an_activated_item_goes_on_counting_and_an_advised_one_starts_anew(start) -> None:
    rig = await loaded(start, 2, rate=100.0)
    rig.clock.advance(1)
    seen = [event for event in rig.sink.take() if event.item == 1]
    await rig.backend.suspend(rig.server, 1)
    await rig.backend.un_advise(rig.server, 2)
    rig.clock.advance(1)
    await rig.backend.activate(rig.server, 1)
    await rig.backend.advise(rig.server, 2)
    rig.sink.take()

    rig.clock.advance(1)

    events = rig.sink.take("data_change")
    assert next(e for e in events if e.item == 1).value == expected_value(1, len(seen))
    assert next(e for e in events if e.item == 2).value == expected_value(2, 0)


async def test_an_item_advised_anew_at_once_is_sent_once_per_round(start) -> None:
    rig = await loaded(start, 2, rate=100.0)
    rig.clock.advance(1)
    for _ in range(3):
        await rig.backend.un_advise(rig.server, 1)
        await rig.backend.advise(rig.server, 1)
    rig.sink.take()

    rig.clock.advance(1)

    events = rig.sink.take()
    ones = [event.value for event in events if event.item == 1]
    assert ones == [expected_value(1, count) for count in range(len(ones))]
    assert abs(len(ones) - len(events) / 2) <= 1


async def test_an_item_released_before_its_first_value_gets_none(start) -> None:
    rig = await loaded(start, 2, rate=100.0)
    rig.clock.turn()  # Both are resolved, and their first values are due.

    await rig.backend.un_advise(rig.server, 1)
    rig.clock.advance(1)

    assert {event.item for event in rig.sink.take()} == {2}


async def test_text_values_have_their_size(start) -> None:
    rig = await start(profile="load", items=3, rate=10.0, text_bytes=64)
    item = await rig.added("Load.Item00002")
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(1)

    values = [event.value for event in rig.sink.take()]

    assert values == [expected_text(2, count, 64) for count in range(len(values))]
    assert len(values) > 5
    assert {len(value) for value in values} == {64}


async def test_buffered_load_items_report_every_value(start) -> None:
    rig = await start(profile="load", items=3, rate=1_000.0, buffered_interval_ms=100)
    item = await rig.added("Load.Item00003", buffered=True)
    await rig.backend.advise(rig.server, item)

    rig.clock.advance(2)

    values = [value for event in rig.sink.take("buffered_data_change") for value in event.value]
    assert values == [expected_value(3, count) for count in range(len(values))]
    assert len(values) > 1_800


async def test_an_outage_pauses_the_load_and_recovery_goes_on_without_a_hole(start) -> None:
    rig = await start(profile="load", items=3, rate=100.0, controls=True, recovery_delay_s=0.0)
    for number in (1, 2):
        await rig.backend.advise(rig.server, await rig.added(f"Load.Item{number:05d}"))
    switch = await rig.added("Sim.PlatformDown")
    await rig.backend.advise(rig.server, switch)
    rig.clock.advance(1)
    await rig.backend.write(rig.server, switch, to_value(True), 0)
    rig.clock.advance(0.1)
    before = rig.sink.take("data_change")
    third = await rig.added("Load.Item00003")
    await rig.backend.advise(rig.server, third)
    rig.clock.advance(10)
    during = [event for event in rig.sink.take("data_change") if event.item != third]
    await rig.backend.write(rig.server, switch, to_value(False), 0)
    rig.clock.advance(1)
    after = rig.sink.take("data_change")

    assert during == []
    good = [event for event in after if event.quality == 192]
    check([event for event in before + good if event.quality == 192 and event.item in (1, 2)], 2)
    assert len(good) > 80
    shares = [sum(1 for event in good if event.item == item) for item in (1, 2, third)]
    assert max(shares) - min(shares) <= 2


async def test_a_known_item_advised_during_an_outage_starts_when_it_is_over(start) -> None:
    rig = await start(profile="load", items=1, rate=0.0, controls=True, recovery_delay_s=0.0)
    item, switch = await rig.advised("Load.Item00001"), await rig.advised("Sim.PlatformDown")
    await rig.backend.un_advise(rig.server, item)
    await rig.write(switch, True)

    await rig.backend.advise(rig.server, item)
    rig.clock.advance(1)
    during = rig.sink.take()
    await rig.backend.write(rig.server, switch, to_value(False), 0)
    rig.clock.advance(1)

    assert [(event.item, event.detail) for event in during] == [(item, 2)]
    after = [event for event in rig.sink.take("data_change") if event.item == item]
    assert [(event.quality, event.value) for event in after] == [(32, None), (192, expected_value(1, 0))]


async def test_load_items_are_not_written_but_target_is(start) -> None:
    rig = await start(profile="load", items=3, rate=0.0)

    assert await rig.detail(await rig.advised("Load.Item00001"), 1.0) == 1007
    assert await rig.detail(await rig.advised("Load.Target"), 1.0) == 0


async def test_browse_lists_the_items(start) -> None:
    rig = await start(profile="load", items=25, rate=0.0)

    references = [node.reference for node in await rig.backend.browse("Load")]

    assert references[-25:] == [f"Load.Item{number:05d}" for number in range(1, 26)]
