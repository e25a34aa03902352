"""Profile `recording`: times that run forward, types, pace, and what is shipped."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.profiles.recording import STEEL_WEEK, attribute_name
from mxgw_worker.backends.sim.recordings import read_recording
from mxgw_worker.backends.sim.status import DataType
from mxgw_worker.backends.sim.testing import RecordingSink

QUARTER = timedelta(minutes=15)


def written(path: Path, *rows: str) -> Path:
    file = path / "recording.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def test_the_shipped_week_runs_forward_in_quarters_of_an_hour() -> None:
    week = read_recording(STEEL_WEEK)

    assert len(week.times) == 7 * 96
    assert week.times[0] == datetime(2018, 1, 15, 0, 15, tzinfo=UTC)
    assert all(later - earlier == QUARTER for earlier, later in zip(week.times, week.times[1:], strict=False))
    assert week.times[-1] == datetime(2018, 1, 22, tzinfo=UTC)


def test_the_shipped_file_is_the_original_and_names_its_authors() -> None:
    raw = STEEL_WEEK.read_text(encoding="utf-8").splitlines()
    notice = (STEEL_WEEK.parent / "README.md").read_text(encoding="utf-8")

    assert raw[96].startswith("15/01/2018 00:00,")
    assert "CC BY 4.0" in notice
    assert "Sathishkumar V E, Changsun Shin, Yongyun Cho" in notice


def test_a_midnight_row_belongs_to_the_day_that_begins(tmp_path: Path) -> None:
    file = written(
        tmp_path, "date,x", "15/01/2018 23:30,1", "15/01/2018 23:45,2", "15/01/2018 00:00,3", "16/01/2018 00:15,4"
    )

    times = read_recording(file).times

    assert [str(time)[:16] for time in times] == [
        "2018-01-15 23:30",
        "2018-01-15 23:45",
        "2018-01-16 00:00",
        "2018-01-16 00:15",
    ]


def test_midnight_that_is_right_stays(tmp_path: Path) -> None:
    file = written(tmp_path, "date,x", "2018-01-15 23:45,1", "2018-01-16 00:00,2", "2018-01-16 00:15,3")

    assert read_recording(file).times[1] == datetime(2018, 1, 16, tzinfo=UTC)


def test_day_and_month_that_changed_places_are_put_right(tmp_path: Path) -> None:
    rows = ("2018-01-01 23:45:00,1", "2018-01-01 00:00:00,2", "2018-02-01 00:15:00,3", "2018-02-01 00:30:00,4")

    times = read_recording(written(tmp_path, "date,x", *rows)).times

    assert times[2:] == (datetime(2018, 1, 2, 0, 15, tzinfo=UTC), datetime(2018, 1, 2, 0, 30, tzinfo=UTC))


def test_a_pause_in_the_recording_is_left_as_it_is(tmp_path: Path) -> None:
    rows = ("2018-01-01 10:00,1", "2018-01-01 10:15,2", "2018-02-01 10:15,3", "2018-02-01 10:30,4")

    assert read_recording(written(tmp_path, "date,x", *rows)).times[2] == datetime(2018, 2, 1, 10, 15, tzinfo=UTC)


def test_types_are_the_narrowest_that_fit(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "a,when,b,c,d,e",
        "1,2018-01-01T00:00:00Z,true,1.5,x,99999999999",
        ",2018-01-01T01:00:00+01:00,False,NaN,,1",
        "3,2018-01-01T00:00:02Z,,2,1,1",
    ).rename(tmp_path / "types.csv")
    file.write_text(file.read_text().replace("2018-01-01T01:00:00+01:00", "2018-01-01T01:00:01+01:00"))

    columns = {column.header: column for column in read_recording(file, "when").columns}

    assert {name: column.data_type for name, column in columns.items()} == {
        "a": DataType.INTEGER,
        "b": DataType.BOOLEAN,
        "c": DataType.DOUBLE,
        "d": DataType.STRING,
        "e": DataType.DOUBLE,
    }
    assert columns["a"].values == (1, None, 3)
    assert columns["c"].values == (1.5, None, 2.0)


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        (("date,x", "2018-01-01,1"), {}, "needs a header and 2"),
        (("date,x", "2018-01-01,1", "2018-01-02"), {}, "row 3 .* has 1 cells where the header has 2"),
        (("date,x", "soon,1", "2018-01-02,2"), {}, "row 2 .*'soon' is no time"),
        (("date,x", "2018-01-02,1", "2018-01-01,2", "2018-01-01,2"), {}, "never rise"),
        (("date,x", "2018-01-02,1", "2018-01-03,2", "2018-01-02,2"), {}, "row 4 .* does not come after"),
        (("date,x", "2018-01-02,1", "2018-01-03,2"), {"timestamp_column": "time"}, "no column 'time'; it has date, x"),
        (("date,x", "2018-01-02,1", "2018-01-03,2"), {"timestamp_format": "%d.%m.%y"}, "row 2 .* is no time"),
        (("date,x y,x-y", "2018-01-02,1,1", "2018-01-03,2,2"), {}, "two columns .* both be called x_y"),
        (("date,Row", "2018-01-02,1", "2018-01-03,2"), {}, "two columns .* both be called Row"),
    ],
)
@pytest.mark.asyncio
async def test_a_file_that_is_no_recording_is_refused_with_the_place(
    tmp_path: Path, rows: tuple[str, ...], options: dict[str, object], text: str
) -> None:
    backend = SimBackend({"profile": "recording", "file": str(written(tmp_path, *rows)), **options})

    with pytest.raises(BackendUnavailable, match=text):
        await backend.start(RecordingSink())


@pytest.mark.asyncio
async def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    backend = SimBackend({"profile": "recording", "file": str(tmp_path / "none.csv")})

    with pytest.raises(BackendUnavailable, match=r"none\.csv cannot be read"):
        await backend.start(RecordingSink())


def test_headers_become_attribute_names() -> None:
    assert attribute_name("CO2(tCO2)") == "CO2_tCO2"
    assert attribute_name("Lagging_Current_Reactive.Power_kVarh") == "Lagging_Current_Reactive_Power_kVarh"
    assert attribute_name("2nd flow") == "C_2nd_flow"


@pytest.mark.asyncio
async def test_the_default_plays_four_rows_a_second(start) -> None:
    rig = await start(profile="recording")
    row, usage = await rig.advised("SteelWorks.Row"), await rig.advised("SteelWorks.Usage_kWh")

    rig.clock.advance(10)

    events = rig.sink.take("data_change")
    rows = [event.value for event in events if event.item == row]
    week = read_recording(STEEL_WEEK)
    expected = week.columns[0].values
    assert len(rows) == 40
    changed = [expected[n - 1] for n in rows if expected[n - 1] != expected[n - 2]]
    assert [event.value for event in events if event.item == usage] == changed
    assert len(changed) > 20


@pytest.mark.asyncio
async def test_every_column_is_a_tag_with_its_type_and_unit(start) -> None:
    rig = await start(profile="recording", speed=1)
    nodes = {node.name: node for node in await rig.backend.browse("SteelWorks")}

    assert await rig.value("SteelWorks.Usage_kWh") == 4.54
    assert await rig.value("SteelWorks.Load_Type") == "Light_Load"
    assert await rig.value("SteelWorks.NSM") == 900
    assert await rig.value("SteelWorks.Lagging_Current_Power_Factor") == 74.79
    assert nodes["CO2_tCO2"].description.endswith(", t")
    assert await rig.value("SteelWorks.Usage_kWh.Description") == "Energy used in 15 minutes, kWh"
    item = await rig.advised("SteelWorks.Usage_kWh")
    assert await rig.detail(item, 1.0) == 1007


@pytest.mark.asyncio
async def test_own_pace_is_speed_one(start) -> None:
    rig = await start(profile="recording", speed=1)
    await rig.advised("SteelWorks.Row")

    rig.clock.advance(899)
    before = rig.sink.take()
    rig.clock.advance(2)

    assert before == []
    assert [event.value for event in rig.sink.take()] == [2]


@pytest.mark.asyncio
async def test_source_time_is_now_unless_the_recorded_one_is_asked_for(start) -> None:
    now = await start(profile="recording")
    recorded = await start(profile="recording", source_time="recorded")

    event = (await now.first_events("SteelWorks.Usage_kWh"))[-1]
    replayed = (await recorded.first_events("SteelWorks.Usage_kWh"))[-1]

    assert 0 <= now.clock.wall_ns() - event.time_ns < 1_000_000_000
    assert replayed.time_ns == 1_515_975_300 * 1_000_000_000
    assert await now.value("SteelWorks.RecordTime") == datetime(2018, 1, 15, 0, 15, tzinfo=UTC)


@pytest.mark.asyncio
async def test_the_recording_starts_over_or_ends(start) -> None:
    looping = await start(profile="recording", speed=900_000.0)
    once = await start(profile="recording", speed=900_000.0, loop=False)

    looping.clock.advance(1)
    once.clock.advance(1)

    assert await looping.value("SteelWorks.Rounds") == 1
    assert await looping.value("SteelWorks.Playing") is True
    assert await once.value("SteelWorks.Playing") is False
    assert await once.value("SteelWorks.Row") == 672
    assert await once.value("SteelWorks.RecordTime") == datetime(2018, 1, 22, tzinfo=UTC)


@pytest.mark.asyncio
async def test_an_empty_cell_leaves_the_last_value_as_bad(start, tmp_path: Path) -> None:
    file = written(tmp_path, "t,x", "2018-01-01 00:00:00,5", "2018-01-01 00:00:01,", "2018-01-01 00:00:02,6")
    rig = await start(profile="recording", file=str(file), speed=1, loop=False, object="Plant7")
    item = await rig.advised("Plant7.x")

    rig.clock.advance(5)

    assert [(e.value, e.quality) for e in rig.sink.take() if e.item == item] == [(5, 20), (6, 192)]
