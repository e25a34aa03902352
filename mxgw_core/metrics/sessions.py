"""Metrics of sessions and workers. They are sums over all sessions, because a session id must not be a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeVar

from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw_core.api.metrics import Metric, MetricKind, MetricSample, gauge
from mxgw_core.api.types import CloseReason, SessionState
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.totals import AdoptionOutcome, StartOutcome

_Member = TypeVar("_Member", bound=Enum)

_WORKER_STATES = ("starting", "ready", "silent", "stopping", "exited")
_SOURCE_HEALTH = ("good", "degraded", "lost", "unspecified")


def session_metrics(registry: SessionRegistry, limit: int) -> list[Metric]:
    """Return the metrics of sessions and workers. `limit` is `limits.sessions`."""
    live, totals = registry.live(), registry.totals
    memory = [session.worker.rss_bytes for session in live]
    states = Counter(session.state for session in live)
    workers = Counter(WorkerState.Name(s.worker.state).removeprefix("WORKER_STATE_").lower() for s in live)
    health = Counter(SourceHealth.Name(s.worker.health.source).removeprefix("SOURCE_HEALTH_").lower() for s in live)
    detached = sum(session.info().detached_s is not None for session in live)
    return [
        _gauges("mxgw_sessions", "Live sessions by state.", "state", _by_name(states, SessionState)),
        gauge("mxgw_sessions_detached", "Live sessions that lost their last subscriber.", detached),
        gauge("mxgw_sessions_limit", "Sessions that may be open (limits.sessions).", limit),
        _counters(
            "mxgw_sessions_ended_total",
            "Sessions that ended, by the reason.",
            "reason",
            {reason.name: totals.ended[reason] for reason in CloseReason},
        ),
        gauge(
            "mxgw_commands_pending",
            "Commands that wait for their worker's answer.",
            sum(len(session.worker.commands) for session in live),
        ),
        _gauges("mxgw_workers", "Workers of live sessions by state.", "state", _filled(workers, _WORKER_STATES)),
        _gauges(
            "mxgw_worker_sources",
            "Workers of live sessions by the health of their source.",
            "health",
            _filled(health, _SOURCE_HEALTH),
        ),
        _counters(
            "mxgw_worker_starts_total",
            "Workers that sessions asked for, by what became of it. None is ever restarted in place.",
            "outcome",
            _by_name(totals.starts, StartOutcome),
        ),
        Metric(
            "mxgw_worker_start_duration_seconds",
            MetricKind.HISTOGRAM,
            "From OpenSession to READY, of workers that became ready.",
            samples=(MetricSample(totals.start_duration.buckets()),),
        ),
        gauge(
            "mxgw_worker_oldest_start_time_seconds",
            "When the session of the oldest live worker was opened, seconds since 1970.",
            min((session.opened_at for session in live), default=None),
        ),
        gauge("mxgw_workers_resident_memory_bytes", "Resident memory of all workers together.", sum(memory)),
        gauge(
            "mxgw_worker_resident_memory_max_bytes", "Resident memory of the largest worker.", max(memory, default=0)
        ),
        _counters(
            "mxgw_adoptions_total",
            "Workers of earlier gateway runs, by what became of them.",
            "outcome",
            _by_name(totals.adoptions, AdoptionOutcome),
        ),
    ]


def _by_name(counts: Mapping[_Member, int], kind: type[_Member]) -> dict[str, int]:
    """Return a count for every member of an enum. A member that never occurred has the count 0, because an alert needs
    a value before the first occurrence.
    """
    return {member.name.lower(): counts.get(member, 0) for member in kind}


def _filled(counts: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    return {**dict.fromkeys(names, 0), **counts}


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return Metric(name, MetricKind.GAUGE, text, (label,), _samples(values))


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return Metric(name, MetricKind.COUNTER, text, (label,), _samples(values))


def _samples(values: Mapping[str, int]) -> Sequence[MetricSample]:
    return [MetricSample(value, (label,)) for label, value in values.items()]
