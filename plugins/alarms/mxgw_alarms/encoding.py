"""Encodes alarms and their events. The bytes of an event batch, and of each alarm, are the same for all subscribers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mxgw.v1 import alarms_pb2 as pb
from mxgw.v1.alarm_service_pb2 import StreamAlarmsResponse
from mxgw.v1.events_pb2 import Position
from mxgw_alarms.book import Entry
from mxgw_core.api import FeedFilter
from mxgw_core.api.slices import NAMES_AT_ONCE

# The flags `degraded` and `stale` of an Alarm in encoded form: a tag of two bytes, then the value true. The fields of
# an encoded message can be in any order, so a flag is set by appending these bytes to the encoded Alarm.
_DEGRADED = bytes([pb.Alarm.DEGRADED_FIELD_NUMBER << 3 & 0x7F | 0x80, pb.Alarm.DEGRADED_FIELD_NUMBER >> 4, 1])
_STALE = bytes([pb.Alarm.STALE_FIELD_NUMBER << 3 & 0x7F | 0x80, pb.Alarm.STALE_FIELD_NUMBER >> 4, 1])
_SNAPSHOT_TAG = bytes([StreamAlarmsResponse.SNAPSHOT_FIELD_NUMBER << 3 | 2])
_ALARMS_TAG = bytes([pb.AlarmSnapshot.ALARMS_FIELD_NUMBER << 3 | 2])
_POSITION_TAG = bytes([pb.AlarmSnapshot.POSITION_FIELD_NUMBER << 3 | 2])
_HANDLE_TAG = bytes([pb.ActiveAlarm.ALARM_HANDLE_FIELD_NUMBER << 3 | 1])
_ALARM_TAG = bytes([pb.ActiveAlarm.ALARM_FIELD_NUMBER << 3 | 2])


def batch_of(events: Sequence[pb.AlarmEvent], head: int) -> bytes:
    """Give the events sequence numbers from `head + 1` on, and return them as an encoded AlarmBatch."""
    for sequence, event in enumerate(events, head + 1):
        event.sequence = sequence
    return pb.AlarmBatch(events=events).SerializeToString()


@dataclass(frozen=True, slots=True)
class AlarmsTaken:
    """The active alarms at one moment; implements `FeedSnapshot`.

    `is_degraded` and `is_stale` apply to all entries. `stale` has the references of single alarms that are stale even
    when `is_stale` is False.
    """

    epoch: bytes
    sequence: int
    entries: Sequence[Entry]
    is_degraded: bool
    is_stale: bool
    stale: frozenset[str]
    provider: pb.ProviderStatus

    def frames(self, filters: Sequence[FeedFilter], limit_bytes: int) -> Iterator[bytes]:
        position = Position(epoch=self.epoch, sequence=self.sequence)
        encoded_position = position.SerializeToString()
        head = _POSITION_TAG + _varint(len(encoded_position)) + encoded_position
        parts, size = [head], len(head)
        for number, entry in enumerate(self.entries):
            if filters and number and number % NAMES_AT_ONCE == 0:
                yield b""
            if not all(f.keep(entry.handle, entry.alarm.priority, pb.ALARM_EVENT_KIND_RAISED) for f in filters):
                continue
            part = self._encoded(entry)
            if len(parts) > 1 and size + len(part) > limit_bytes:
                yield _framed(parts, size)
                parts, size = [head], len(head)
            parts.append(part)
            size += len(part)
        if len(parts) > 1:
            yield _framed(parts, size)
        yield StreamAlarmsResponse(
            snapshot_complete=pb.AlarmSnapshotComplete(position=position, provider=self.provider)
        ).SerializeToString()

    def _encoded(self, entry: Entry) -> bytes:
        alarm = entry.encoded
        if self.is_degraded:
            alarm += _DEGRADED
        if self.is_stale or (self.stale and entry.alarm.reference in self.stale):
            alarm += _STALE
        active = b"".join((_HANDLE_TAG, entry.handle.to_bytes(8, "little"), _ALARM_TAG, _varint(len(alarm)), alarm))
        return b"".join((_ALARMS_TAG, _varint(len(active)), active))


def _framed(parts: Sequence[bytes], size: int) -> bytes:
    return b"".join((_SNAPSHOT_TAG, _varint(size), *parts))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
