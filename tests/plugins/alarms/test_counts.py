"""What the monitoring is told of alarms: every label is there from the start, and none names a part of the plant."""

from __future__ import annotations

from support.alarms import ACK_ALM, FALLBACK, PRIMARY, UNACK_RTN, record

from mxgw.v1 import alarm_service_pb2 as service_pb
from mxgw.v1 import alarms_pb2 as pb
from mxgw_alarms.counts import AlarmCounts


def values(counts: AlarmCounts, *alarms: pb.Alarm, provider: pb.AlarmProvider.ValueType) -> dict[str, object]:
    """Return every sample by its metric's name and its labels."""
    return {
        " ".join((metric.name, *sample.labels)): sample.value
        for metric in counts.metrics(alarms, provider, subscribers=3)
        for sample in metric.samples
    }


def test_everything_is_there_with_0_before_anything_happened() -> None:
    found = values(AlarmCounts(), provider=pb.ALARM_PROVIDER_NONE)

    assert found.pop("mxgw_alarms_provider none") == 1
    assert found.pop("mxgw_alarms_subscribers") == 3
    assert len(found) == 3 + 4 + 3 + 2 + 6
    assert set(found.values()) == {0}


def test_what_happened_is_counted_by_its_kind_and_nothing_else() -> None:
    counts = AlarmCounts()
    counts.sent(
        [
            pb.AlarmEvent(kind=pb.ALARM_EVENT_KIND_RAISED),
            pb.AlarmEvent(kind=pb.ALARM_EVENT_KIND_RAISED),
            pb.AlarmEvent(kind=pb.ALARM_EVENT_KIND_PROVIDER_CHANGED),
        ]
    )
    counts.switched(pb.AlarmProvider.ValueType(FALLBACK))
    counts.acknowledged([service_pb.AcknowledgeResult(outcome=service_pb.ACKNOWLEDGE_OUTCOME_DENIED)])
    before = values(AlarmCounts(), provider=pb.ALARM_PROVIDER_PRIMARY)
    after = values(
        counts,
        record("A", ACK_ALM),
        record("B", UNACK_RTN),
        record("C", ACK_ALM),
        provider=pb.AlarmProvider.ValueType(PRIMARY),
    )

    assert {name: value for name, value in after.items() if value != before[name]} == {
        "mxgw_alarms_active ack_alm": 2,
        "mxgw_alarms_active unack_rtn": 1,
        "mxgw_alarms_transitions_total raised": 2,
        "mxgw_alarms_provider_switches_total fallback": 1,
        "mxgw_alarms_acknowledgements_total denied": 1,
    }
