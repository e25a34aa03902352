"""The data classes of alarms: alarms, changes and alarm providers, and a list of the active alarms."""

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
    """One alarm. All texts come from the plant. The times are those of the source, or None when it sends no time.

    `priority` is a number from 1 (most severe) to 999. `degraded` is True when the fallback provider reports the alarm;
    only its state and priority are certain then. `stale` is True while no provider watches the alarm. `raw` is the
    protobuf message with all fields.
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
        """The id that the source gave to this occurrence of the alarm."""
        return self.raw.alarm_id


@dataclass(frozen=True, slots=True)
class AlarmFilter:
    """Selects alarms. An alarm is selected when it meets all conditions that are set.

    An alarm must lie in one of the `areas`, its reference must begin with one of the `reference_prefixes`, and its
    priority must be from `from_priority` to `to_priority`. Priority 1 is the most severe, 999 the least severe.
    """

    areas: Sequence[str] = ()
    reference_prefixes: Sequence[str] = ()
    from_priority: int = 1
    to_priority: int = 999

    def to_message(self) -> alarm_service_pb2.AlarmFilter:
        """Return the protobuf message for this filter."""
        return alarm_service_pb2.AlarmFilter(
            areas=self.areas,
            reference_prefixes=self.reference_prefixes,
            from_priority=self.from_priority,
            to_priority=self.to_priority,
        )


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """The provider that reports the alarms, since when, and in `detail` why this provider is used.

    `backend` is the name of the backend from which the gateway gets the alarms.
    """

    provider: AlarmProvider
    detail: str
    since: datetime | None
    backend: str


@dataclass(frozen=True, slots=True)
class AlarmTransition:
    """One alarm has changed; `alarm` is its new state.

    `previous_state` is UNSPECIFIED when the alarm was not active before. `reconciled` is True when the gateway found
    the change by comparing lists of alarms after an interruption. The time of the change is then unknown.
    """

    position: Position
    kind: AlarmEventKind
    alarm: Alarm
    previous_state: AlarmState
    gateway_time: datetime | None
    reconciled: bool


@dataclass(frozen=True, slots=True)
class ProviderChanged:
    """Another provider reports the alarms from this position on.

    Alarms that the new provider confirms are not sent again. `unwatched_alarms` is the number of active alarms that the
    new provider does not watch.
    """

    position: Position
    previous: AlarmProvider
    current: ProviderStatus
    unwatched_alarms: int


@dataclass(frozen=True, slots=True)
class AlarmSnapshot:
    """A part of the active alarms. SnapshotComplete follows the last part."""

    position: Position
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class SnapshotComplete:
    """The snapshot is complete. An alarm that was in no part of the snapshot is no longer active."""

    position: Position
    provider: ProviderStatus


AlarmEvent: TypeAlias = AlarmTransition | ProviderChanged
AlarmControl: TypeAlias = (
    StreamOpened | Gap | Progress | Heartbeat | Draining | StreamCut | AlarmSnapshot | SnapshotComplete
)
AlarmItem: TypeAlias = AlarmEvent | AlarmControl


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The result of acknowledging one alarm. `accepted` is True when the source accepted the acknowledgement."""

    reference: str
    outcome: AcknowledgeOutcome
    hresult: int
    message: str

    @property
    def accepted(self) -> bool:
        return self.outcome is AcknowledgeOutcome.ACCEPTED


class AlarmList:
    """A list of the active alarms, kept up to date by `apply`. Pass everything that an `AlarmStream` yields to `apply`.

    Attributes:
        provider: the provider that reports the alarms; None before the first snapshot.
        is_complete: True when the list has all active alarms. It becomes True at the end of a snapshot, and False at a
            gap.
    """

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}
        self._arriving: dict[str, Alarm] | None = None
        self.provider: ProviderStatus | None = None
        self.is_complete = False

    def apply(self, item: AlarmItem) -> None:
        """Update the list. `item` is an alarm change or a frame that an `AlarmStream` has yielded."""
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
    """Convert the protobuf message of an alarm."""
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
    """Convert the protobuf message of an alarm provider."""
    since = moment(raw.since) if raw.HasField("since") else None
    return ProviderStatus(AlarmProvider(raw.provider), raw.detail, since, raw.backend)


def event_from_message(raw: alarms_pb2.AlarmEvent, epoch: bytes) -> AlarmEvent | None:
    """Convert the protobuf message of an event; return None when this release does not know its kind."""
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
