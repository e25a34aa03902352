"""Valves, pumps and tanks. Each has attributes, and each step moves it forward in time.

Flows are in m3/h, volumes in m3, positions and speeds in %, levels in % of the tank. Published values are rounded as an
instrument rounds them, so that a steady plant makes few events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import sqrt

from mxgw_worker.backends.sim.alarms import LimitAlarm
from mxgw_worker.backends.sim.coerce import coerce
from mxgw_worker.backends.sim.galaxy import Galaxy, SimObject
from mxgw_worker.backends.sim.items import Attribute
from mxgw_worker.backends.sim.profiles.noise import Noise
from mxgw_worker.backends.sim.status import DataType, Security
from mxgw_worker.backends.sim.timers import Clock

MODES = ("Manual", "Auto")


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of time: its length, the time at which it ends, and the random source that all equipment shares."""

    dt_s: float
    time_ns: int
    noise: Noise


def number(attribute: Attribute) -> float:
    """Return the value of a numeric attribute."""
    assert isinstance(attribute.value, int | float)  # The equipment gave the attribute this type.
    return attribute.value


def show(attribute: Attribute, value: float, digits: int, tick: Tick) -> None:
    """Publish a number, rounded to the digits that an instrument shows."""
    attribute.set(coerce(round(value, digits), attribute.data_type), tick.time_ns)


def show_flag(attribute: Attribute, flag: bool, tick: Tick) -> None:
    """Publish a flag, true or false."""
    attribute.set(flag, tick.time_ns)


class Valve:
    """A valve, which moves to its setpoint at a limited speed."""

    def __init__(self, galaxy: Galaxy, tag_name: str, area: str, description: str, position: float) -> None:
        valve = galaxy.add(SimObject(tag_name, area, description))
        self.setpoint = valve.add_writeable(
            "PositionSP", DataType.DOUBLE, position, "Position asked for, %", low=0.0, high=100.0
        )
        self.position = valve.add("Position", DataType.DOUBLE, position, "Position, %")
        self._is_open = valve.add("IsOpen", DataType.BOOLEAN, position > 95, "Open limit switch")
        self._is_closed = valve.add("IsClosed", DataType.BOOLEAN, position < 5, "Closed limit switch")
        self._travel = valve.add_writeable(
            "TravelTime", DataType.ELAPSED_TIME, timedelta(seconds=8), "Time for a full stroke", security=Security.TUNE
        )
        self.opening = position / 100.0

    def step(self, tick: Tick) -> None:
        assert isinstance(self._travel.value, timedelta)  # `__init__` gave the attribute this type.
        reach = tick.dt_s / max(self._travel.value.total_seconds(), 0.1)
        target = number(self.setpoint) / 100.0
        self.opening += max(-reach, min(reach, target - self.opening))
        show(self.position, self.opening * 100.0, 1, tick)
        show_flag(self._is_open, self.opening > 0.95, tick)
        show_flag(self._is_closed, self.opening < 0.05, tick)


class Pump:
    """A pump. In Manual it runs while `Cmd` is set; in Auto it empties its tank between two levels."""

    def __init__(self, galaxy: Galaxy, tag_name: str, area: str, description: str) -> None:
        pump = galaxy.add(SimObject(tag_name, area, description))
        self.mode = pump.add_writeable("Mode", DataType.QUALIFIED_ENUM, 1, "Manual or Auto", names=MODES)
        self.command = pump.add_writeable("Cmd", DataType.BOOLEAN, False, "Start in Manual")
        self.speed_setpoint = pump.add_writeable(
            "SpeedSP", DataType.FLOAT, 80.0, "Speed asked for, %", low=0.0, high=100.0
        )
        self.running = pump.add("Running", DataType.BOOLEAN, False, "The motor turns")
        self._speed = pump.add("Speed", DataType.FLOAT, 0.0, "Speed, %")
        self._current = pump.add("Current", DataType.FLOAT, 0.0, "Motor current, A")
        self._starts = pump.add("Starts", DataType.INTEGER, 0, "Number of starts")
        self._run_time = pump.add("RunTime", DataType.ELAPSED_TIME, timedelta(0), "Time in operation")
        self.turning = 0.0

    def step(self, tick: Tick, level: float) -> None:
        was_running = bool(self.running.value)
        if self.mode.value == MODES.index("Auto"):
            wanted = level > 70.0 or (was_running and level > 30.0)
        else:
            wanted = bool(self.command.value)
        # In both modes, the pump stops before its tank is empty.
        running = wanted and level > 2.0
        target = number(self.speed_setpoint) / 100.0 if running else 0.0
        self.turning += max(-0.5 * tick.dt_s, min(0.25 * tick.dt_s, target - self.turning))
        show_flag(self.running, running, tick)
        show(self._speed, self.turning * 100.0, 1, tick)
        amperes = 0.0 if self.turning <= 0 else 4.0 + 14.0 * self.turning**2 + tick.noise.around(0.2)
        show(self._current, amperes, 1, tick)
        if running:
            assert isinstance(self._run_time.value, timedelta)  # `__init__` gave the attribute this type.
            self._run_time.set(self._run_time.value + timedelta(seconds=tick.dt_s), tick.time_ns)
            if not was_running:
                show(self._starts, number(self._starts) + 1, 0, tick)


class Tank:
    """A tank. Its level follows from the flows in and out, and a high level raises an alarm."""

    def __init__(self, galaxy: Galaxy, clock: Clock, tag_name: str, area: str, description: str, level: float) -> None:
        tank = galaxy.add(SimObject(tag_name, area, description))
        self.level = tank.add("Level", DataType.DOUBLE, level, "Level, %")
        LimitAlarm(tank, self.level, clock, limit=68.0, deadband=3.0, priority=200)
        self._volume = tank.add("Volume", DataType.FLOAT, 0.0, "Content, m3")
        self._capacity = tank.add_writeable(
            "Capacity", DataType.DOUBLE, 0.5, "Size, m3", security=Security.CONFIGURE, low=0.1, high=100.0
        )
        self._inflow = tank.add("InFlow", DataType.DOUBLE, 0.0, "Flow in, m3/h")
        self._outflow = tank.add("OutFlow", DataType.DOUBLE, 0.0, "Flow out, m3/h")
        self._temperature = tank.add("Temperature", DataType.FLOAT, 18.0, "Temperature, degC")
        self._overflow = tank.add("Overflow", DataType.BOOLEAN, False, "The tank runs over")
        self._trend = tank.add("LevelTrend", DataType.DOUBLE, (level,) * 12, "The last 12 levels, one every 5 s, %")
        self._product = tank.add_writeable("Product", DataType.STRING, "Water", "What is in the tank")
        self._exact = level
        self._heat = 18.0
        self._since_trend_s = 0.0

    def step(self, tick: Tick, inflow: float, outflow: float) -> None:
        capacity = number(self._capacity)
        wanted = self._exact + (inflow - outflow) / 3_600.0 * tick.dt_s / capacity * 100.0
        self._exact = max(0.0, min(100.0, wanted))
        self._heat += (18.0 - self._heat) * 0.002 * tick.dt_s + tick.noise.around(0.02)
        show(self.level, self._exact, 2, tick)
        show(self._volume, self._exact / 100.0 * capacity, 3, tick)
        show(self._inflow, inflow, 2, tick)
        show(self._outflow, outflow, 2, tick)
        show(self._temperature, self._heat, 1, tick)
        show_flag(self._overflow, wanted > 100.0, tick)
        self._since_trend_s += tick.dt_s
        if self._since_trend_s >= 5.0:
            self._since_trend_s = 0.0
            assert isinstance(self._trend.value, tuple)  # `__init__` gave the attribute this type.
            self._trend.set((*self._trend.value[1:], round(self._exact, 2)), tick.time_ns)

    @property
    def percent(self) -> float:
        """The exact level in %, which is not rounded."""
        return self._exact

    def drain(self, valve: Valve) -> float:
        """Return the flow through an outlet valve at the bottom. The flow becomes smaller as the level falls."""
        return 14.0 * valve.opening * sqrt(self._exact / 100.0)
