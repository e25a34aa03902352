"""Profile `recording`: plays a CSV file of real measurements as tags, at the recorded speed or at another speed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import Area, SimObject
from mxgw_worker.backends.sim.items import Attribute
from mxgw_worker.backends.sim.options import SimOptions
from mxgw_worker.backends.sim.recordings import Column, Recording, read_recording
from mxgw_worker.backends.sim.status import BAD_LAST_KNOWN, GOOD, DataType

STEEL_WEEK = Path(__file__).parents[1] / "data" / "steel_week_2018.csv"

# Key: column of the shipped file. Value: its description.
# Source: the data set's own description (data/README.md).
_STEEL_COLUMNS = {
    "Usage_kWh": "Energy used in 15 minutes, kWh",
    "Lagging_Current_Reactive.Power_kVarh": "Lagging reactive energy in 15 minutes, kVarh",
    "Leading_Current_Reactive_Power_kVarh": "Leading reactive energy in 15 minutes, kVarh",
    "CO2(tCO2)": "Carbon dioxide emitted in 15 minutes, t",
    "Lagging_Current_Power_Factor": "Lagging power factor, %",
    "Leading_Current_Power_Factor": "Leading power factor, %",
    "NSM": "Time since midnight, s",
    "WeekStatus": "Weekday or Weekend",
    "Day_of_week": "Day of the week",
    "Load_Type": "Light_Load, Medium_Load or Maximum_Load",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build_recording(emitter: Emitter, options: SimOptions) -> None:
    """Fill the galaxy with one object that has an attribute per column, and start to play the recording.

    Raises:
        BackendUnavailable: the file cannot be read, or two of its columns would have the same name.
    """
    path = Path(options.file) if options.file else STEEL_WEEK
    recording = read_recording(path, options.timestamp_column, options.timestamp_format)
    emitter.galaxy.add(Area("Recordings", "", "Measurements played back"))
    _Player(emitter, options, recording).start()


class _Player:
    def __init__(self, emitter: Emitter, options: SimOptions, recording: Recording) -> None:
        self._emitter = emitter
        self._speed = options.speed
        self._loop = options.loop
        self._is_recorded_time = options.source_time == "recorded"
        self._recording = recording
        self._row = -1
        self._played = 0
        self._due = 0.0
        tags = SimObject(options.object, "Recordings", f"{recording.name}, {len(recording.times)} rows")
        self._time = tags.add("RecordTime", DataType.TIME, None, "When the present row was measured")
        self._number = tags.add("Row", DataType.INTEGER, 0, "Number of the present row, from 1")
        self._rounds = tags.add("Rounds", DataType.INTEGER, 0, "How often the recording was played to its end")
        self._playing = tags.add("Playing", DataType.BOOLEAN, True, "False after the end of a recording without loop")
        self._columns: list[tuple[Attribute, Column]] = []
        for column in recording.columns:
            name = attribute_name(column.header)
            if tags.find(name) is not None:
                raise BackendUnavailable(f"two columns of {recording.name} would both be called {name}")
            described = _STEEL_COLUMNS.get(column.header, f"Column {column.header} of {recording.name}")
            self._columns.append((tags.add(name, column.data_type, None, described), column))
        emitter.galaxy.add(tags)

    def start(self) -> None:
        self._due = self._emitter.clock.monotonic()
        self._play()

    def _play(self) -> None:
        """Publish the next row, and schedule the row after it. The schedule does not drift."""
        recording, times = self._recording, self._recording.times
        self._row += 1
        if self._row == len(times):
            self._row = 0
            self._played += 1
            self._set(self._rounds, self._played)
        for attribute, column in self._columns:
            value = column.values[self._row]
            if value is None:
                # The cell is empty, so nothing was measured. The last value is published again, with a bad quality.
                self._set(attribute, attribute.value, BAD_LAST_KNOWN)
            else:
                self._set(attribute, value)
        self._set(self._time, times[self._row])
        self._set(self._number, self._row + 1)
        if self._row + 1 < len(times):
            step_s = (times[self._row + 1] - times[self._row]).total_seconds()
        elif self._loop:
            step_s = recording.step_s
        else:
            self._set(self._playing, False)
            return
        self._due += step_s / self._speed
        self._emitter.timers.at(self._due, self._play)

    def _set(self, attribute: Attribute, value: Value, quality: int = GOOD) -> None:
        if self._is_recorded_time:
            since_1970 = self._recording.times[self._row] - _EPOCH
            time_ns = since_1970 // timedelta(microseconds=1) * 1_000
        else:
            time_ns = self._emitter.clock.wall_ns()
        attribute.set(value, time_ns, quality)


def attribute_name(header: str) -> str:
    """Return a column header as the name of a Galaxy attribute: letters, digits and underscores, starting with a
    letter.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", header).strip("_") or "Column"
    return name if name[0].isalpha() else f"C_{name}"
