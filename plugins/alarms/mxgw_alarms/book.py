"""The active alarms, as the present provider shows them, and the events that result when it shows them anew.

It neither waits nor knows about sessions: it takes records and returns events without numbers. An alarm is identified
by its reference; the id of the source identifies one occurrence of it.
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
    """One active alarm. `encoded` is its Alarm message without `degraded` and `stale`, which many alarms share."""

    handle: int
    alarm: pb.Alarm
    encoded: bytes = field(repr=False)


@dataclass(slots=True)
class Facts:
    """What filters need about an alarm, active or not."""

    reference: str
    area: str


class AlarmBook:
    """Every active alarm by reference. `now_ns` is wall clock.

    Attributes:
        refused: how many alarms were left out because there were too many different ones.
    """

    def __init__(self, maximum_alarms: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._maximum = maximum_alarms
        self._now_ns = now_ns
        self._active: dict[str, Entry] = {}
        # The result of `ordered`; None when an alarm has changed since.
        self._ordered: Sequence[Entry] | None = ()
        self._references: list[str] = []
        self._handles: dict[str, int] = {}
        # The facts of handle h are at index h - NO_ALARM - 1.
        self._facts: list[Facts] = []
        # The last native record of each alarm that is over, to complete degraded records.
        self._last: dict[str, pb.Alarm] = {}
        self.refused = 0
        # Whether the fallback reports, so that all alarms are degraded.
        self.is_degraded = False
        # Whether no provider reports, so that all alarms are stale.
        self.is_stale = True
        # References of active alarms that the present provider does not watch.
        self.unwatched: frozenset[str] = frozenset()

    # looking

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, reference: str) -> bool:
        return reference in self._active

    def get(self, reference: str) -> Entry | None:
        """Return an active alarm; None for any other reference."""
        return self._active.get(reference)

    def entries(self) -> Sequence[Entry]:
        """Return the active alarms in no particular order."""
        return tuple(self._active.values())

    def ordered(self) -> Sequence[Entry]:
        """Return the active alarms by reference; the same object as long as no alarm changes."""
        if self._ordered is None:
            # Sorting a nearly sorted list is quick.
            known = [reference for reference in self._references if reference in self._active]
            self._references = [*known, *(self._active.keys() - set(known))]
            self._references.sort()
            self._ordered = [self._active[reference] for reference in self._references]
        return self._ordered

    def facts(self, handle: int) -> Facts:
        """Return the facts about the alarm of a handle."""
        return self._facts[handle - NO_ALARM - 1]

    @property
    def references(self) -> Collection[str]:
        """The references of all alarms that were ever seen."""
        return self._handles.keys()

    def is_entry_stale(self, entry: Entry) -> bool:
        """Return whether no provider watches this alarm now."""
        return self.is_stale or entry.alarm.reference in self.unwatched

    def shown(self, entry: Entry) -> pb.Alarm:
        """Return the alarm of an entry, with the flags that are common to many alarms."""
        alarm = pb.Alarm()
        alarm.CopyFrom(entry.alarm)
        alarm.degraded, alarm.stale = self.is_degraded, self.is_entry_stale(entry)
        return alarm

    # what a provider says

    def apply(self, record: pb.Alarm, *, reconciled: bool = False) -> pb.AlarmEvent | None:
        """Take one record; return the resulting event, None when nothing changed.

        A degraded record has state and priority only; the other fields stay as they were known.
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
            kind = RAISED  # returned to normal and raised again between two polls
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
        """Take everything that a provider shows; return events for the differences.

        `watched` are the references that the provider watches, None for all. A watched alarm that it does not show is
        over; an alarm that it does not watch stays active and is stale.
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
        """Mark alarms as stale that the provider cannot see now, until it shows them again."""
        self.unwatched = self.unwatched | {reference for reference in references if reference in self._active}

    def lost(self) -> None:
        """Mark all alarms as stale, because no provider reports any more."""
        self.is_stale = True

    # details

    def _over(self, entry: Entry) -> pb.AlarmEvent:
        over = pb.Alarm()
        over.CopyFrom(entry.alarm)
        over.state, over.native_state, over.inferred = ACK_RTN, "", True
        del self._active[over.reference]
        self._ordered = None
        self._last[over.reference] = over
        kind = step(entry.alarm.state, ACK_RTN)
        assert kind is not None  # it was active
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
        """Return a degraded record, completed with what was known about the alarm."""
        alarm = pb.Alarm()
        known = before or self._last.get(record.reference)
        if known is not None:
            alarm.CopyFrom(known)
        if raised:
            # A new occurrence: clear the fields that belong to the previous one.
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
    """Whether a record is about an earlier occurrence than the known one."""
    if record.degraded or record.alarm_id == known.alarm_id or not known.HasField("raise_time"):
        return False
    return record.HasField("raise_time") and _raised_ns(record) < _raised_ns(known)


def _is_newer(record: pb.Alarm, known: pb.Alarm) -> bool:
    """Whether a record is about a later occurrence than the known one, or about the same one raised again."""
    if record.degraded or not (record.HasField("raise_time") and known.HasField("raise_time")):
        return False
    return is_active(record.state) and _raised_ns(record) > _raised_ns(known)
