"""Alarms of attributes, seen in two ways: through sub-attributes, and as records of an alarm manager.

Source: docs/reference/mxaccess.md#references, #alarms.

`<Attribute>.InAlarm`, `.Acked` and `.Priority` tell the same truth as the records. Writing a comment to
`<Attribute>.AckMsg` acknowledges, and so does the alarm manager. States are UNACK_ALM, ACK_ALM, UNACK_RTN and ACK_RTN:
each new alarm must be acknowledged, even one that has passed by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import NAMESPACE_OID, uuid5

from mxgw.convert import timestamp_from_ns, to_value
from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.sim.attributes import Attribute
from mxgw_worker.backends.sim.clock import Clock
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.galaxy import SimObject
from mxgw_worker.backends.sim.status import DataType, Detail, Security

MOST_SEVERE, LEAST_SEVERE = 1, 999


class AlarmPoint:
    """One alarm of one attribute. It changes through `raise_`, `clear` and `acknowledge` only."""

    def __init__(
        self,
        sim_object: SimObject,
        attribute: Attribute,
        clock: Clock,
        *,
        priority: int,
        alarm_type: str,
        limit: Callable[[], Value] = lambda: None,
    ) -> None:
        name = attribute.name
        self.attribute = attribute
        self._clock = clock
        self._alarm_type = alarm_type
        self._limit_of = limit
        self._area = sim_object.parent
        self.in_alarm = sim_object.add(f"{name}.InAlarm", DataType.BOOLEAN, False, f"{name} is above its limit")
        self.acked = sim_object.add(
            f"{name}.Acked", DataType.BOOLEAN, True, f"The last alarm of {name} is acknowledged"
        )
        message = sim_object.add_writeable(
            f"{name}.AckMsg", DataType.STRING, "", f"Write a comment to acknowledge the alarm of {name}"
        )
        self._priority = sim_object.add(
            f"{name}.Priority", DataType.INTEGER, priority, "1 is the most severe, 999 the least"
        )
        message.acknowledges = True
        message.vet = self._vet
        message.written = self._commented
        self._raised_ns = self._acked_ns = self._cleared_ns = 0
        self._raised_value: Value = None
        self.alarm_id = ""
        self._operator = self._comment = ""
        self._record: pb.Alarm | None = None
        sim_object.alarms.append(self)

    @property
    def state(self) -> pb.AlarmState.ValueType:
        if self.in_alarm.value:
            return pb.ALARM_STATE_ACK_ALM if self.acked.value else pb.ALARM_STATE_UNACK_ALM
        return pb.ALARM_STATE_ACK_RTN if self.acked.value else pb.ALARM_STATE_UNACK_RTN

    @property
    def ended_ns(self) -> int:
        """When the last occurrence was over, by its last step; 0 before there was one."""
        return max(self._acked_ns, self._cleared_ns)

    def raise_(self, time_ns: int) -> None:
        """Go into alarm; nothing when it is there already."""
        if self.in_alarm.value:
            return
        if self.acked.value:  # one that returns unacknowledged and is raised again stays the same occurrence
            self.alarm_id = str(uuid5(NAMESPACE_OID, f"{self.attribute.reference} {time_ns}"))
        self._raised_ns, self._acked_ns, self._cleared_ns = time_ns, 0, 0
        self._operator = self._comment = ""
        self._raised_value = self.attribute.value
        self._record = None
        self.acked.set(False, time_ns)
        self.in_alarm.set(True, time_ns)

    def clear(self, time_ns: int) -> None:
        """Return to normal; nothing when it is there already."""
        if self.in_alarm.value:
            self._cleared_ns, self._record = time_ns, None
            self.in_alarm.set(False, time_ns)

    def acknowledge(self, comment: str, operator: str) -> Detail | None:
        """Acknowledge; return what stands against it."""
        if self.acked.value:
            return Detail.ALARM_ACKED_ALREADY
        self._acked_ns = self._clock.wall_ns()
        self._operator, self._comment, self._record = operator, comment, None
        self.acked.set(True, self._acked_ns)
        return None

    def _vet(self, _comment: Value) -> Detail | None:
        return Detail.ALARM_ACKED_ALREADY if self.acked.value else None

    def _commented(self, comment: Value) -> None:
        self.acknowledge(str(comment), "")

    def record(self) -> pb.Alarm:
        """Return it as the alarm manager has it: the same object until something changes."""
        if self._record is None:
            priority, limit = self._priority.value, self._limit_of()
            assert isinstance(priority, int)
            self._record = record = pb.Alarm(
                reference=self.attribute.reference,
                alarm_id=self.alarm_id,
                state=self.state,
                native_state=pb.AlarmState.Name(self.state).removeprefix("ALARM_STATE_"),
                priority=priority,
                raw_priority=priority,
                area=self._area,
                alarm_type=self._alarm_type,
                description=self.attribute.description,
                raise_time=timestamp_from_ns(self._raised_ns),
                operator=self._operator,
                comment=self._comment,
            )
            if isinstance(self._raised_value, bool | int | float):
                record.value.CopyFrom(to_value(self._raised_value, self.attribute.data_type))
            if isinstance(limit, bool | int | float):
                record.limit.CopyFrom(to_value(limit, DataType.DOUBLE))
            if self._acked_ns:
                record.ack_time.CopyFrom(timestamp_from_ns(self._acked_ns))
            if self._cleared_ns:
                record.clear_time.CopyFrom(timestamp_from_ns(self._cleared_ns))
        return self._record


class LimitAlarm(AlarmPoint):
    """In alarm while the attribute is above its limit; leaves when it falls below the limit less the deadband."""

    def __init__(
        self, sim_object: SimObject, attribute: Attribute, clock: Clock, *, limit: float, deadband: float, priority: int
    ) -> None:
        super().__init__(
            sim_object, attribute, clock, priority=priority, alarm_type="Hi", limit=lambda: self._limit.value
        )
        self._deadband = deadband
        self._limit = sim_object.add_writeable(
            f"{attribute.name}.Limit",
            DataType.DOUBLE,
            limit,
            f"{attribute.name} above this is an alarm",
            security=Security.TUNE,
        )
        self._limit.written = lambda _limit: self._evaluate(clock.wall_ns())
        attribute.on_change = self._evaluate

    def _evaluate(self, time_ns: int) -> None:
        value, limit = self.attribute.value, self._limit.value
        assert isinstance(value, int | float) and isinstance(limit, int | float)  # noqa: PT018 - numbers by make
        if value > limit:
            self.raise_(time_ns)
        elif value < limit - self._deadband:
            self.clear(time_ns)
