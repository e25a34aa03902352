"""Which fields of the server's events are requested, and the alarm that an event describes.

Source: OPC UA Part 9, 5.5 (ConditionType) to 5.8 (AlarmConditionType).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from asyncua import ua

from mxgw.convert import timestamp_from_datetime
from mxgw.v1 import alarms_pb2 as pb

from .texts import shown

_O = ua.ObjectIds
# The fields that are requested of each event, in this order. Each entry has the event type that defines the field, and
# the browse path of the field. The condition id is requested as the last field.
_FIELDS = (
    (_O.BaseEventType, "EventId"),
    (_O.BaseEventType, "EventType"),
    (_O.BaseEventType, "SourceNode"),
    (_O.BaseEventType, "SourceName"),
    (_O.BaseEventType, "Time"),
    (_O.BaseEventType, "Message"),
    (_O.BaseEventType, "Severity"),
    (_O.ConditionType, "ConditionName"),
    (_O.ConditionType, "BranchId"),
    (_O.ConditionType, "Retain"),
    (_O.ConditionType, "EnabledState/Id"),
    (_O.ConditionType, "Comment"),
    (_O.ConditionType, "ClientUserId"),
    (_O.AcknowledgeableConditionType, "AckedState/Id"),
    (_O.AlarmConditionType, "ActiveState/Id"),
    (_O.AlarmConditionType, "ActiveState/TransitionTime"),
)
_STATES = {
    (True, False): pb.ALARM_STATE_UNACK_ALM,
    (True, True): pb.ALARM_STATE_ACK_ALM,
    (False, False): pb.ALARM_STATE_UNACK_RTN,
    (False, True): pb.ALARM_STATE_ACK_RTN,
}


def alarm_of(alarm_id: str, fields: dict[str, Any], before: pb.Alarm | None) -> pb.Alarm:
    """Return the alarm that an event describes. `before` is the same alarm as of the event before."""
    active, acked = bool(fields["ActiveState/Id"]), fields.get("AckedState/Id") is not False
    # `Retain` false means that nobody needs to look at the condition. Some servers clear it when an alarm is
    # acknowledged although it is still active; then the alarm stays. A disabled condition is no alarm, whatever it was
    # before.
    is_over = fields.get("EnabledState/Id") is False or (fields.get("Retain") is False and not active)
    state = pb.ALARM_STATE_ACK_RTN if is_over else _STATES[active, acked]
    severity = fields.get("Severity") or 0
    source, name = _text(fields.get("SourceName")), _text(fields.get("ConditionName"))
    kind = fields.get("EventType")
    alarm = pb.Alarm(
        reference=f"{source}.{name}" if source and name else source or name or alarm_id,
        alarm_id=alarm_id,
        state=state,
        native_state=("Active" if active else "Inactive") + (", Acked" if acked else ", Unacked"),
        # The most severe alarm has severity 1000 in OPC UA, and priority 1 in MXAccess.
        priority=min(max(1000 - severity, 1), 999),
        raw_priority=severity,
        alarm_type=_type_name(kind),
        description=_text(fields.get("Message")),
        operator=_text(fields.get("ClientUserId")) if acked else "",
        comment=_text(fields.get("Comment")) if acked else "",
    )
    now = _moment(fields.get("Time"))
    changed = _moment(fields.get("ActiveState/TransitionTime")) or now
    if active and changed is not None:
        alarm.raise_time.CopyFrom(timestamp_from_datetime(changed))
    elif before is not None and before.HasField("raise_time"):
        alarm.raise_time.CopyFrom(before.raise_time)
    if not active and changed is not None:
        alarm.clear_time.CopyFrom(timestamp_from_datetime(changed))
    if acked and before is not None and before.HasField("ack_time"):
        alarm.ack_time.CopyFrom(before.ack_time)
    elif acked and before is not None and now is not None:
        alarm.ack_time.CopyFrom(timestamp_from_datetime(now))
    return alarm


def fields_of(event: Any) -> dict[str, Any]:
    """Return the values of an event by the names of their fields, with the id of its condition as `ConditionId`."""
    names = [path for _, path in _FIELDS]
    return dict(zip([*names, "ConditionId"], [field.Value for field in event.EventFields], strict=False))


def select_clauses() -> list[ua.SimpleAttributeOperand]:
    """Return what to request of each event, for `fields_of`."""
    clauses = []
    for kind, path in _FIELDS:
        clause = ua.SimpleAttributeOperand()
        clause.TypeDefinitionId = ua.NodeId(kind)
        clause.BrowsePath = [ua.QualifiedName(name, 0) for name in path.split("/")]
        clause.AttributeId = ua.AttributeIds.Value
        clauses.append(clause)
    condition_id = ua.SimpleAttributeOperand()
    condition_id.TypeDefinitionId = ua.NodeId(_O.ConditionType)
    condition_id.AttributeId = ua.AttributeIds.NodeId
    return [*clauses, condition_id]


def _type_name(kind: object) -> str:
    if not isinstance(kind, ua.NodeId):
        return ""
    number = kind.Identifier if kind.NamespaceIndex == 0 else None
    return str(ua.ObjectIdNames.get(number, "")) or shown(kind.to_string())


def _text(value: object) -> str:
    if isinstance(value, ua.LocalizedText):
        return shown(value.Text)
    return shown(value) if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
