"""A double of the alarm manager's COM object in Python: the alarms of the simulator as records in XML.

What is known of the object: docs/reference/mxaccess.md#alarm-consumer. Names of elements other than GUID, DATE and TIME
are unconfirmed, as is everything that this double does beyond those facts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from xml.etree import ElementTree

from mxgw.convert import from_value
from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.base import E_FAIL, E_NOTIMPL, MxError
from mxgw_worker.backends.mxaccess import errors
from mxgw_worker.backends.mxaccess.alarms.consumer import Use

REFUSED = -55
_ACKNOWLEDGED = (pb.ALARM_STATE_ACK_ALM, pb.ALARM_STATE_ACK_RTN)


class Plant(Protocol):
    """Has the alarms."""

    def active_alarms(self) -> Sequence[pb.Alarm]:
        """Return all active alarms, and those that ended lately."""

    def acknowledge_alarm(self, alarm_id: str, comment: str, operator: str) -> None:
        """Acknowledge one."""


class AlarmManagerDouble:
    """What all consumers of one test share. `is_missing`: there is no such class on this machine; `is_down`: every call
    fails. While `hang` is clear, calls do not return. `answer` replaces the XML.
    """

    def __init__(self, in_plant: Callable[[Callable[[], Any]], Any], plant: Callable[[], Plant | None]) -> None:
        self.is_missing = False
        self.is_down = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.answer: str | None = None
        self.consumers: list[ConsumerDouble] = []
        self._in_plant = in_plant
        self._plant = plant

    def consumer(self, use: Use) -> ConsumerDouble:
        """Make a consumer, as `MakeConsumer` does."""
        if self.is_missing:
            raise MxError(E_NOTIMPL, errors.NO_CONSUMER)
        made = ConsumerDouble(self, use)
        self.consumers.append(made)
        return made

    def of(self, use: Use) -> list[ConsumerDouble]:
        """Return the consumers that were made for this use."""
        return [consumer for consumer in self.consumers if consumer.use is use]

    def alarms(self) -> Sequence[pb.Alarm]:
        """Return the alarms of the plant."""
        plant = self._plant()
        assert plant is not None
        listed: Sequence[pb.Alarm] = self._in_plant(plant.active_alarms)
        return listed

    def acknowledge(self, name: str, comment: str, operator: str) -> int:
        """Acknowledge an alarm by its name, and return the code of the call."""
        plant = self._plant()
        assert plant is not None
        found = [alarm for alarm in self.alarms() if alarm.reference == name]
        if not found:
            return REFUSED
        self._in_plant(lambda: plant.acknowledge_alarm(found[0].alarm_id, comment, operator))
        return 0

    def pause(self) -> None:
        """Hang while the test wants it, and fail while the alarm manager is down."""
        self.go_on.wait()
        if self.is_down:
            raise MxError(E_FAIL, errors.of_call("GetXmlCurrentAlarms2", E_FAIL, ""))


class ConsumerDouble:
    """Implements `AlarmConsumer`. `calls` has the names of its calls, in order."""

    def __init__(self, manager: AlarmManagerDouble, use: Use) -> None:
        self.use = use
        self.calls: list[str] = []
        self.query = ""
        self.subscription: tuple[object, ...] = ()
        self.acknowledged: list[Sequence[str]] = []
        self._manager = manager
        self._thread = threading.get_ident()

    def _called(self, method: str, *after: str) -> None:
        assert self._thread == threading.get_ident(), "called outside of the apartment"
        assert "release" not in self.calls
        if missing := set(after) - set(self.calls):
            raise MxError(E_FAIL, f"{method} before {', '.join(sorted(missing))}")
        self.calls.append(method)

    def initialize(self, application: str) -> int:
        self._called("initialize")
        assert application
        return 0

    def register(self, product: str, application: str, version: str) -> int:
        self._called("register", "initialize")
        assert product
        assert application
        assert version
        return 0

    def subscribe(self, expression: str, from_priority: int, to_priority: int, flags: Sequence[int]) -> int:
        self._called("subscribe", "initialize", "register")
        self.subscription = (expression, from_priority, to_priority, *flags)
        return 0

    def set_query(self, xml: str) -> int:
        self._called("set_query", "initialize", "register")
        assert ElementTree.fromstring(xml).tag == "QUERIES"
        self.query = xml
        return 0

    def current_alarms(self, most: int) -> str:
        self._called("current_alarms", "initialize", "register", "set_query")
        self._manager.pause()
        if self._manager.answer is not None:
            return self._manager.answer
        return records_xml(self._manager.alarms()[:most])

    def acknowledge(self, arguments: Sequence[str]) -> int:
        self._called("acknowledge")
        self._manager.pause()
        if self.query or not self.subscription or len(arguments) != 6:
            return REFUSED
        self.acknowledged.append(tuple(arguments))
        name, _provider, _group, comment, operator, _node = arguments
        return self._manager.acknowledge(name, comment, operator)

    def date_of(self, text: str) -> float:
        raise ValueError(text)

    def release(self) -> None:
        self._called("release")


def records_xml(alarms: Sequence[pb.Alarm]) -> str:
    """Return alarms as the alarm manager's records."""
    root = ElementTree.Element("ALARM_RECORDS", COUNT=str(len(alarms)))
    for alarm in alarms:
        one = ElementTree.SubElement(root, "ALARM")
        for name, text in record_of(alarm).items():
            ElementTree.SubElement(one, name).text = text
    return '<?xml version="1.0" encoding="UTF-16"?>' + ElementTree.tostring(root, encoding="unicode")


def record_of(alarm: pb.Alarm) -> dict[str, str]:
    """Return the record of an alarm. Its time is that of the last step."""
    times = [time.ToNanoseconds() for time in (alarm.raise_time, alarm.ack_time, alarm.clear_time)]
    last = datetime.fromtimestamp(max(times) // 1_000_000 / 1000, UTC)
    return {
        "GUID": alarm.alarm_id.replace("-", "").upper(),
        "DATE": f"{last.year}/{last.month}/{last.day}",
        "TIME": f"{last:%H:%M:%S}.{last.microsecond // 1000:03}",
        "GMTOFFSET": "0",
        "DSTADJUST": "0",
        "PROVIDER": "Galaxy",
        "GROUP": alarm.area,
        "TAGNAME": alarm.reference,
        "TYPE": alarm.alarm_type,
        "VALUE": _text(alarm.value) if alarm.HasField("value") else "",
        "LIMIT": _text(alarm.limit) if alarm.HasField("limit") else "",
        "PRIORITY": str(alarm.priority),
        "STATE": alarm.native_state,
        "OPERATOR": alarm.operator,
        "COMMENT": alarm.comment if alarm.state in _ACKNOWLEDGED else alarm.description,
    }


def _text(value: Any) -> str:
    return str(from_value(value))
