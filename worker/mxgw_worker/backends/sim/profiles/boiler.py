"""A steam boiler: its pressure follows fuel and demand, a trip stops its burner, and its analyser calibrates itself at
intervals.
"""

from __future__ import annotations

from math import pi, sin

from mxgw_worker.backends.sim.alarms import LimitAlarm
from mxgw_worker.backends.sim.coerce import coerce
from mxgw_worker.backends.sim.galaxy import Galaxy, SimObject
from mxgw_worker.backends.sim.profiles.equipment import MODES, Tick, number, show, show_flag
from mxgw_worker.backends.sim.status import GOOD, UNCERTAIN_SENSOR, DataType, Security
from mxgw_worker.backends.sim.timers import Clock

_CALIBRATION_EVERY_S, _CALIBRATION_TAKES_S = 120.0, 10.0


class Boiler:
    """A boiler. In Auto the fuel valve follows the pressure setpoint; in Manual the fuel valve has the position
    `FuelSP`.
    """

    def __init__(self, galaxy: Galaxy, clock: Clock, tag_name: str, area: str) -> None:
        boiler = galaxy.add(SimObject(tag_name, area, "Steam boiler, 10 bar"))
        self._mode = boiler.add_writeable("Mode", DataType.QUALIFIED_ENUM, 1, "Manual or Auto", names=MODES)
        self._setpoint = boiler.add_writeable(
            "PressureSP", DataType.DOUBLE, 8.0, "Pressure asked for, bar", low=0.0, high=10.0
        )
        self._fuel_setpoint = boiler.add_writeable(
            "FuelSP", DataType.DOUBLE, 50.0, "Fuel valve in Manual, %", low=0.0, high=100.0
        )
        self._burner = boiler.add_writeable(
            "Burner", DataType.BOOLEAN, True, "Burner released; a secured write", security=Security.SECURED_WRITE
        )
        self._trip_limit = boiler.add_writeable(
            "TripLimit",
            DataType.DOUBLE,
            9.5,
            "Pressure that trips the boiler, bar; a verified write",
            security=Security.VERIFIED_WRITE,
            low=5.0,
            high=12.0,
        )
        self._reset = boiler.add_writeable("Reset", DataType.BOOLEAN, False, "True resets the trip")
        self._tripped = boiler.add("Tripped", DataType.BOOLEAN, False, "The safety chain has stopped the burner")
        self.pressure = boiler.add("Pressure", DataType.DOUBLE, 7.5, "Pressure, bar")
        LimitAlarm(boiler, self.pressure, clock, limit=9.0, deadband=0.3, priority=50)
        self._temperature = boiler.add("Temperature", DataType.FLOAT, 170.0, "Steam temperature, degC")
        self._fuel = boiler.add("Fuel", DataType.DOUBLE, 50.0, "Fuel valve, %")
        self._steam = boiler.add("SteamFlow", DataType.DOUBLE, 2.0, "Steam to the consumers, t/h")
        self._oxygen = boiler.add("Oxygen", DataType.FLOAT, 4.0, "Oxygen in the flue gas, %")
        self._bar, self._integral, self._age_s = 7.5, 0.5, 0.0

    def step(self, tick: Tick) -> None:
        self._age_s += tick.dt_s
        self._guard(tick)
        fuel = self._fuel_share(tick)
        demand = 2.0 + 0.5 * sin(2 * pi * self._age_s / 90.0) + tick.noise.around(0.1)
        steam = max(0.0, demand) * min(1.0, self._bar / 4.0)
        self._bar = max(0.0, self._bar + (4.0 * fuel - steam) * 0.05 * tick.dt_s)
        show(self.pressure, self._bar, 2, tick)
        # An approximation for saturated steam, within 2.5 K of the steam tables between 1 and 12 bar.
        show(self._temperature, 100.0 * (self._bar + 1.0) ** 0.25, 1, tick)
        show(self._fuel, fuel * 100.0, 1, tick)
        show(self._steam, steam, 2, tick)
        self._analyse(fuel, tick)

    def _guard(self, tick: Tick) -> None:
        if self._bar > number(self._trip_limit):
            show_flag(self._tripped, True, tick)
        elif self._reset.value:
            show_flag(self._tripped, False, tick)
        if self._reset.value:
            show_flag(self._reset, False, tick)

    def _fuel_share(self, tick: Tick) -> float:
        if self._tripped.value or not self._burner.value:
            self._integral = 0.0
            return 0.0
        if self._mode.value == MODES.index("Manual"):
            return number(self._fuel_setpoint) / 100.0
        error = number(self._setpoint) - self._bar
        self._integral = max(0.0, min(1.0, self._integral + error * 0.03 * tick.dt_s))
        return max(0.0, min(1.0, self._integral + 0.5 * error))

    def _analyse(self, fuel: float, tick: Tick) -> None:
        """Publish the oxygen content. During a calibration the last value is kept, with the quality "sensor not
        accurate".
        """
        if self._age_s % _CALIBRATION_EVERY_S > _CALIBRATION_EVERY_S - _CALIBRATION_TAKES_S:
            self._oxygen.set(self._oxygen.value, tick.time_ns, UNCERTAIN_SENSOR)
            return
        percent = 20.9 if fuel == 0 else 5.0 - 2.0 * fuel + tick.noise.around(0.2)
        self._oxygen.set(coerce(round(percent, 1), DataType.FLOAT), tick.time_ns, GOOD)
