"""Alarms of the simulator: believable lives, and two views of one truth."""

from __future__ import annotations

from mxgw.v1.alarms_pb2 import (
    ALARM_STATE_ACK_ALM,
    ALARM_STATE_ACK_RTN,
    ALARM_STATE_UNACK_ALM,
    ALARM_STATE_UNACK_RTN,
)

LEGAL = {
    ALARM_STATE_UNACK_ALM: {ALARM_STATE_ACK_ALM, ALARM_STATE_UNACK_RTN},
    ALARM_STATE_ACK_ALM: {ALARM_STATE_ACK_RTN},
    ALARM_STATE_UNACK_RTN: {ALARM_STATE_ACK_RTN, ALARM_STATE_UNACK_ALM},
    ALARM_STATE_ACK_RTN: {ALARM_STATE_UNACK_ALM},
}
