"""The states of an alarm, and the kind of event that a change of state results in.

A raised alarm is in the state UNACK_ALM. It is then acknowledged (ACK_ALM) or cleared (UNACK_RTN). An alarm that is
both acknowledged and cleared (ACK_RTN) is no longer active. A cleared alarm can be raised again. A provider reports
states and not transitions, so several changes can lie between two reports.
Source: docs/reference/mxaccess.md#alarm-states.
"""

from __future__ import annotations

from mxgw.v1 import alarms_pb2 as pb

UNACK_ALM, ACK_ALM = pb.ALARM_STATE_UNACK_ALM, pb.ALARM_STATE_ACK_ALM
UNACK_RTN, ACK_RTN = pb.ALARM_STATE_UNACK_RTN, pb.ALARM_STATE_ACK_RTN
# The previous state that an event reports when the alarm was not active before.
INACTIVE = pb.ALARM_STATE_UNSPECIFIED

RAISED, ACKNOWLEDGED = pb.ALARM_EVENT_KIND_RAISED, pb.ALARM_EVENT_KIND_ACKNOWLEDGED
CLEARED, UPDATED = pb.ALARM_EVENT_KIND_CLEARED, pb.ALARM_EVENT_KIND_UPDATED

_IN_ALARM = frozenset({UNACK_ALM, ACK_ALM})
_UNACKNOWLEDGED = frozenset({UNACK_ALM, UNACK_RTN})


def state_of(*, in_alarm: bool, acknowledged: bool) -> pb.AlarmState.ValueType:
    """Return the state of an alarm that has these two flags."""
    if in_alarm:
        return ACK_ALM if acknowledged else UNACK_ALM
    return ACK_RTN if acknowledged else UNACK_RTN


def is_active(state: pb.AlarmState.ValueType) -> bool:
    """Return whether an alarm in this state is active: in alarm, or not acknowledged."""
    return state in _IN_ALARM or state in _UNACKNOWLEDGED


def step(before: pb.AlarmState.ValueType, after: pb.AlarmState.ValueType) -> pb.AlarmEventKind.ValueType | None:
    """Return the kind of event between two reported states of one alarm; None when nothing happened.

    When several changes happened, the most important one is returned: a raise is more important than a clear, and a
    clear is more important than an acknowledgement. An acknowledged alarm that is now unacknowledged was raised again.
    """
    if not is_active(before) and not is_active(after):
        return None
    if (after in _IN_ALARM and before not in _IN_ALARM) or (after in _UNACKNOWLEDGED and before not in _UNACKNOWLEDGED):
        return RAISED
    if before in _IN_ALARM and after not in _IN_ALARM:
        return CLEARED
    return ACKNOWLEDGED if before in _UNACKNOWLEDGED and after not in _UNACKNOWLEDGED else None
