"""Makes the alarms of a backend of the alarm manager's records, and remembers what one record alone does not say.

A record has one time, that of its last change as far as is known (docs/reference/mxaccess.md#alarm-records). When the
alarm was raised, acknowledged and cleared is therefore known of the changes that were seen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import timestamp_from_ns, to_value
from mxgw.v1 import alarms_pb2 as pb
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_FAIL, MxError
from mxgw_worker.backends.mxaccess.alarms.native import NativeAlarm, RecordReader
from mxgw_worker.backends.mxaccess.alarms.options import HISTORY, AlarmOptions
from mxgw_worker.backends.mxaccess.alarms.query import LEAST_SEVERE, MOST_SEVERE
from mxgw_worker.backends.mxaccess.alarms.records import Record, UnreadableXml, parse_records

log = logging.getLogger(__name__)

_ACKNOWLEDGED = (pb.ALARM_STATE_ACK_ALM, pb.ALARM_STATE_ACK_RTN)
_RETURNED = (pb.ALARM_STATE_UNACK_RTN, pb.ALARM_STATE_ACK_RTN)
# So many names of elements are shown for people.
_SHOWN_NAMES = 40


class AlarmBook:
    """The alarms of one consumer. Used in the thread of its apartment only."""

    def __init__(self, options: AlarmOptions, reader: RecordReader) -> None:
        self._options = options
        self._reader = reader
        self._xml = ""
        self._listed: Sequence[pb.Alarm] = ()
        # Key: id. Value: what the last record said, and the alarm that was made of it.
        self._known: dict[str, tuple[NativeAlarm, pb.Alarm]] = {}
        self._has_warned = False

    def listed(self, xml: str) -> Sequence[pb.Alarm]:
        """Return every alarm of an answer. An alarm that has not changed is the same object as before.

        Raises:
            MxError: the answer cannot be read, or is not complete.
        """
        if xml == self._xml and self._listed:
            return self._listed
        try:
            records = parse_records(xml)
        except UnreadableXml as error:
            raise MxError(E_FAIL, f"the alarm manager's answer cannot be read: {error}") from None
        read = [native for record in records if (native := self._reader.read(record)) is not None]
        self._complain(records, len(read))
        newest = _newest(read)
        if self._options.display == HISTORY:
            # The answer is a log: an alarm that is not in it any more has not ended for that.
            going_on = {
                alarm_id: native
                for alarm_id, (native, _) in self._known.items()
                if native.state != pb.ALARM_STATE_ACK_RTN and alarm_id not in newest
            }
            newest = {**going_on, **newest}
        elif len(records) >= self._options.most:
            raise MxError(
                E_FAIL,
                f"the alarm manager lists {len(records)} alarms, as many as it may (alarm_most): there can be more, and"
                " which of them have ended is not known. Raise alarm_most",
            )
        self._known = {alarm_id: (native, self._message(native)) for alarm_id, native in newest.items()}
        self._xml, self._listed = xml, [alarm for _, alarm in self._known.values()]
        return self._listed

    def native(self, alarm_id: str) -> NativeAlarm | None:
        """Return what the last record of an alarm said; None when there is no such alarm."""
        known = self._known.get(alarm_id)
        return None if known is None else known[0]

    def _complain(self, records: Sequence[Record], readable: int) -> None:
        """Say once that records were left out; fail when none can be read."""
        if readable == len(records):
            return
        names = ", ".join(sorted({name for record in records for name in record})[:_SHOWN_NAMES])
        states = ", ".join(
            sorted({text[:40] for record in records for name, text in record.items() if "STATE" in name})
        )
        if not readable and self._options.display != HISTORY:
            raise MxError(
                E_FAIL,
                f"none of the alarm manager's {len(records)} records has a name and a state that are known. Their"
                f" elements: {names}; their states: {states or 'none'}. The option alarm_elements says which is which",
            )
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%d of the alarm manager's %d records were left out, because they have no name or no state of an alarm;"
                " elements: %s; states: %s",
                len(records) - readable,
                len(records),
                names,
                states,
            )

    def _message(self, native: NativeAlarm) -> pb.Alarm:
        was, before = self._known.get(native.id, (None, None))
        if was == native and before is not None:
            return before
        description, comment = native.description, native.comment
        if native.state not in _ACKNOWLEDGED and not description:
            # Before the acknowledgement this field holds the alarm's own comment, its description.
            description, comment = comment, ""
        priority = LEAST_SEVERE if native.priority is None else native.priority
        alarm = pb.Alarm(
            reference=native.name,
            alarm_id=native.id,
            state=native.state,
            native_state=native.native_state,
            priority=min(max(priority, MOST_SEVERE), LEAST_SEVERE),
            raw_priority=native.priority or 0,
            area=native.group,
            alarm_type=native.type,
            description=description or (before.description if before is not None else ""),
            operator=native.operator if native.state in _ACKNOWLEDGED else "",
            comment=comment,
        )
        for text, field in ((native.value, alarm.value), (native.limit, alarm.limit)):
            if text:
                field.CopyFrom(_value(text))
        _set_times(alarm, native, was, before)
        return alarm


def _newest(read: Iterable[NativeAlarm]) -> dict[str, NativeAlarm]:
    """Return the newest record of each alarm; of records of one time the last one."""
    newest: dict[str, NativeAlarm] = {}
    for native in read:
        other = newest.get(native.id)
        if other is None or (native.time_ns or 0) >= (other.time_ns or 0):
            newest[native.id] = native
    return newest


def _set_times(alarm: pb.Alarm, native: NativeAlarm, was: NativeAlarm | None, before: pb.Alarm | None) -> None:
    """Set the times that are known. The record has that of the step to its state; those of earlier steps were seen."""
    is_raised_anew = native.state == pb.ALARM_STATE_UNACK_ALM and was is not None and was.state != native.state
    if before is not None and not is_raised_anew:
        alarm.MergeFrom(pb.Alarm(raise_time=_of(before, "raise_time")))
        if native.state in _ACKNOWLEDGED:
            alarm.MergeFrom(pb.Alarm(ack_time=_of(before, "ack_time")))
        if native.state in _RETURNED:
            alarm.MergeFrom(pb.Alarm(clear_time=_of(before, "clear_time")))
    if native.time_ns is None:
        return
    if was is not None and was.state != native.state and was.time_ns == native.time_ns:
        return  # the record has kept the time of an earlier step
    time = timestamp_from_ns(native.time_ns)
    match native.state, was.state if was is not None else None:
        case pb.ALARM_STATE_UNACK_ALM, _:
            alarm.raise_time.CopyFrom(time)
        case pb.ALARM_STATE_ACK_ALM, _:
            alarm.ack_time.CopyFrom(time)
        case pb.ALARM_STATE_UNACK_RTN, _:
            alarm.clear_time.CopyFrom(time)
        case pb.ALARM_STATE_ACK_RTN, pb.ALARM_STATE_ACK_ALM:
            alarm.clear_time.CopyFrom(time)
        case pb.ALARM_STATE_ACK_RTN, pb.ALARM_STATE_UNACK_RTN:
            alarm.ack_time.CopyFrom(time)


def _of(alarm: pb.Alarm, name: str) -> Timestamp | None:
    return getattr(alarm, name) if alarm.HasField(name) else None  # type: ignore[arg-type]  # a field


def _value(text: str) -> MxValue:
    """Return a number or a truth where the text is one, as the simulator's alarms have them; otherwise the text."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return to_value(lowered == "true")
    try:
        number = float(text)
    except ValueError:
        return to_value(text)
    return to_value(number) if math.isfinite(number) and "_" not in text else to_value(text)
