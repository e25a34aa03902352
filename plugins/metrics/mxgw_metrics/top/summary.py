"""Summarizes what happened between two readings: rates, delays and counts, for the screen and for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mxgw_metrics.top.reading import Reading


@dataclass(frozen=True, slots=True)
class Summary:
    """One gateway between two readings.

    Fields named `..._per_s`, `recent_...`, `..._p50_s`, `..._p99_s`, `..._share` and `busiest` are about the time
    between the readings. The other numbers are either the state at the second reading (sessions, workers, subscribers,
    bytes) or counts since the gateway started (events, gaps, refusals, failures). None means that a value is unknown.
    """

    version: str
    uptime_s: float
    interval_s: float
    was_restarted: bool
    is_draining: bool
    sessions: Mapping[str, int]
    session_limit: int
    detached_sessions: int
    ended_sessions: Mapping[str, int]
    recent_faults: int
    workers: Mapping[str, int]
    workers_rss_bytes: int
    largest_worker_rss_bytes: int
    sources: Mapping[str, int]
    worker_starts: Mapping[str, int]
    adoptions: Mapping[str, int]
    recent_failed_adoptions: int
    events_in_per_s: float
    bytes_in_per_s: float
    events_in: int
    events_out_per_s: float
    bytes_out_per_s: float
    events_out: int
    subscribers: int
    lag_events: int
    lag_s: float
    queue_bytes: int
    events_lost: Mapping[str, int]
    recent_events_lost: int
    gaps: Mapping[str, int]
    recent_gaps: int
    overflows: Mapping[str, int]
    recent_overflows: int
    resumes: Mapping[str, int]
    recent_incomplete_resumes: int
    ring_bytes: int
    replay_horizon_s: float | None
    detach_grace_s: float | None
    pump_stalled_share: float
    loop_delay_p99_s: float | None
    calls_per_s: float
    call_p50_s: float | None
    call_p99_s: float | None
    failed_calls: Mapping[str, int]
    recent_failed_calls: int
    open_streams: int
    commands_pending: int
    busiest: Mapping[str, float]
    refused: Mapping[str, int]
    recent_refused: int
    plugins_up: int
    plugins_failed: tuple[str, ...]
    plugin_failures: int
    recent_plugin_failures: int
    rss_bytes: int
    cpu_share: float


# Events that were conflated are no loss that needs attention, because the subscriber asked for conflation.
_HARMLESS = "CONFLATED"
_FAULTS = ("WORKER_EXITED", "WORKER_SILENT", "WORKER_PROTOCOL_ERROR", "WORKER_START_FAILED", "OVERFLOW_FAIL_FAST")


def summary_of(before: Reading, now: Reading) -> Summary:
    """Return the summary of the time between two readings; all rates are 0 when the gateway restarted in between."""
    was_restarted = before.value("mxgw_start_time_seconds") != now.value("mxgw_start_time_seconds")
    then = now if was_restarted else before
    interval_s = max(now.at_s - before.at_s, 1e-9)

    def recent(name: str, **labels: str) -> float:
        return max(0.0, now.total(name, **labels) - then.total(name, **labels))

    def recent_by(name: str, label: str) -> dict[str, float]:
        old = then.by(name, label)
        return {value: count - old.get(value, 0.0) for value, count in now.by(name, label).items()}

    def counts(name: str, label: str) -> dict[str, int]:
        return {value: int(count) for value, count in now.by(name, label).items() if count}

    def unlike(values: Mapping[str, float], *harmless: str) -> int:
        return int(sum(count for value, count in values.items() if value not in harmless))

    def quantile(name: str, share: float) -> float | None:
        old = then.buckets(name)
        return quantile_of({bound: count - old.get(bound, 0.0) for bound, count in now.buckets(name).items()}, share)

    (build, _), *_ = now.find("mxgw_build_info")
    overflows = {
        f"{labels['policy']}/{labels['kind']}": int(count)
        for labels, count in now.find("mxgw_subscriber_overflow_total")
        if count
    }
    refused = {k: v for k, v in counts("mxgw_authentications_total", "outcome").items() if k != "ok"}
    logins = {k: v for k, v in counts("mxgw_operator_logins_total", "outcome").items() if k != "ok"}
    up = now.by("mxgw_plugin_up", "plugin")
    calls = recent_by("mxgw_rpc_requests_total", "method")
    codes = {k: v for k, v in counts("mxgw_rpc_requests_total", "code").items() if k not in ("OK", "CANCELLED")}
    started_at = now.total("mxgw_start_time_seconds")
    return Summary(
        version=build.get("version", ""),
        uptime_s=max(0.0, now.wall_s - started_at),
        interval_s=interval_s,
        was_restarted=was_restarted,
        is_draining=bool(now.total("mxgw_draining")),
        sessions=counts("mxgw_sessions", "state"),
        session_limit=int(now.total("mxgw_sessions_limit")),
        detached_sessions=int(now.total("mxgw_sessions_detached")),
        ended_sessions=counts("mxgw_sessions_ended_total", "reason"),
        recent_faults=int(sum(recent_by("mxgw_sessions_ended_total", "reason").get(r, 0.0) for r in _FAULTS)),
        workers=counts("mxgw_workers", "state"),
        workers_rss_bytes=int(now.total("mxgw_workers_resident_memory_bytes")),
        largest_worker_rss_bytes=int(now.total("mxgw_worker_resident_memory_max_bytes")),
        sources=counts("mxgw_worker_sources", "health"),
        worker_starts=counts("mxgw_worker_starts_total", "outcome"),
        adoptions=counts("mxgw_adoptions_total", "outcome"),
        recent_failed_adoptions=int(recent("mxgw_adoptions_total", outcome="failed")),
        events_in_per_s=recent("mxgw_events_received_total") / interval_s,
        bytes_in_per_s=recent("mxgw_events_received_bytes_total") / interval_s,
        events_in=int(now.total("mxgw_events_received_total")),
        events_out_per_s=recent("mxgw_events_delivered_total") / interval_s,
        bytes_out_per_s=recent("mxgw_events_delivered_bytes_total") / interval_s,
        events_out=int(now.total("mxgw_events_delivered_total")),
        subscribers=int(now.total("mxgw_subscribers")),
        lag_events=int(now.largest("mxgw_subscriber_lag_events") or 0),
        lag_s=now.largest("mxgw_subscriber_lag_seconds") or 0.0,
        queue_bytes=int(now.total("mxgw_subscriber_queue_bytes")),
        events_lost=counts("mxgw_events_lost_total", "reason"),
        recent_events_lost=unlike(recent_by("mxgw_events_lost_total", "reason"), _HARMLESS),
        gaps=counts("mxgw_gap_frames_total", "reason"),
        recent_gaps=unlike(recent_by("mxgw_gap_frames_total", "reason"), _HARMLESS),
        overflows=overflows,
        recent_overflows=int(recent("mxgw_subscriber_overflow_total")),
        resumes=counts("mxgw_resume_total", "recovered"),
        recent_incomplete_resumes=int(recent("mxgw_resume_total", recovered="false")),
        ring_bytes=int(now.total("mxgw_ring_bytes")),
        replay_horizon_s=now.value("mxgw_replay_horizon_seconds"),
        detach_grace_s=now.value("mxgw_replay_detach_grace_seconds"),
        pump_stalled_share=recent("mxgw_pump_stall_seconds_total") / interval_s,
        loop_delay_p99_s=quantile("mxgw_event_loop_delay_seconds", 0.99),
        calls_per_s=sum(calls.values()) / interval_s,
        call_p50_s=quantile("mxgw_rpc_duration_seconds", 0.5),
        call_p99_s=quantile("mxgw_rpc_duration_seconds", 0.99),
        failed_calls=codes,
        recent_failed_calls=unlike(recent_by("mxgw_rpc_requests_total", "code"), "OK", "CANCELLED"),
        open_streams=int(now.total("mxgw_rpc_running", method="/mxgw.v1.EventService/StreamEvents")),
        commands_pending=int(now.total("mxgw_commands_pending")),
        busiest={
            method.rpartition("/")[2]: count / interval_s
            for method, count in sorted(calls.items(), key=lambda call: -call[1])[:3]
            if count > 0
        },
        refused={k: refused.get(k, 0) + logins.get(k, 0) for k in refused | logins},
        recent_refused=unlike(recent_by("mxgw_authentications_total", "outcome"), "ok")
        + unlike(recent_by("mxgw_operator_logins_total", "outcome"), "ok"),
        plugins_up=sum(value == 1 for value in up.values()),
        plugins_failed=tuple(sorted(name for name, value in up.items() if value == 0)),
        plugin_failures=int(now.total("mxgw_plugin_hook_failures_total")),
        recent_plugin_failures=int(recent("mxgw_plugin_hook_failures_total")),
        rss_bytes=int(now.total("process_resident_memory_bytes")),
        cpu_share=recent("process_cpu_seconds_total") / interval_s,
    )


def quantile_of(buckets: Mapping[float, float], share: float) -> float | None:
    """Return a quantile of a histogram: the lowest bound that at least `share` of the observed values do not exceed.

    `buckets` has the cumulative count of each bound. None is returned when nothing was observed.
    """
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    return min(bound for bound, count in buckets.items() if count >= share * total)
