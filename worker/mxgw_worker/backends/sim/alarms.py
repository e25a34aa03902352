"""Alarms of attributes. A client can read them in two ways: as sub-attributes, and as records of the alarm manager.

Source: docs/reference/mxaccess.md#references, #alarms.

`<Attribute>.InAlarm`, `.Acked` and `.Priority` always agree with the records. An alarm is acknowledged by writing a
comment to `<Attribute>.AckMsg`, or through the alarm manager. Its states are UNACK_ALM, ACK_ALM, UNACK_RTN and ACK_RTN.
Every new alarm must be acknowledged, even when its condition has already ended by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import NAMESPACE_OID, uuid5

from mxgw.convert import timestamp_from_ns, to_value
from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, AlarmAck, MxError
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.galaxy import Galaxy, SimObject
from mxgw_worker.backends.sim.items import Attribute
from mxgw_worker.backends.sim.status import DataType, Detail, Security
from mxgw_worker.backends.sim.timers import Clock

MOST_SEVERE, LEAST_SEVERE = 1, 999


class AlarmPoint:
    """One alarm of one attribute. Only `raise_`, `clear` and `acknowledge` change it."""

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
        sim_object.parts.append(self)

    @property
    def state(self) -> pb.AlarmState.ValueType:
        if self.in_alarm.value:
            return pb.ALARM_STATE_ACK_ALM if self.acked.value else pb.ALARM_STATE_UNACK_ALM
        return pb.ALARM_STATE_ACK_RTN if self.acked.value else pb.ALARM_STATE_UNACK_RTN

    @property
    def ended_ns(self) -> int:
        """The time of the last acknowledgement or return to normal (ns since 1970, UTC); 0 when there was none since
        the alarm was raised. For an alarm that has ended, this is the time of its end.
        """
        return max(self._acked_ns, self._cleared_ns)

    def raise_(self, time_ns: int) -> None:
        """Start the alarm, unless the point is in alarm already."""
        if self.in_alarm.value:
            return
        # An alarm that was cleared without acknowledgement keeps its id when it is raised again.
        if self.acked.value:
            self.alarm_id = str(uuid5(NAMESPACE_OID, f"{self.attribute.reference} {time_ns}"))
        self._raised_ns, self._acked_ns, self._cleared_ns = time_ns, 0, 0
        self._operator = self._comment = ""
        self._raised_value = self.attribute.value
        self._record = None
        self.acked.set(False, time_ns)
        self.in_alarm.set(True, time_ns)

    def clear(self, time_ns: int) -> None:
        """Return to normal, unless the point is normal already."""
        if self.in_alarm.value:
            self._cleared_ns, self._record = time_ns, None
            self.in_alarm.set(False, time_ns)

    def acknowledge(self, comment: str, operator: str) -> Detail | None:
        """Acknowledge the alarm. Return None, or the detail that says why this is not possible."""
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
        """Return the alarm manager's record of this alarm. It is the same object until the alarm changes."""
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
    """An alarm that starts when the attribute rises above its limit. It ends when the attribute falls below the limit
    minus the deadband.
    """

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
        assert isinstance(value, int | float) and isinstance(limit, int | float)  # noqa: PT018 - both are created as numbers
        if value > limit:
            self.raise_(time_ns)
        elif value < limit - self._deadband:
            self.clear(time_ns)


# How long an alarm stays in the list after it has ended, so that a client that polls learns who acknowledged it.
SHOWN_AFTER_END_NS = 10_000_000_000


class AlarmManager:
    """The simulated alarm manager. It does not report by itself, but has to be polled. It knows all alarm points of a
    galaxy by their ids. While `is_down` is true, every call fails. The sub-attributes of the alarms, such as
    `<Attribute>.InAlarm`, still work.
    """

    def __init__(self, galaxy: Galaxy, clock: Clock) -> None:
        self.is_down = False
        self._clock = clock
        self._points: Sequence[AlarmPoint] = [
            part for sim_object in galaxy.objects() for part in sim_object.parts if isinstance(part, AlarmPoint)
        ]

    def active(self) -> Sequence[pb.Alarm]:
        """Return every active alarm, and the alarms that ended a short time ago. An alarm is active until it is both
        back to normal and acknowledged.

        Raises:
            MxError: the alarm manager is down.
        """
        self._check()
        ended_after_ns = self._clock.wall_ns() - SHOWN_AFTER_END_NS
        return [
            point.record()
            for point in self._points
            if point.in_alarm.value or not point.acked.value or point.ended_ns > ended_after_ns
        ]

    def acknowledge(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """Acknowledge alarms, and return one result per alarm.

        Raises:
            MxError: the alarm manager is down.
        """
        self._check()
        by_id = {point.alarm_id: point for point in self._points if point.alarm_id}
        return [_acknowledged(by_id.get(alarm_id), comment, operator) for alarm_id in alarm_ids]

    def _check(self) -> None:
        if self.is_down:
            raise MxError(E_FAIL, "the simulated alarm manager is down; Sim.AlarmManagerDown brings it back")


def _acknowledged(point: AlarmPoint | None, comment: str, operator: str) -> AlarmAck:
    if point is None:
        return AlarmAck(E_INVALIDARG, "there is no alarm of this id")
    if point.acknowledge(comment, operator) is not None:
        return AlarmAck(E_FAIL, "the alarm is acknowledged already", Detail.ALARM_ACKED_ALREADY)
    return AlarmAck()
