"""Alarms as values: active alarms, their changes, who reports them, and a list that a stream keeps up to date."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from mxgw.convert import PyValue
from mxgw.v1 import alarm_service_pb2, alarms_pb2
from mxgw_client.enums import AcknowledgeOutcome, AlarmEventKind, AlarmProvider, AlarmState
from mxgw_client.frames import Draining, Gap, Heartbeat, Progress, StreamCut, StreamOpened
from mxgw_client.position import Position
from mxgw_client.values import moment, value_of


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. Texts come from the plant; times are the source's, None when it sends none.

    `priority` is 1 (most severe) to 999. `degraded`: the fallback provider reports it, so only state and priority are
    certain. `stale`: no provider watches it at present. `raw` is the contract's message, with all fields.
    """

    reference: str
    state: AlarmState
    priority: int
    area: str
    alarm_type: str
    description: str
    value: PyValue
    limit: PyValue
    raise_time: datetime | None
    ack_time: datetime | None
    clear_time: datetime | None
    operator: str
    comment: str
    degraded: bool
    stale: bool
    raw: alarms_pb2.Alarm = field(repr=False, compare=False)

    @property
    def alarm_id(self) -> str:
        """The source's id of this occurrence."""
        return self.raw.alarm_id


@dataclass(frozen=True, slots=True)
class AlarmFilter:
    """Which alarms to send: those that meet every condition given. Priority 1 is the most severe, 999 the least."""

    areas: Sequence[str] = ()
    reference_prefixes: Sequence[str] = ()
    from_priority: int = 1
    to_priority: int = 999

    def to_message(self) -> alarm_service_pb2.AlarmFilter:
        """Return the contract's message."""
        return alarm_service_pb2.AlarmFilter(
            areas=self.areas,
            reference_prefixes=self.reference_prefixes,
            from_priority=self.from_priority,
            to_priority=self.to_priority,
        )


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """Which provider reports alarms, and in `detail` why this one. `backend` is the one that is asked."""

    provider: AlarmProvider
    detail: str
    since: datetime | None
    backend: str


@dataclass(frozen=True, slots=True)
class AlarmTransition:
    """An alarm changed. `previous_state` is UNSPECIFIED when it was not active before.

    `reconciled`: the change was found by comparison after an interruption, so the time at which it happened is unknown.
    """

    position: Position
    kind: AlarmEventKind
    alarm: Alarm
    previous_state: AlarmState
    gateway_time: datetime | None
    reconciled: bool


@dataclass(frozen=True, slots=True)
class ProviderChanged:
    """Another provider reports from here on. Alarms that it confirms are not sent again."""

    position: Position
    previous: AlarmProvider
    current: ProviderStatus
    unwatched_alarms: int


@dataclass(frozen=True, slots=True)
class AlarmSnapshot:
    """A part of the active alarms."""

    position: Position
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class SnapshotComplete:
    """Every active alarm was sent: an alarm known from before that was not among them is no longer active."""

    position: Position
    provider: ProviderStatus


AlarmEvent: TypeAlias = AlarmTransition | ProviderChanged
AlarmControl: TypeAlias = (
    StreamOpened | Gap | Progress | Heartbeat | Draining | StreamCut | AlarmSnapshot | SnapshotComplete
)
AlarmItem: TypeAlias = AlarmEvent | AlarmControl


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The result of acknowledging one reference; `accepted` is True when the source accepted it."""

    reference: str
    outcome: AcknowledgeOutcome
    hresult: int
    message: str

    @property
    def accepted(self) -> bool:
        return self.outcome is AcknowledgeOutcome.ACCEPTED


class AlarmList:
    """The active alarms by reference. Pass everything that an `AlarmStream` yields to `apply`.

    Attributes:
        provider: who reports the alarms; None before the first snapshot.
        is_complete: False until the first snapshot is complete, and after a gap until the next one is.
    """

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}
        self._arriving: dict[str, Alarm] | None = None
        self.provider: ProviderStatus | None = None
        self.is_complete = False

    def apply(self, item: AlarmItem) -> None:
        """Update the list with what the stream yielded."""
        match item:
            case AlarmSnapshot(alarms=alarms):
                self._arriving = self._arriving or {}
                self._arriving.update((alarm.reference, alarm) for alarm in alarms)
            case SnapshotComplete(provider=provider):
                self._alarms, self._arriving = self._arriving or {}, None
                self.provider, self.is_complete = provider, True
            case AlarmTransition(alarm=alarm):
                if alarm.state.is_active:
                    self._alarms[alarm.reference] = alarm
                else:
                    self._alarms.pop(alarm.reference, None)
            case ProviderChanged(current=current):
                self.provider = current
                degraded, stale = current.provider is AlarmProvider.FALLBACK, current.provider is AlarmProvider.NONE
                self._alarms = {
                    reference: replace(alarm, degraded=degraded, stale=stale)
                    for reference, alarm in self._alarms.items()
                }
            case Gap() | StreamCut():
                self.is_complete = isinstance(item, StreamCut) and self.is_complete
                self._arriving = None
            case _:
                pass

    def __len__(self) -> int:
        return len(self._alarms)

    def __iter__(self) -> Iterator[Alarm]:
        return iter(self._alarms.values())

    def __contains__(self, reference: object) -> bool:
        return reference in self._alarms

    def get(self, reference: str) -> Alarm | None:
        """Return the active alarm with this reference; None when there is none."""
        return self._alarms.get(reference)


def alarm_from_message(raw: alarms_pb2.Alarm) -> Alarm:
    """Return the alarm in a message."""
    return Alarm(
        reference=raw.reference,
        state=AlarmState(raw.state),
        priority=raw.priority,
        area=raw.area,
        alarm_type=raw.alarm_type,
        description=raw.description,
        value=value_of(raw.value),
        limit=value_of(raw.limit),
        raise_time=moment(raw.raise_time) if raw.HasField("raise_time") else None,
        ack_time=moment(raw.ack_time) if raw.HasField("ack_time") else None,
        clear_time=moment(raw.clear_time) if raw.HasField("clear_time") else None,
        operator=raw.operator,
        comment=raw.comment,
        degraded=raw.degraded,
        stale=raw.stale,
        raw=raw,
    )


def provider_from_message(raw: alarms_pb2.ProviderStatus) -> ProviderStatus:
    """Return the provider in a message."""
    since = moment(raw.since) if raw.HasField("since") else None
    return ProviderStatus(AlarmProvider(raw.provider), raw.detail, since, raw.backend)


def event_from_message(raw: alarms_pb2.AlarmEvent, epoch: bytes) -> AlarmEvent | None:
    """Return the event in a message; None for a kind unknown to this release."""
    position = Position(epoch, raw.sequence)
    match raw.WhichOneof("body"):
        case "transition":
            transition = raw.transition
            return AlarmTransition(
                position,
                AlarmEventKind(raw.kind),
                alarm_from_message(transition.alarm),
                AlarmState(transition.previous_state),
                moment(transition.gateway_time) if transition.HasField("gateway_time") else None,
                transition.reconciled,
            )
        case "provider_changed":
            changed = raw.provider_changed
            return ProviderChanged(
                position,
                AlarmProvider(changed.previous),
                provider_from_message(changed.current),
                changed.unwatched_alarms,
            )
    return None
