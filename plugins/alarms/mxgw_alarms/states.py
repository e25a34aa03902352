"""The states of an alarm, and which event a change from one state to another is.

none -> UNACK_ALM -> ACK_ALM or UNACK_RTN -> ACK_RTN; an alarm that returned to normal may be raised again. A provider
reports states, not transitions: between two reports several things may have happened. Source:
docs/reference/mxaccess.md#alarm-states.
"""

from __future__ import annotations

from mxgw.v1 import alarms_pb2 as pb

UNACK_ALM, ACK_ALM = pb.ALARM_STATE_UNACK_ALM, pb.ALARM_STATE_ACK_ALM
UNACK_RTN, ACK_RTN = pb.ALARM_STATE_UNACK_RTN, pb.ALARM_STATE_ACK_RTN
# The state of an alarm that is not active, for clients.
INACTIVE = pb.ALARM_STATE_UNSPECIFIED

RAISED, ACKNOWLEDGED = pb.ALARM_EVENT_KIND_RAISED, pb.ALARM_EVENT_KIND_ACKNOWLEDGED
CLEARED, UPDATED = pb.ALARM_EVENT_KIND_CLEARED, pb.ALARM_EVENT_KIND_UPDATED

_IN_ALARM = frozenset({UNACK_ALM, ACK_ALM})
_UNACKNOWLEDGED = frozenset({UNACK_ALM, UNACK_RTN})


def state_of(*, in_alarm: bool, acknowledged: bool) -> pb.AlarmState.ValueType:
    """Return the state for two flags."""
    if in_alarm:
        return ACK_ALM if acknowledged else UNACK_ALM
    return ACK_RTN if acknowledged else UNACK_RTN


def is_active(state: pb.AlarmState.ValueType) -> bool:
    """Return whether an alarm in this state is active: in alarm, or not acknowledged."""
    return state in _IN_ALARM or state in _UNACKNOWLEDGED


def step(before: pb.AlarmState.ValueType, after: pb.AlarmState.ValueType) -> pb.AlarmEventKind.ValueType | None:
    """Return what happened between two reports of one occurrence; None when nothing did.

    When several things happened, the most important one is returned: a raise before a clear before an acknowledgement.
    An alarm that is unacknowledged again was raised again, however briefly.
    """
    if not is_active(before) and not is_active(after):
        return None
    if (after in _IN_ALARM and before not in _IN_ALARM) or (after in _UNACKNOWLEDGED and before not in _UNACKNOWLEDGED):
        return RAISED
    if before in _IN_ALARM and after not in _IN_ALARM:
        return CLEARED
    return ACKNOWLEDGED if before in _UNACKNOWLEDGED and after not in _UNACKNOWLEDGED else None
