"""The simulated alarm manager: has to be asked, knows every alarm by its id, and can be made to fail."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, AlarmAck, MxError
from mxgw_worker.backends.sim.alarms import AlarmPoint
from mxgw_worker.backends.sim.clock import Clock
from mxgw_worker.backends.sim.galaxy import Galaxy
from mxgw_worker.backends.sim.status import Detail

# An alarm that is over is shown for so long, so that whoever asks now and then learns who acknowledged it.
SHOWN_AFTER_END_NS = 10_000_000_000


class AlarmManager:
    """All alarm points of a galaxy. `is_down` makes every call fail, while sub-attributes go on telling the truth."""

    def __init__(self, galaxy: Galaxy, clock: Clock) -> None:
        self.is_down = False
        self._clock = clock
        self._points: Sequence[AlarmPoint] = [alarm for holder in galaxy.objects() for alarm in holder.alarms]

    def active(self) -> Sequence[pb.Alarm]:
        """Return every alarm that is not back to normal and acknowledged, and those that have become so lately.

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
        """Acknowledge alarms, one result each.

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
