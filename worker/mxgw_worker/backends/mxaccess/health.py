"""What is known of the source's health: several observers, and the worst of what they say."""

from __future__ import annotations

from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST, SourceHealth
from mxgw_worker.backends.base import EventSink

_ORDER = (SOURCE_HEALTH_LOST, SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD)


class Health:
    """Reports to the sink whenever the worst report has changed."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._reports: dict[str, tuple[SourceHealth.ValueType, str]] = {}
        self._reported: tuple[SourceHealth.ValueType, str] | None = None

    def report(self, observer: str, health: SourceHealth.ValueType, detail: str) -> None:
        """Replace what this observer said before. `detail` is a sentence for people."""
        self._reports[observer] = (health, detail)
        worst = min(self._reports.values(), key=lambda report: _ORDER.index(report[0]))
        if worst != self._reported:
            self._reported = worst
            self._sink.source_health(*worst)
