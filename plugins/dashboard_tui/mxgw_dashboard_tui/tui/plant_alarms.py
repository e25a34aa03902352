"""The plant's alarms, collected from the frames of AlarmService: active alarms, their provider, and latest changes.

A provider is the part of the plant from which alarms come: the alarm manager, or sub-attributes in its place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.v1 import alarms_pb2 as a
from mxgw.v1 import events_pb2 as e
from mxgw.v1.alarm_service_pb2 import StreamAlarmsResponse
from mxgw_dashboard_tui.tui.model import own
from mxgw_dashboard_tui.tui.text import clean, words

_NEWS = 200


@dataclass(frozen=True, slots=True)
class News:
    """One change of an alarm or of the provider, as text; `time` is when the gateway learned of the change."""

    time: Timestamp
    text: str


class PlantAlarms:
    """Processes the frames of one stream after another.

    When a stream breaks, the active alarms stay until the next stream has sent the complete list of active alarms.

    Attributes:
        active: the active alarms. Key: reference.
        changed: references of alarms that changed or ended since the caller last emptied this set.
        provider: the provider from which alarms come now; None while the provider is unknown.
        news: the latest changes, oldest first.
        news_count: how many changes there were altogether.
        version: grows whenever the screen must be painted again.
    """

    def __init__(self) -> None:
        self.active: dict[str, a.Alarm] = {}
        self.changed: set[str] = set()
        self.provider: a.ProviderStatus | None = None
        self.news: deque[News] = deque(maxlen=_NEWS)
        self.news_count = 0
        self.version = 0
        self._arriving: dict[str, a.Alarm] = {}

    def begin(self) -> None:
        """Prepare for the frames of a new stream."""
        self._arriving.clear()

    def take(self, message: StreamAlarmsResponse) -> bool:
        """Process a frame.

        Return False when the frame does not say which of the active alarms are stale, so that a new stream is needed.
        """
        is_known = True
        match message.WhichOneof("frame"):
            case "snapshot":
                self._arriving.update((entry.alarm.reference, own(entry.alarm)) for entry in message.snapshot.alarms)
                return True
            case "snapshot_complete":
                self._replace(message.snapshot_complete.provider)
            case "events":
                for event in message.events.events:
                    is_known = self._event(event) and is_known
            case "gap":
                reason = words(e.GapReason.Name(message.gap.reason), "GAP_REASON_")
                self._tell(
                    Timestamp(), f"… {message.gap.count} changes were not shown ({reason}); the list is read anew"
                )
            case _:
                return True
        self.version += 1
        return is_known

    def _replace(self, provider: a.ProviderStatus) -> None:
        self.changed.update(self.active, self._arriving)
        self.active, self._arriving = self._arriving, {}
        if self.provider is not None and self.provider.provider != provider.provider:
            self._tell_provider(provider)
        self.provider = own(provider)

    def _event(self, event: a.AlarmEvent) -> bool:
        if event.HasField("provider_changed"):
            return self._provider_changed(event.provider_changed)
        alarm = own(event.transition.alarm)
        self.changed.add(alarm.reference)
        if alarm.state == a.ALARM_STATE_ACK_RTN:
            self.active.pop(alarm.reference, None)
        else:
            self.active[alarm.reference] = alarm
        if event.kind != a.ALARM_EVENT_KIND_UPDATED:
            self._tell(event.transition.gateway_time, _transition_text(event))
        return True

    def _provider_changed(self, change: a.ProviderChanged) -> bool:
        self.provider = own(change.current)
        provider = change.current.provider
        for alarm in self.active.values():
            alarm.degraded = provider == a.ALARM_PROVIDER_FALLBACK
            alarm.stale = provider == a.ALARM_PROVIDER_NONE
        self.changed.update(self.active)
        self._tell_provider(change.current)
        return not change.unwatched_alarms

    def _tell_provider(self, provider: a.ProviderStatus) -> None:
        self._tell(provider.since, f"⇄ {PROVIDERS.get(provider.provider, 'unknown')}: {clean(provider.detail, 160)}")

    def _tell(self, time: Timestamp, text: str) -> None:
        self.news.append(News(own(time), text))
        self.news_count += 1


PROVIDERS = {
    a.ALARM_PROVIDER_PRIMARY: "the alarm manager reports",
    a.ALARM_PROVIDER_FALLBACK: "DEGRADED, sub-attributes report",
    a.ALARM_PROVIDER_NONE: "NOBODY REPORTS",
}


def _transition_text(event: a.AlarmEvent) -> str:
    alarm = event.transition.alarm
    by = f" by {clean(alarm.operator, 40)}" if alarm.operator else ""
    match event.kind:
        case a.ALARM_EVENT_KIND_RAISED:
            what = "▲ raised"
        case a.ALARM_EVENT_KIND_ACKNOWLEDGED:
            what = f"✓ acknowledged{by}"
        case a.ALARM_EVENT_KIND_CLEARED:
            what = "▽ returned to normal"
        case _:
            what = "? changed"
    over = ", over" if alarm.state == a.ALARM_STATE_ACK_RTN else ""
    compared = ", found by comparing" if event.transition.reconciled else ""
    return f"{what}{over}{compared}: {clean(alarm.reference, 80)}, priority {alarm.priority}"
