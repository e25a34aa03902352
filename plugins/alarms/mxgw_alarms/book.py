"""The book of active alarms: takes the records that a provider reports, and returns the events that result.

The book never waits and does not know about sessions. Its events have no sequence numbers yet. An alarm is identified
by its reference. The id that the source gives (`alarm_id`) identifies one occurrence of the alarm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mxgw.convert import timestamp_from_ns, timestamp_to_ns
from mxgw.v1 import alarms_pb2 as pb
from mxgw_alarms.states import (
    ACK_RTN,
    INACTIVE,
    RAISED,
    UPDATED,
    is_active,
    step,
)

# The handle of events that are not about an alarm; handles of alarms are greater.
NO_ALARM = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One active alarm.

    `encoded` is the encoded Alarm message without the flags `degraded` (the provider reports only state and priority)
    and `stale` (no provider sees the state). The flags can change for all alarms at once, so they are added when the
    message is sent.
    """

    handle: int
    alarm: pb.Alarm
    encoded: bytes = field(repr=False)


@dataclass(slots=True)
class Facts:
    """What filters need to know about an alarm; kept also when the alarm is no longer active."""

    reference: str
    area: str


class AlarmBook:
    """All active alarms. `now_ns` is the wall clock.

    Attributes:
        refused: how many alarms were left out because there were too many different ones.
    """

    def __init__(self, maximum_alarms: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._maximum = maximum_alarms
        self._now_ns = now_ns
        self._active: dict[str, Entry] = {}
        # The last result of `ordered`; None when an alarm has changed after that result was made.
        self._ordered: Sequence[Entry] | None = ()
        self._references: list[str] = []
        self._handles: dict[str, int] = {}
        # One entry for each alarm that was ever seen, in the order of the handles, which begin with NO_ALARM + 1.
        self._facts: list[Facts] = []
        # Key: reference of an alarm that has ended. Value: the alarm as it was last known. When the fallback
        # provider reports the alarm again, with only a state and a priority, the other fields are taken from here.
        self._last: dict[str, pb.Alarm] = {}
        self.refused = 0
        # Whether the fallback provider reports now. All alarms are then flagged as degraded, because this provider
        # reports only state and priority.
        self.is_degraded = False
        # Whether no provider reports now; then all alarms are stale.
        self.is_stale = True
        # References of active alarms that are stale, because the present provider does not watch them, or watches them
        # and cannot see their state now.
        self.unwatched: frozenset[str] = frozenset()

    # reading the book

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, reference: str) -> bool:
        return reference in self._active

    def get(self, reference: str) -> Entry | None:
        """Return the active alarm of this reference; None when no such alarm is active."""
        return self._active.get(reference)

    def entries(self) -> Sequence[Entry]:
        """Return the active alarms in no particular order."""
        return tuple(self._active.values())

    def ordered(self) -> Sequence[Entry]:
        """Return the active alarms, sorted by reference. All calls return the same object until an alarm changes."""
        if self._ordered is None:
            # The list of the last call is nearly sorted, and sorting a nearly sorted list is quick.
            known = [reference for reference in self._references if reference in self._active]
            self._references = [*known, *(self._active.keys() - set(known))]
            self._references.sort()
            self._ordered = [self._active[reference] for reference in self._references]
        return self._ordered

    def facts(self, handle: int) -> Facts:
        """Return the facts about the alarm that has this handle."""
        return self._facts[handle - NO_ALARM - 1]

    @property
    def references(self) -> Collection[str]:
        """The references of all alarms that were ever seen."""
        return self._handles.keys()

    def is_entry_stale(self, entry: Entry) -> bool:
        """Return whether no provider sees the state of this alarm now."""
        return self.is_stale or entry.alarm.reference in self.unwatched

    def shown(self, entry: Entry) -> pb.Alarm:
        """Return a copy of the alarm of an entry, and set its flags `degraded` and `stale` as they are now."""
        alarm = pb.Alarm()
        alarm.CopyFrom(entry.alarm)
        alarm.degraded, alarm.stale = self.is_degraded, self.is_entry_stale(entry)
        return alarm

    # processing the reports of a provider

    def apply(self, record: pb.Alarm, *, reconciled: bool = False) -> pb.AlarmEvent | None:
        """Update the book with one record; return the resulting event, or None when nothing changed.

        A record with the flag `degraded` has only a state and a priority. The other fields of the alarm keep their last
        known values, except those that describe an earlier occurrence of the alarm.
        """
        entry = self._active.get(record.reference)
        before = entry.alarm if entry is not None else None
        if before is not None and _is_older(record, before):
            return None
        if before is None and not is_active(record.state):
            return None
        handle = self._handle(record)
        if handle is None:
            return None
        kind = step(before.state if before is not None else INACTIVE, record.state)
        if before is not None and kind is not RAISED and _is_newer(record, before):
            kind = RAISED  # the alarm returned to normal and was raised again between two polls
        alarm = self._merged(record, before, raised=kind == RAISED) if record.degraded else record
        if kind is None and before is not None and before != alarm:
            kind = UPDATED
        if kind is None:
            return None
        if is_active(alarm.state):
            self._active[alarm.reference] = Entry(handle, alarm, alarm.SerializeToString())
        else:
            del self._active[alarm.reference]
        self._ordered = None
        if not is_active(alarm.state):
            self._last[alarm.reference] = alarm
        if alarm.reference in self.unwatched:
            self.unwatched -= {alarm.reference}
        return self._event(handle, kind, alarm, before, reconciled=reconciled)

    def reconcile(
        self, records: Iterable[pb.Alarm], *, watched: Collection[str] | None, degraded: bool
    ) -> Sequence[pb.AlarmEvent]:
        """Update the book with a complete report of a provider; return events for the differences.

        `watched` are the references that the provider watches; None means that the provider watches all alarms. A
        watched alarm that is not in `records` has ended. An alarm that is not watched stays active, and becomes stale.
        """
        self.is_degraded, self.is_stale = degraded, False
        self.unwatched = frozenset()
        shown: set[str] = set()
        events: list[pb.AlarmEvent] = []
        for record in sorted(records, key=_raised_ns):
            shown.add(record.reference)
            if (event := self.apply(record, reconciled=True)) is not None:
                events.append(event)
        left = [entry for reference, entry in self._active.items() if reference not in shown]
        events += [self._over(entry) for entry in left if watched is None or entry.alarm.reference in watched]
        self.unwatched = frozenset(reference for reference in self._active if reference not in shown)
        return events

    def unseen(self, references: Collection[str]) -> None:
        """Mark alarms as stale until the provider reports their state again."""
        self.unwatched = self.unwatched | {reference for reference in references if reference in self._active}

    def lost(self) -> None:
        """Mark all alarms as stale, because no provider reports any more."""
        self.is_stale = True

    # making events and alarms

    def _over(self, entry: Entry) -> pb.AlarmEvent:
        over = pb.Alarm()
        over.CopyFrom(entry.alarm)
        over.state, over.native_state, over.inferred = ACK_RTN, "", True
        del self._active[over.reference]
        self._ordered = None
        self._last[over.reference] = over
        kind = step(entry.alarm.state, ACK_RTN)
        assert kind is not None  # when an active alarm ends, this is always reported as an event
        return self._event(entry.handle, kind, over, entry.alarm, reconciled=True)

    def _event(
        self,
        handle: int,
        kind: pb.AlarmEventKind.ValueType,
        alarm: pb.Alarm,
        before: pb.Alarm | None,
        *,
        reconciled: bool,
    ) -> pb.AlarmEvent:
        event = pb.AlarmEvent(
            alarm_handle=handle,
            kind=kind,
            priority=alarm.priority,
            transition=pb.AlarmTransition(
                alarm=alarm,
                previous_state=before.state if before is not None else INACTIVE,
                gateway_time=timestamp_from_ns(self._now_ns()),
                reconciled=reconciled,
            ),
        )
        event.transition.alarm.degraded = self.is_degraded
        return event

    def _handle(self, record: pb.Alarm) -> int | None:
        handle = self._handles.get(record.reference)
        if handle is not None:
            facts = self.facts(handle)
            if record.area and facts.area != record.area:
                facts.area = record.area
            return handle
        if len(self._facts) >= self._maximum:
            self.refused += 1
            return None
        self._facts.append(Facts(record.reference, record.area))
        handle = self._handles[record.reference] = NO_ALARM + len(self._facts)
        return handle

    def _merged(self, record: pb.Alarm, before: pb.Alarm | None, *, raised: bool) -> pb.Alarm:
        """Return the alarm for a record that has only a state and a priority; other fields are as last known."""
        alarm = pb.Alarm()
        known = before or self._last.get(record.reference)
        if known is not None:
            alarm.CopyFrom(known)
        if raised:
            # The record is about a new occurrence, so the fields that belong to the previous occurrence are cleared.
            for name in ("value", "raise_time", "ack_time", "clear_time", "operator", "comment", "inferred"):
                alarm.ClearField(name)
            alarm.alarm_id = record.alarm_id
        if before is None or alarm.state != record.state:
            alarm.state, alarm.native_state = record.state, ""
        alarm.reference = record.reference
        if record.priority:
            alarm.priority = alarm.raw_priority = record.priority
        return alarm


def _raised_ns(alarm: pb.Alarm) -> int:
    return timestamp_to_ns(alarm.raise_time) if alarm.HasField("raise_time") else 0


def _is_older(record: pb.Alarm, known: pb.Alarm) -> bool:
    """Return whether `record` is about an earlier occurrence of the alarm than `known`."""
    if record.degraded or record.alarm_id == known.alarm_id or not known.HasField("raise_time"):
        return False
    return record.HasField("raise_time") and _raised_ns(record) < _raised_ns(known)


def _is_newer(record: pb.Alarm, known: pb.Alarm) -> bool:
    """Return whether `record` is about an active alarm that was raised later than `known`."""
    if record.degraded or not (record.HasField("raise_time") and known.HasField("raise_time")):
        return False
    return is_active(record.state) and _raised_ns(record) > _raised_ns(known)
