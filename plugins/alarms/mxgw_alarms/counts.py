"""The metrics of the plugin. References and areas are not labels of these metrics, because a plant has too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mxgw.v1 import alarm_service_pb2 as service_pb
from mxgw.v1 import alarms_pb2 as pb
from mxgw_core.api import Metric, MetricKind, MetricSample
from mxgw_core.api.metrics import gauge

_STATES = (pb.ALARM_STATE_UNACK_ALM, pb.ALARM_STATE_ACK_ALM, pb.ALARM_STATE_UNACK_RTN)
_KINDS = (
    pb.ALARM_EVENT_KIND_RAISED,
    pb.ALARM_EVENT_KIND_ACKNOWLEDGED,
    pb.ALARM_EVENT_KIND_CLEARED,
    pb.ALARM_EVENT_KIND_UPDATED,
)
_PROVIDERS = (pb.ALARM_PROVIDER_PRIMARY, pb.ALARM_PROVIDER_FALLBACK, pb.ALARM_PROVIDER_NONE)
_OUTCOMES = tuple(
    service_pb.AcknowledgeOutcome.ValueType(number) for number in service_pb.AcknowledgeOutcome.values() if number
)


class AlarmCounts:
    """Counts since the gateway started. The monitor and the service call these methods in the event loop."""

    def __init__(self) -> None:
        self._transitions: Counter[int] = Counter()
        self._switches: Counter[int] = Counter()
        self._acknowledgements: Counter[int] = Counter()

    def sent(self, events: Iterable[pb.AlarmEvent]) -> None:
        """Count events that were sent to subscribers."""
        self._transitions.update(event.kind for event in events)

    def switched(self, provider: pb.AlarmProvider.ValueType) -> None:
        """Count a change to this provider (PRIMARY, FALLBACK or NONE)."""
        self._switches[provider] += 1

    def acknowledged(self, results: Iterable[service_pb.AcknowledgeResult]) -> None:
        """Count acknowledgements by outcome, once they are answered."""
        self._acknowledgements.update(result.outcome for result in results)

    def metrics(
        self, alarms: Iterable[pb.Alarm], provider: pb.AlarmProvider.ValueType, subscribers: int
    ) -> Sequence[Metric]:
        """Return all metrics as of now, from the active alarms, the present provider, and the number of subscribers."""
        states = Counter(alarm.state for alarm in alarms)
        return [
            Metric(
                "mxgw_alarms_active",
                MetricKind.GAUGE,
                "Active alarms of the plant by state.",
                ("state",),
                [MetricSample(states[state], (_word(pb.AlarmState.Name(state), "ALARM_STATE_"),)) for state in _STATES],
            ),
            Metric(
                "mxgw_alarms_transitions_total",
                MetricKind.COUNTER,
                "Changes of alarms that were sent to subscribers, once each, by kind.",
                ("kind",),
                [
                    MetricSample(self._transitions[kind], (_word(pb.AlarmEventKind.Name(kind), "ALARM_EVENT_KIND_"),))
                    for kind in _KINDS
                ],
            ),
            Metric(
                "mxgw_alarms_provider_switches_total",
                MetricKind.COUNTER,
                "Changes of who reports alarms, by who reports from then on.",
                ("provider",),
                [MetricSample(self._switches[one], (_provider(one),)) for one in _PROVIDERS],
            ),
            Metric(
                "mxgw_alarms_provider",
                MetricKind.GAUGE,
                "Who reports alarms now: 1 for that provider, 0 for the others.",
                ("provider",),
                [MetricSample(float(one == provider), (_provider(one),)) for one in _PROVIDERS],
            ),
            Metric(
                "mxgw_alarms_acknowledgements_total",
                MetricKind.COUNTER,
                "Acknowledgements that were asked for through AcknowledgeAlarm, one for each alarm, by outcome.",
                ("outcome",),
                [
                    MetricSample(
                        self._acknowledgements[outcome],
                        (_word(service_pb.AcknowledgeOutcome.Name(outcome), "ACKNOWLEDGE_OUTCOME_"),),
                    )
                    for outcome in _OUTCOMES
                ],
            ),
            gauge("mxgw_alarms_subscribers", "Clients that follow alarms.", subscribers),
        ]


def _provider(provider: pb.AlarmProvider.ValueType) -> str:
    return _word(pb.AlarmProvider.Name(provider), "ALARM_PROVIDER_")


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
