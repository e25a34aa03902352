"""Profile `plant`: believable, deterministic, with alarms and a tree to browse."""

import pytest

from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_AREA, BROWSE_NODE_KIND_ATTRIBUTE, BROWSE_NODE_KIND_OBJECT
from mxgw.v1.values_pb2 import (
    MX_DATA_TYPE_DOUBLE,
    MX_SECURITY_CLASSIFICATION_SECURED_WRITE,
    MX_SECURITY_CLASSIFICATION_VIEW_ONLY,
)
from mxgw_worker.backends.base import E_INVALIDARG, MxError

pytestmark = pytest.mark.asyncio


async def history(start, seconds: float, *references: str, **options: object) -> dict[str, list]:
    rig = await start(**options)
    items = {await rig.advised(reference): reference for reference in references}
    rig.clock.advance(seconds)
    values: dict[str, list] = {reference: [] for reference in references}
    for event in rig.sink.take("data_change"):
        if event.quality == 192:
            values[items[event.item]].append(event.value)
    return values


async def test_the_same_seed_gives_the_same_values(start) -> None:
    references = ("Boiler_001.Pressure", "Boiler_001.SteamFlow", "Tank_001.InFlow")

    one = await history(start, 120, *references, seed=7)
    two = await history(start, 120, *references, seed=7)
    other = await history(start, 120, *references, seed=8)

    assert one == two
    assert one != other
    assert all(len(values) > 20 for values in one.values())


async def test_the_plant_stays_within_what_is_possible_and_keeps_moving_for_hours(start) -> None:
    values = await history(
        start,
        2 * 3_600,
        "Tank_001.Level",
        "Tank_002.Level",
        "Boiler_001.Pressure",
        "Boiler_001.Tripped",
        "Tank_002.Overflow",
        "Pump_001.Running",
        "Batch_001.BatchId",
    )

    for tank in ("Tank_001.Level", "Tank_002.Level"):
        assert 0 < min(values[tank]) < max(values[tank]) < 100
    assert 6 < min(values["Boiler_001.Pressure"]) < max(values["Boiler_001.Pressure"]) < 9.5
    assert values["Boiler_001.Tripped"] == []
    assert values["Tank_002.Overflow"] == []
    assert len(values["Pump_001.Running"]) > 20
    assert len(values["Batch_001.BatchId"]) > 100


async def test_a_valve_needs_its_travel_time(start) -> None:
    rig = await start()
    position, setpoint = await rig.advised("Valve_003.Position"), await rig.advised("Valve_003.PositionSP")
    await rig.write(setpoint, 0.0)

    rig.clock.advance(3)
    moving = [event.value for event in rig.sink.take() if event.item == position]
    rig.clock.advance(6)

    assert 20 < moving[-1] < 60
    assert moving == sorted(moving, reverse=True)
    assert rig.sink.take("data_change")[-1].value is not None
    assert await rig.value("Valve_003.IsClosed") is True


async def test_the_boiler_trips_above_its_limit_and_is_reset(start) -> None:
    rig = await start()
    mode, fuel = await rig.advised("Boiler_001.Mode"), await rig.advised("Boiler_001.FuelSP")
    tripped, reset = await rig.advised("Boiler_001.Tripped"), await rig.advised("Boiler_001.Reset")
    await rig.write(mode, "Manual")
    await rig.write(fuel, 100.0)

    rig.clock.advance(60)
    trip = [event.value for event in rig.sink.take() if event.item == tripped]
    rig.clock.advance(5)
    await rig.write(fuel, 0.0)
    await rig.write(reset, True)
    rig.clock.advance(1)

    assert trip == [True]
    assert [event.value for event in rig.sink.take() if event.item == tripped] == [False]


async def test_a_calibrating_analyser_is_uncertain_with_its_last_value(start) -> None:
    rig = await start()
    item = await rig.advised("Boiler_001.Oxygen")

    rig.clock.advance(125)

    events = [event for event in rig.sink.take() if event.item == item]
    (index,) = [n for n, event in enumerate(events) if event.quality == 80]
    assert events[index].value == events[index - 1].value
    assert events[index].success != 0
    assert events[index + 1].quality == 192
    assert events[index + 1].time_ns - events[index].time_ns >= 9_500_000_000


async def test_an_alarm_is_raised_acknowledged_and_cleared(start) -> None:
    rig = await start()
    items = {name: await rig.advised(f"Tank_001.Level{name}") for name in ("", ".InAlarm", ".Acked", ".AckMsg")}
    names = {item: name for name, item in items.items()}
    before = await rig.detail(items[".AckMsg"], "nothing to acknowledge")

    rig.clock.advance(60)
    raised = [(names[e.item], e.value) for e in rig.sink.take() if names.get(e.item) in (".InAlarm", ".Acked")]
    acknowledged = [(names[e.item], e.kind, e.value) for e in await rig.write(items[".AckMsg"], "seen")]
    acked = await rig.value("Tank_001.Level.Acked")
    again = await rig.detail(items[".AckMsg"], "seen again")

    assert before == 1015
    assert raised[:2] == [(".Acked", False), (".InAlarm", True)]
    assert acknowledged[0] == (".AckMsg", "write_complete", None)
    assert acked is True
    assert again == 1015
    rig.clock.advance(120)
    assert await rig.value("Tank_001.Level.InAlarm") in (True, False)


async def test_an_alarm_that_passed_by_itself_still_wants_acknowledging(start) -> None:
    rig = await start()
    level, limit = await rig.advised("Tank_001.Level"), await rig.advised("Tank_001.Level.Limit")
    await rig.write(limit, 10.0)
    raised = await rig.value("Tank_001.Level.InAlarm")

    await rig.write(limit, 99.0)

    assert raised is True
    assert await rig.value("Tank_001.Level.InAlarm") is False
    assert await rig.value("Tank_001.Level.Acked") is False
    assert level


async def test_acknowledging_is_a_privilege_where_security_is_on(start, still) -> None:
    users = {"watcher": {"password": "x", "permissions": ["operate"]}, "boss": "x"}
    rig = await start(security="galaxy", users=users, **still)
    limit = await rig.advised("Tank_001.Level.Limit", supervisory=True)
    await rig.write(limit, 10.0)
    item = await rig.advised("Tank_001.Level.AckMsg")
    watcher = await rig.backend.authenticate_user(rig.server, "watcher", "x")
    boss = await rig.backend.authenticate_user(rig.server, "boss", "x")

    assert await rig.detail(item, "me", user=watcher) == 1014
    assert await rig.detail(item, "me", user=boss) == 0


async def test_the_tree_leads_from_the_root_to_every_attribute(start, still) -> None:
    rig = await start(controls=True, **still)
    references, todo = [], [""]
    while todo:
        for node in await rig.backend.browse(todo.pop()):
            if node.has_children:
                todo.append(node.path)
            if node.reference:
                references.append(node.reference)

    assert len(references) == len(set(references)) > 150
    for reference in references:
        assert (await rig.first_events(reference))[-1].quality == 192, reference


async def test_browse_tells_kind_type_and_rights(start, still) -> None:
    rig = await start(**still)
    (root,) = await rig.backend.browse("")
    areas = {node.name: node for node in await rig.backend.browse("plant")}
    boiler = {node.name: node for node in await rig.backend.browse("Boiler_001")}
    bench = {node.name: node for node in await rig.backend.browse("Bench_001")}

    assert (root.name, root.kind) == ("Plant", BROWSE_NODE_KIND_AREA)
    assert areas["Utilities"].kind == BROWSE_NODE_KIND_AREA
    assert areas["Bench_001"].kind == BROWSE_NODE_KIND_OBJECT
    pressure = boiler["Pressure"]
    assert (pressure.kind, pressure.data_type, pressure.writeable) == (
        BROWSE_NODE_KIND_ATTRIBUTE,
        MX_DATA_TYPE_DOUBLE,
        False,
    )
    assert pressure.security_classification == MX_SECURITY_CLASSIFICATION_VIEW_ONLY
    assert pressure.has_children
    assert boiler["Burner"].security_classification == MX_SECURITY_CLASSIFICATION_SECURED_WRITE
    assert boiler["Burner"].writeable
    assert (bench["Counts"].reference, bench["Counts"].is_array) == ("Bench_001.Counts[]", True)
    assert not bench["ViewOnly"].writeable
    assert {node.name for node in await rig.backend.browse("Boiler_001.Pressure")} == {
        "InAlarm",
        "Acked",
        "AckMsg",
        "Limit",
        "Priority",
    }


@pytest.mark.parametrize("parent", ["Nowhere", "Tank_001.Nothing"])
async def test_browsing_what_does_not_exist_is_an_invalid_argument(start, still, parent: str) -> None:
    rig = await start(**still)

    with pytest.raises(MxError, match="browse") as refused:
        await rig.backend.browse(parent)

    assert refused.value.hresult == E_INVALIDARG
