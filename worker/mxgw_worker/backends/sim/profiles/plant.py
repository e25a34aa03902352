"""Profile `plant`: two day tanks, a transfer pump, a boiler, a batch line and a test bench with all data types.

feed -> Valve_001 -> Tank_001 -> Pump_001 -> Valve_002 -> Tank_002 -> Valve_003 -> batch line
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import Area, Galaxy, SimObject
from mxgw_worker.backends.sim.options import SimOptions
from mxgw_worker.backends.sim.profiles.batch import Batch, add_try_out
from mxgw_worker.backends.sim.profiles.boiler import Boiler
from mxgw_worker.backends.sim.profiles.equipment import Pump, Tank, Tick, Valve, number, show
from mxgw_worker.backends.sim.profiles.noise import Noise
from mxgw_worker.backends.sim.status import DataType


def build_plant(emitter: Emitter, options: SimOptions) -> None:
    """Fill the galaxy with the plant and start its scans. With the same seed, each scan gives the same values."""
    plant = Plant(emitter, options)
    emitter.timers.after(options.update_period_s, plant.scan)


class Plant:
    """All equipment of the plant. Every scan moves it forward by the same time, whatever the wall clock shows."""

    def __init__(self, emitter: Emitter, options: SimOptions) -> None:
        self._emitter = emitter
        self._period_s = options.update_period_s
        self._noise = Noise(options.seed)
        galaxy, clock = emitter.galaxy, emitter.clock
        galaxy.add(Area("Plant", "", "The whole plant"))
        galaxy.add(Area("TankFarm", "Plant", "Day tanks and transfer"))
        galaxy.add(Area("Utilities", "Plant", "Steam"))
        galaxy.add(Area("Packing", "Plant", "Batches and packs"))
        self._next_scan = clock.monotonic() + self._period_s
        self._system = _System(galaxy, options, clock.wall_ns())
        self._inlet = Valve(galaxy, "Valve_001", "TankFarm", "Feed to tank 1", 50.0)
        self._tank1 = Tank(galaxy, clock, "Tank_001", "TankFarm", "Day tank 1", 55.0)
        self._pump = Pump(galaxy, "Pump_001", "TankFarm", "Transfer pump from tank 1 to tank 2")
        self._transfer = Valve(galaxy, "Valve_002", "TankFarm", "Transfer to tank 2", 100.0)
        self._tank2 = Tank(galaxy, clock, "Tank_002", "TankFarm", "Day tank 2", 40.0)
        self._outlet = Valve(galaxy, "Valve_003", "TankFarm", "From tank 2 to the batch line", 70.0)
        self._boiler = Boiler(galaxy, clock, "Boiler_001", "Utilities")
        self._batch = Batch(galaxy, "Batch_001", "Packing")
        add_try_out(galaxy, "Bench_001", "Plant", clock.wall_ns())

    def scan(self) -> None:
        """Move all equipment forward by one period, and schedule the next scan."""
        tick = Tick(self._period_s, self._emitter.clock.wall_ns(), self._noise)
        for valve in (self._inlet, self._transfer, self._outlet):
            valve.step(tick)
        self._pump.step(tick, self._tank1.percent)
        feed = 15.0 * self._inlet.opening + tick.noise.around(0.1) * (self._inlet.opening > 0)
        transfer = 22.0 * self._pump.turning * self._transfer.opening if self._tank1.percent > 0 else 0.0
        drain = self._tank2.drain(self._outlet)
        self._tank1.step(tick, max(0.0, feed), transfer)
        self._tank2.step(tick, transfer, drain)
        self._boiler.step(tick)
        self._batch.step(tick)
        self._system.step(tick)
        # A late scan is not made up for. An overloaded engine skips scans, and does not run the missed scans later.
        self._next_scan = max(self._next_scan + self._period_s, self._emitter.clock.monotonic())
        self._emitter.timers.at(self._next_scan, self.scan)


class _System:
    """The platform and its engine. A client that wants to know whether the plant is alive can read the engine's scan
    counter, which changes with every scan.
    """

    def __init__(self, galaxy: Galaxy, options: SimOptions, time_ns: int) -> None:
        started = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
        platform = galaxy.add(SimObject("Platform_001", "Plant", "The simulated platform"))
        platform.add("StartupTime", DataType.TIME, started, "When the platform started")
        engine = galaxy.add(SimObject("AppEngine_001", "Plant", "The simulated engine"))
        period = timedelta(seconds=options.update_period_s)
        engine.add("ScanPeriod", DataType.ELAPSED_TIME, period, "Time between scans")
        engine.add("Host", DataType.REFERENCE, "Platform_001", "Platform this engine runs on")
        self._scans = engine.add("ScanCount", DataType.INTEGER, 0, "Scans since start-up; changes with every scan")

    def step(self, tick: Tick) -> None:
        show(self._scans, (number(self._scans) + 1) % 2**31, 0, tick)
