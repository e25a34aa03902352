"""The active alarms as the provider in charge shows them, and what changed whenever it shows them anew.

Nothing here waits or knows of sessions: records go in, events without numbers come out. An alarm is named by its
reference; the source's id names one occurrence of it.
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

# The handle of events that are about no alarm; alarms have greater ones.
NO_ALARM = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One active alarm. `encoded` is its Alarm message without `degraded` and `stale`, which go for many at once."""

    handle: int
    alarm: pb.Alarm
    encoded: bytes = field(repr=False)


@dataclass(slots=True)
class Facts:
    """What is known of an alarm whether it is active or not, for filters."""

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
        # Those by reference, as they were asked for last; None once any of them changed.
        self._ordered: Sequence[Entry] | None = ()
        self._references: list[str] = []
        self._handles: dict[str, int] = {}
        # By handle, less NO_ALARM and 1.
        self._facts: list[Facts] = []
        # The last native record of each alarm that is over, for what a degraded record cannot tell.
        self._last: dict[str, pb.Alarm] = {}
        self.refused = 0
        # The fallback speaks: everything is degraded.
        self.is_degraded = False
        # Nobody speaks: everything is stale.
        self.is_stale = True
        # What is active and not watched by the provider in charge.
        self.unwatched: frozenset[str] = frozenset()

    # looking

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, reference: str) -> bool:
        return reference in self._active

    def get(self, reference: str) -> Entry | None:
        """Return an active alarm."""
        return self._active.get(reference)

    def entries(self) -> Sequence[Entry]:
        """Return the active alarms, in no order that means anything."""
        return tuple(self._active.values())

    def ordered(self) -> Sequence[Entry]:
        """Return the active alarms by reference; the same object for all who ask while none of them changes."""
        if self._ordered is None:
            # What is sorted but for a few is sorted again quickly.
            known = [reference for reference in self._references if reference in self._active]
            self._references = [*known, *(self._active.keys() - set(known))]
            self._references.sort()
            self._ordered = [self._active[reference] for reference in self._references]
        return self._ordered

    def facts(self, handle: int) -> Facts:
        """Return what is known of the alarm of a handle."""
        return self._facts[handle - NO_ALARM - 1]

    @property
    def references(self) -> Collection[str]:
        """Every alarm that was ever seen."""
        return self._handles.keys()

    def is_entry_stale(self, entry: Entry) -> bool:
        """Return whether no provider watches this alarm at present."""
        return self.is_stale or entry.alarm.reference in self.unwatched

    def shown(self, entry: Entry) -> pb.Alarm:
        """Return the alarm of an entry with what holds for many at once."""
        alarm = pb.Alarm()
        alarm.CopyFrom(entry.alarm)
        alarm.degraded, alarm.stale = self.is_degraded, self.is_entry_stale(entry)
        return alarm

    # what a provider says

    def apply(self, record: pb.Alarm, *, reconciled: bool = False) -> pb.AlarmEvent | None:
        """Take one record over; return the event it makes, None when it says nothing new.

        A degraded record tells state and priority only: the rest stays as it was known, or unknown.
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
            kind = RAISED  # back to normal and into alarm again between two looks
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
        """Take over everything a provider shows; return only what differs from what was known.

        `watched` are the references the provider would know of, None for all: what it does not show of them is over,
        and what it does not watch stays as it was, stale.
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
        """The provider cannot see these alarms for now: they are stale until it shows them again."""
        self.unwatched = self.unwatched | {reference for reference in references if reference in self._active}

    def lost(self) -> None:
        """Nobody speaks any more: everything is as it was seen last."""
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
        """Return a degraded record with what was known of the alarm before."""
        alarm = pb.Alarm()
        known = before or self._last.get(record.reference)
        if known is not None:
            alarm.CopyFrom(known)
        if raised:
            # Another occurrence: of the one before it only what belongs to the alarm itself still holds.
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
    """Whether a record is about an occurrence before the one that is known."""
    if record.degraded or record.alarm_id == known.alarm_id or not known.HasField("raise_time"):
        return False
    return record.HasField("raise_time") and _raised_ns(record) < _raised_ns(known)


def _is_newer(record: pb.Alarm, known: pb.Alarm) -> bool:
    """Whether a record is about an occurrence after the one that is known, or about the same one raised again."""
    if record.degraded or not (record.HasField("raise_time") and known.HasField("raise_time")):
        return False
    return is_active(record.state) and _raised_ns(record) > _raised_ns(known)
