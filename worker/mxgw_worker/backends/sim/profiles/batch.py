"""A batch line that counts packs, and an object with one attribute of every type for trying things out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mxgw_worker.backends.sim.galaxy import Galaxy, SimObject
from mxgw_worker.backends.sim.profiles.equipment import Tick, number, show
from mxgw_worker.backends.sim.status import DataType, Security

_PHASES = ("Idle", "Filling", "Mixing", "Packing", "Cleaning")
_PHASE_TAKES_S = (3.0, 12.0, 10.0, 20.0, 6.0)


class Batch:
    """Runs one batch after another while `Run` is true."""

    def __init__(self, galaxy: Galaxy, tag_name: str, area: str) -> None:
        batch = galaxy.add(SimObject(tag_name, area, "Batch mixer and packing line"))
        self._run = batch.add_writeable("Run", DataType.BOOLEAN, True, "Start the next batch when one has ended")
        self._id = batch.add("BatchId", DataType.STRING, "B00000", "Name of the present batch")
        self._phase = batch.add("Phase", DataType.QUALIFIED_ENUM, 0, "What the line is doing", names=_PHASES)
        self._phase_name = batch.add("PhaseName", DataType.STRING, _PHASES[0], "The phase by name")
        self._number = batch.add("BatchNumber", DataType.INTEGER, 0, "Batches since start-up")
        self._packs = batch.add_writeable("Packs", DataType.INTEGER, 0, "Packs made; write to reset", low=0.0)
        self._begun = batch.add("StartTime", DataType.TIME, datetime(1970, 1, 1, tzinfo=UTC), "Start of this batch")
        self._duration = batch.add("Duration", DataType.ELAPSED_TIME, timedelta(0), "Duration of this batch")
        batch.add_writeable("Recipe", DataType.STRING, ("Water", "Sugar", "Aroma"), "Ingredients, in order")
        batch.add_writeable("Amounts", DataType.DOUBLE, (80.0, 18.5, 1.5), "Amounts, %", low=0.0, high=100.0)
        download = batch.add_writeable(
            "Download", DataType.BOOLEAN, False, "Loads the recipe; answers as still pending"
        )
        download.answers_pending = True
        self._age_s = 0.0
        self._in_phase_s = 0.0
        self._part_packs = 0.0

    def step(self, tick: Tick) -> None:
        phase = int(number(self._phase))
        self._age_s += tick.dt_s
        self._in_phase_s += tick.dt_s
        if _PHASES[phase] == "Packing":
            self._part_packs += tick.dt_s * 1.5
            made, self._part_packs = int(self._part_packs), self._part_packs % 1.0
            # The counter starts again at 0 before it exceeds a signed 32-bit number.
            show(self._packs, (number(self._packs) + made) % 2**31, 0, tick)
        if phase:
            self._duration.set(timedelta(seconds=round(self._age_s, 3)), tick.time_ns)
        if self._in_phase_s >= _PHASE_TAKES_S[phase] and (phase or self._run.value):
            self._in_phase_s = 0.0
            phase = (phase + 1) % len(_PHASES)
            if phase == 1:
                self._begin(tick)
            self._phase.set(phase, tick.time_ns)
            self._phase_name.set(_PHASES[phase], tick.time_ns)

    def _begin(self, tick: Tick) -> None:
        self._age_s = 0.0
        count = int(number(self._number)) + 1
        self._number.set(count, tick.time_ns)
        self._id.set(f"B{count:05d}", tick.time_ns)
        self._begun.set(datetime.fromtimestamp(tick.time_ns // 1_000_000 / 1_000, UTC), tick.time_ns)


def add_try_out(galaxy: Galaxy, tag_name: str, area: str, time_ns: int) -> None:
    """Add an object whose attributes keep what is written to them. It has one attribute of every type, and one of every
    security classification.
    """
    bench = galaxy.add(SimObject(tag_name, area, "One attribute of every type, to try reading and writing"))
    free = Security.FREE_ACCESS
    now = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    for name, data_type, value in (
        ("Flag", DataType.BOOLEAN, False),
        ("Count", DataType.INTEGER, 0),
        ("Ratio", DataType.FLOAT, 0.0),
        ("Amount", DataType.DOUBLE, 0.0),
        ("Text", DataType.STRING, ""),
        ("Moment", DataType.TIME, now),
        ("Span", DataType.ELAPSED_TIME, timedelta(0)),
        ("Target", DataType.REFERENCE, "Tank_001"),
        ("Title", DataType.INTERNATIONALIZED_STRING, "Prüfstand"),
        ("Remarks", DataType.BIG_STRING, ""),
        ("Flags", DataType.BOOLEAN, (False,) * 4),
        ("Counts", DataType.INTEGER, (0,) * 10),
        ("Ratios", DataType.FLOAT, (0.0,) * 4),
        ("Amounts", DataType.DOUBLE, (0.0,) * 4),
        ("Texts", DataType.STRING, ("",) * 50),
        ("Moments", DataType.TIME, (now,) * 2),
        ("Spans", DataType.ELAPSED_TIME, (timedelta(0),) * 2),
    ):
        bench.add_writeable(name, data_type, value, f"Takes any {data_type.name.lower()}", security=free)
    bench.add_writeable(
        "Choice", DataType.QUALIFIED_ENUM, 0, "Red, Green or Blue", security=free, names=("Red", "Green", "Blue")
    )
    bench.add_writeable("Percent", DataType.DOUBLE, 0.0, "Takes 0 to 100", security=free, low=0.0, high=100.0)
    for security in Security:
        name = security.name.title().replace("_", "")
        bench.add_writeable(name, DataType.INTEGER, 0, f"Has security {name}", security=security)
    bench.add("Constant", DataType.INTEGER, 42, "Never changes and cannot be written")
