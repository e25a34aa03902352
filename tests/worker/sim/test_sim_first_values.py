"""What a client sees after Advise: resolving, the first value, wrong names.

Source: docs/reference/mxaccess.md#references, #wrong-names, #first-values.
"""

import pytest

pytestmark = pytest.mark.asyncio

CONFIGURATION = 4


async def test_no_event_comes_from_within_advise(start, still) -> None:
    rig = await start(**still)
    item = await rig.added("Tank_001.Level")

    await rig.backend.advise(rig.server, item)

    assert rig.sink.events == []


async def test_waiting_for_initial_data_comes_before_the_first_value(start, still) -> None:
    rig = await start(**still)

    waiting, first = await rig.first_events("Tank_001.Level")

    assert (waiting.quality, waiting.value, waiting.category, waiting.detail) == (32, None, 1, 11)
    assert waiting.success != 0
    assert (first.quality, first.value, first.success, first.category, first.detail) == (192, 55.0, -1, 0, 0)


async def test_the_first_value_takes_the_resolve_delay(start, still) -> None:
    rig = await start(resolve_delay_s=3.0, **still)
    item = await rig.added("Tank_001.Level")
    await rig.backend.advise(rig.server, item)

    rig.clock.advance(2.9)
    early = [event.quality for event in rig.sink.take()]
    rig.clock.advance(0.2)

    assert early == [32]
    assert [event.quality for event in rig.sink.take()] == [192]


async def test_without_a_resolve_delay_nothing_initialises(start, still) -> None:
    rig = await start(resolve_delay_s=0.0, **still)

    assert [event.quality for event in await rig.first_events("Tank_001.Level")] == [192]


async def test_a_second_advise_of_a_resolved_item_needs_no_resolving(start, still) -> None:
    rig = await start(resolve_delay_s=3.0, **still)
    item = await rig.added("Tank_001.Level")
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(4)
    await rig.backend.un_advise(rig.server, item)
    rig.sink.take()

    await rig.backend.advise(rig.server, item)
    rig.clock.advance(0.1)

    assert [event.quality for event in rig.sink.take()] == [192]


@pytest.mark.parametrize(
    ("reference", "detail"),
    [
        ("nonsense", 6),
        ("Tank_001.", 6),
        (".Level", 6),
        ("Tank_001.Level[", 6),
        ("Tank_001.Level[x]", 6),
        ("Nowhere_001.Level", 8),
        ("Tank_001.Nothing", 1001),
        ("Bench_001.Counts", 1003),
        ("Bench_001.Counts[0]", 15),
        ("Bench_001.Counts[-1]", 15),
        ("Bench_001.Counts[11]", 1003),
        ("Tank_001.Level[]", 14),
        ("Tank_001.Level[1]", 14),
    ],
)
async def test_a_wrong_name_is_accepted_and_fails_as_a_data_change(start, still, reference: str, detail: int) -> None:
    rig = await start(**still)

    event = (await rig.first_events(reference))[-1]

    assert (event.success, event.category, event.detail) == (0, CONFIGURATION, detail)
    assert event.value is None
    assert event.quality == 4


async def test_a_wrong_name_is_reported_once(start) -> None:
    rig = await start()
    item = await rig.advised("Tank_001.Nothing")

    rig.clock.advance(30)

    assert [event for event in rig.sink.take() if event.item == item] == []


@pytest.mark.parametrize("reference", ["TANK_001.LEVEL", "tank_001.level", "  Tank_001.Level "])
async def test_names_are_found_whatever_their_case(start, still, reference: str) -> None:
    rig = await start(**still)

    assert await rig.value(reference) == 55.0


async def test_brackets_give_the_whole_array_and_elements_count_from_one(start, still) -> None:
    rig = await start(**still)

    assert await rig.value("Batch_001.Recipe[]") == ["Water", "Sugar", "Aroma"]
    assert await rig.value("Batch_001.Recipe[1]") == "Water"
    assert await rig.value("Batch_001.Recipe[3]") == "Aroma"


async def test_attributes_lists_the_names_of_an_object(start, still) -> None:
    rig = await start(**still)

    names = await rig.value("Tank_001._Attributes")

    assert isinstance(names, list)
    assert {"Level", "Level.InAlarm", "Level.AckMsg", "Volume"} <= set(names)
    assert names == await rig.value("Tank_001._Attributes[]")
    assert await rig.value("Tank_001._Attributes[1]") == names[0]


async def test_every_attribute_has_a_description(start, still) -> None:
    rig = await start(**still)

    assert await rig.value("Tank_001.Level.Description") == "Level, %"


async def test_every_main_data_type_arrives_as_itself(start, still) -> None:
    rig = await start(**still)
    kinds = {}
    for name in ("Flag", "Count", "Amount", "Text", "Moment", "Span", "Choice", "Target", "Flags[]", "Spans[]"):
        value = await rig.value(f"Bench_001.{name}")
        kinds[name] = type(value[0]).__name__ + "s" if isinstance(value, list) else type(value).__name__

    assert kinds == {
        "Flag": "bool",
        "Count": "int",
        "Amount": "float",
        "Text": "str",
        "Moment": "datetime",
        "Span": "timedelta",
        "Choice": "int",
        "Target": "str",
        "Flags[]": "bools",
        "Spans[]": "timedeltas",
    }


async def test_a_relative_definition_starts_from_its_context(start, still) -> None:
    rig = await start(**still)
    items = [
        await rig.backend.add_item2(rig.server, definition, "tank_001")
        for definition in ("Level", "me.Product", "myArea.ShortDesc", "Boiler_001.Mode", "Nothing")
    ]
    for item in items:
        await rig.backend.advise(rig.server, item)
    rig.clock.advance(0.1)
    last = {event.item: event for event in rig.sink.take()}

    assert [last[item].value for item in items] == [55.0, "Water", "Day tanks and transfer", 1, None]
    assert last[items[-1]].detail == 1001


async def test_data_changes_come_only_when_value_or_quality_changes(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.advised("Valve_001.Position")

    rig.clock.advance(20)
    steady = rig.sink.take("data_change")
    setpoint = await rig.advised("Valve_001.PositionSP")
    await rig.write(setpoint, 45.0)
    rig.clock.advance(20)
    moved = [event.value for event in rig.sink.take() if event.item == item]

    assert steady == []
    assert len(moved) == len(set(moved)) >= 1
    assert moved[-1] == 45.0


async def test_source_time_is_when_the_value_changed(start) -> None:
    rig = await start(update_period_s=0.5)
    rig.clock.advance(30)
    item = await rig.added("Tank_001.Capacity")
    before = rig.clock.wall_ns() - 30_000_000_000

    await rig.backend.advise(rig.server, item)
    rig.clock.advance(0.1)

    assert rig.sink.take()[-1].time_ns == before


async def test_un_advise_stops_events_even_those_under_way(start) -> None:
    rig = await start(update_period_s=0.5)
    item = await rig.added("AppEngine_001.ScanCount")
    await rig.backend.advise(rig.server, item)

    await rig.backend.un_advise(rig.server, item)
    rig.clock.advance(5)

    assert rig.sink.events == []
    await rig.backend.advise(rig.server, item)
    rig.clock.advance(0.1)
    rig.sink.take()
    await rig.backend.un_advise(rig.server, item)
    rig.clock.advance(5)
    assert rig.sink.events == []


async def test_two_items_of_one_attribute_each_get_every_change(start) -> None:
    rig = await start(update_period_s=0.5)
    first, second = await rig.advised("AppEngine_001.ScanCount"), await rig.advised("AppEngine_001.ScanCount")

    rig.clock.advance(5)

    values = {first: [], second: []}
    for event in rig.sink.take():
        values[event.item].append(event.value)
    assert values[first] == values[second] == list(range(values[first][0], values[first][0] + 10))


async def test_element_items_change_only_with_their_element(start, still) -> None:
    rig = await start(**still)
    one, two = await rig.advised("Bench_001.Counts[1]"), await rig.advised("Bench_001.Counts[2]")

    await rig.backend.write(rig.server, one, _integer(7), 0)
    rig.clock.advance(0.1)

    assert [(e.item, e.value) for e in rig.sink.take("data_change")] == [(one, 7)]
    assert two


def _integer(value: int):
    from mxgw.convert import to_value

    return to_value(value)
