"""A limit alarm on an attribute, seen through sub-attributes as MXAccess clients see alarms (FIELD 1.7, 3).

`<Attribute>.InAlarm` and `.Acked` follow the value; writing a comment to `<Attribute>.AckMsg` acknowledges. States are
UNACK_ALM, ACK_ALM, UNACK_RTN and ACK_RTN: each new alarm must be acknowledged, even one that has passed by itself.
"""

from __future__ import annotations

from mxgw_worker.backends.sim.attributes import Attribute
from mxgw_worker.backends.sim.clock import Clock
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.galaxy import SimObject
from mxgw_worker.backends.sim.status import DataType, Detail, Security


class LimitAlarm:
    """In alarm while the attribute is above its limit; leaves when it falls below the limit less the deadband."""

    def __init__(
        self, sim_object: SimObject, attribute: Attribute, clock: Clock, *, limit: float, deadband: float, priority: int
    ) -> None:
        name = attribute.name
        self._attribute = attribute
        self._clock = clock
        self._deadband = deadband
        self.in_alarm = sim_object.add(f"{name}.InAlarm", DataType.BOOLEAN, False, f"{name} is above its limit")
        self.acked = sim_object.add(
            f"{name}.Acked", DataType.BOOLEAN, True, f"The last alarm of {name} is acknowledged"
        )
        self._ack_message = sim_object.add_writeable(
            f"{name}.AckMsg", DataType.STRING, "", f"Write a comment to acknowledge the alarm of {name}"
        )
        self._limit = sim_object.add_writeable(
            f"{name}.Limit", DataType.DOUBLE, limit, f"{name} above this is an alarm", security=Security.TUNE
        )
        sim_object.add(f"{name}.Priority", DataType.INTEGER, priority, "1 is the most severe, 999 the least")
        self._ack_message.acknowledges = True
        self._ack_message.vet = self._vet
        self._ack_message.written = self._acknowledge
        self._limit.written = lambda _limit: self._evaluate(clock.wall_ns())
        attribute.on_change = self._evaluate

    def _evaluate(self, time_ns: int) -> None:
        value, limit = self._attribute.value, self._limit.value
        assert isinstance(value, int | float) and isinstance(limit, int | float)  # noqa: PT018 - numbers by make
        if value > limit and not self.in_alarm.value:
            self.acked.set(False, time_ns)
            self.in_alarm.set(True, time_ns)
        elif value < limit - self._deadband and self.in_alarm.value:
            self.in_alarm.set(False, time_ns)

    def _vet(self, _comment: Value) -> Detail | None:
        return Detail.ALARM_ACKED_ALREADY if self.acked.value else None

    def _acknowledge(self, _comment: Value) -> None:
        self.acked.set(True, self._clock.wall_ns())
