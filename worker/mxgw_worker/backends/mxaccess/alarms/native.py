"""A record of the alarm manager by its meaning.

DATE, TIME, GUID and the four states are known; the other names of elements are those that are most probable, and an
option gives others (docs/reference/mxaccess.md#alarm-records).
"""

from __future__ import annotations

from dataclasses import dataclass

from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions
from mxgw_worker.backends.mxaccess.alarms.records import Record
from mxgw_worker.backends.mxaccess.alarms.times import RecordTimes

# Key: field. Value: names of its element without underscores, the first that a record has counts.
_ELEMENTS = {
    "id": ("GUID", "ALARMGUID"),
    "name": ("TAGNAME", "NAME", "ALARMNAME"),
    "state": ("STATE", "ALARMSTATE"),
    "date": ("DATE",),
    "time": ("TIME",),
    "offset": ("GMTOFFSET",),
    "daylight": ("DSTADJUST",),
    "priority": ("PRIORITY",),
    "group": ("GROUP", "GROUPNAME", "AREA"),
    "provider": ("PROVIDER", "PROVIDERNAME"),
    "type": ("TYPE", "ALARMTYPE"),
    "value": ("VALUE", "ALARMVALUE"),
    "limit": ("LIMIT", "CHECKVALUE", "ALARMLIMIT"),
    "comment": ("COMMENT", "ALARMCOMMENT"),
    "description": ("DESCRIPTION", "ALARMDESCRIPTION"),
    "operator": ("OPERATOR", "OPERATORNAME"),
}


@dataclass(frozen=True, slots=True)
class NativeAlarm:
    """What one record says. Texts are "" and numbers are None when it does not say it.

    `time_ns` is in nanoseconds since 1970 (UTC).
    """

    id: str
    name: str
    state: pb.AlarmState.ValueType
    native_state: str
    time_ns: int | None
    priority: int | None
    group: str
    provider: str
    type: str
    value: str
    limit: str
    comment: str
    description: str
    operator: str


class RecordReader:
    """Reads records by the names of their elements."""

    def __init__(self, options: AlarmOptions, times: RecordTimes) -> None:
        self._times = times
        self._names = {
            field: tuple(
                name.replace("_", "")
                for name in ((options.element_of(field).upper(),) if options.element_of(field) else usual)
            )
            for field, usual in _ELEMENTS.items()
        }

    def read(self, record: Record) -> NativeAlarm | None:
        """Return what a record says; None when it has no name, or no state of an alarm."""
        plain = {name.replace("_", ""): text for name, text in record.items()}
        fields = {
            field: next((plain[name] for name in names if plain.get(name)), "") for field, names in self._names.items()
        }
        state = state_of(fields["state"])
        if state == pb.ALARM_STATE_UNSPECIFIED or not fields["name"]:
            return None
        return NativeAlarm(
            # Without an id of its own, an alarm is known by its name.
            id=fields["id"] or f"name:{fields['name']}",
            name=fields["name"],
            state=state,
            native_state=fields["state"],
            time_ns=self._times.ns(fields["date"], fields["time"], fields["offset"], fields["daylight"]),
            priority=_whole(fields["priority"]),
            group=fields["group"],
            provider=fields["provider"],
            type=fields["type"],
            value=fields["value"],
            limit=fields["limit"],
            comment=fields["comment"],
            description=fields["description"],
            operator=fields["operator"],
        )


def state_of(text: str) -> pb.AlarmState.ValueType:
    """Return the state that a text names. UNACK and ACK alone mean an alarm that has not returned.

    Source: docs/reference/mxaccess.md#alarm-states.
    """
    state = text.strip().upper().replace("-", "_").replace(" ", "_")
    match state.partition("_"):
        case "UNACK", _, "" | "ALM":
            return pb.ALARM_STATE_UNACK_ALM
        case "ACK", _, "" | "ALM":
            return pb.ALARM_STATE_ACK_ALM
        case "UNACK", _, "RTN":
            return pb.ALARM_STATE_UNACK_RTN
        case "ACK", _, "RTN":
            return pb.ALARM_STATE_ACK_RTN
    return pb.ALARM_STATE_UNSPECIFIED


def _whole(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -(2**31) <= number < 2**31 else None
