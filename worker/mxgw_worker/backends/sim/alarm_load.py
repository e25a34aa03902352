"""Generated alarms that change in believable ways, at a rate that can be set. There can be any number of alarm points,
and some of them are in alarm from the start.

The points are `Unit_001.T01` to `Unit_<n>.T20`, twenty per object. The objects are spread over areas such as
`Alarms_North`. Each step picks a point and makes a change that can follow its present state. A quiet point is raised. A
point in alarm is acknowledged or cleared. A point that was cleared without acknowledgement is acknowledged or raised
again. The number of points in alarm stays near its target.
"""

from __future__ import annotations

import random

from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.sim.alarms import LEAST_SEVERE, MOST_SEVERE, AlarmPoint
from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import Area, SimObject
from mxgw_worker.backends.sim.options import SimOptions
from mxgw_worker.backends.sim.status import DataType

_PER_OBJECT = 20
_AREAS = ("North", "South", "East", "West", "Boilers", "Utilities", "Packing", "Tank_Farm")
_TYPES = ("Hi", "HiHi", "Lo", "LoLo", "ROC", "Fault")
_OPERATORS = ("a.keller", "b.okafor", "c.lindqvist", "d.moreau")
_COMMENTS = ("seen", "known, spare part ordered", "field operator informed", "test run", "within tolerance")
# The pause between two calls of `_tick`. At a high rate, each call makes several steps.
_TICK_S = 0.02


class AlarmLoad:
    """Adds the alarm points to the galaxy. After `start`, it also changes the states of the points."""

    def __init__(self, emitter: Emitter, options: SimOptions) -> None:
        self._emitter = emitter
        self._rate = options.alarm_rate
        self._target = round(options.alarms * options.alarm_share)
        # The random numbers are no secret: the same seed gives the same changes.
        self._random = random.Random(options.alarm_seed)  # noqa: S311
        self._points = self._build(options.alarms)
        # The points that are quiet, and the points that are active. A point moves to the other list when its alarm
        # starts or ends.
        self._quiet = list(self._points)
        self._active: list[AlarmPoint] = []
        self._due = self._accounted_until = 0.0

    def _build(self, count: int) -> list[AlarmPoint]:
        galaxy, clock = self._emitter.galaxy, self._emitter.clock
        for area in _AREAS:
            galaxy.add(Area(f"Alarms_{area}", "", "Generated alarms"))
        points: list[AlarmPoint] = []
        for number in range(0, count, _PER_OBJECT):
            area = _AREAS[number // _PER_OBJECT % len(_AREAS)]
            unit = galaxy.add(SimObject(f"Unit_{number // _PER_OBJECT + 1:03d}", f"Alarms_{area}", "Generated alarms"))
            for index in range(min(_PER_OBJECT, count - number)):
                name = f"T{index + 1:02d}"
                value = unit.add(name, DataType.DOUBLE, 20.0, f"Temperature {index + 1} of {unit.tag_name}, degC")
                priority = self._random.randint(MOST_SEVERE, LEAST_SEVERE)
                kind = self._random.choice(_TYPES)
                points.append(AlarmPoint(unit, value, clock, priority=priority, alarm_type=kind, limit=lambda: 80.0))
        return points

    def start(self) -> None:
        """Raise the points that are in alarm from the start, and begin to make changes at the rate."""
        now_ns = self._emitter.clock.wall_ns()
        for _ in range(self._target):
            self._raise(now_ns)
        self._accounted_until = self._emitter.clock.monotonic()
        if self._rate and self._points:
            self._emitter.timers.after(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._emitter.timers.after(_TICK_S, self._tick)
        now = self._emitter.clock.monotonic()
        # After a delay, missed steps are made up for, but at most those of one second.
        self._due = min(self._due + self._rate * (now - self._accounted_until), self._rate)
        self._accounted_until = now
        now_ns = self._emitter.clock.wall_ns()
        while self._due >= 1.0:
            self._due -= 1.0
            self._step(now_ns)

    def _step(self, now_ns: int) -> None:
        if len(self._active) < self._target or (not self._active and self._random.random() < 0.5):
            self._raise(now_ns)
            return
        if not self._active:
            return
        index = self._random.randrange(len(self._active))
        point = self._active[index]
        chance = self._random.random()
        match point.state:
            case pb.ALARM_STATE_UNACK_ALM if chance < 0.6:
                self._acknowledge(point)
            case pb.ALARM_STATE_UNACK_ALM | pb.ALARM_STATE_ACK_ALM:
                point.clear(now_ns)
            case pb.ALARM_STATE_UNACK_RTN if chance < 0.7:
                self._acknowledge(point)
            case pb.ALARM_STATE_UNACK_RTN:
                point.raise_(now_ns)
            case _:
                pass  # A client acknowledged the alarm meanwhile.
        if point.state == pb.ALARM_STATE_ACK_RTN:
            self._active[index] = self._active[-1]
            self._active.pop()
            self._quiet.append(point)

    def _raise(self, now_ns: int) -> None:
        if not self._quiet:
            return
        index = self._random.randrange(len(self._quiet))
        point = self._quiet[index]
        self._quiet[index] = self._quiet[-1]
        self._quiet.pop()
        point.attribute.set(round(80.0 + 20.0 * self._random.random(), 1), now_ns)
        point.raise_(now_ns)
        self._active.append(point)

    def _acknowledge(self, point: AlarmPoint) -> None:
        point.acknowledge(self._random.choice(_COMMENTS), self._random.choice(_OPERATORS))
