"""Alarms about the gateway itself: finds in a gateway report what an operator should look at.

These are not the alarms of the plant, which `plant_alarms` handles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mxgw.convert import duration_to_seconds, timestamp_to_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import gateway_service_pb2 as gw
from mxgw.v1 import session_service_pb2 as ss
from mxgw_dashboard_tui.tui.text import clean, memory, session_name, span, words

LAG_S = 5.0
LOOP_DELAY_S = 0.5
FULL = 0.9
_RECENT_S = 600.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `severity` is "ALARM" or "warn"; `where` is the name of a session or plugin, or "gateway"."""

    severity: str
    where: str
    text: str


def alarms_of(snapshot: pb.WatchGatewayResponse, lost_per_min: int) -> Sequence[Alarm]:
    """Return the alarms and warnings that follow from a gateway report, alarms first."""
    found = [*_gateway(snapshot, lost_per_min), *_sessions(snapshot), *_ended(snapshot)]
    return sorted(found, key=lambda alarm: alarm.severity != "ALARM")


def _gateway(snapshot: pb.WatchGatewayResponse, lost_per_min: int) -> Iterator[Alarm]:
    if snapshot.draining:
        yield Alarm("warn", "gateway", "is shutting down: no new sessions")
    if lost_per_min:
        yield Alarm("ALARM", "gateway", f"{lost_per_min} events were lost to subscribers in the last minute")
    delay_s = duration_to_seconds(snapshot.process.loop_delay)
    if delay_s > LOOP_DELAY_S:
        yield Alarm("ALARM", "gateway", f"its event loop is {span(delay_s)} late: it is overloaded or was stopped")
    if snapshot.session_count >= snapshot.session_limit * FULL:
        yield Alarm(
            "warn",
            "gateway",
            f"{snapshot.session_count} of {snapshot.session_limit} sessions are open (limits.sessions)",
        )
    if snapshot.memory_bytes > snapshot.memory_limit_bytes * FULL:
        yield Alarm(
            "warn",
            "gateway",
            f"events take {memory(snapshot.memory_bytes)} of {memory(snapshot.memory_limit_bytes)} "
            "(limits.memory_bytes)",
        )
    for row in snapshot.plugins:
        name = clean(row.plugin.name, 30)
        if row.plugin.state == gw.PLUGIN_STATE_FAILED:
            yield Alarm("ALARM", name, f"plugin does not run: {clean(row.plugin.detail, 120)}")
        elif failures := sum(row.hook_failures.values()):
            yield Alarm("warn", name, f"plugin's hooks failed {failures} times")


def _sessions(snapshot: pb.WatchGatewayResponse) -> Iterator[Alarm]:
    for row in snapshot.sessions:
        session = row.session
        name = session_name(session)
        if session.worker_state == e.WORKER_STATE_SILENT:
            yield Alarm("ALARM", name, "its worker does not answer")
        if session.source_health == e.SOURCE_HEALTH_LOST:
            yield Alarm("ALARM", name, "its source is away: values are stale whatever their quality says")
        elif session.source_health == e.SOURCE_HEALTH_DEGRADED:
            yield Alarm("warn", name, "part of its source is away")
        if (lag_s := duration_to_seconds(row.lag_age)) > LAG_S:
            yield Alarm("ALARM", name, f"a subscriber is {span(lag_s)} behind, {row.lag_events} events")
        if session.state == ss.SESSION_STATE_ADOPTING:
            yield Alarm("warn", name, "waits for its worker after a restart of the gateway")


def _ended(snapshot: pb.WatchGatewayResponse) -> Iterator[Alarm]:
    now_ns = timestamp_to_ns(snapshot.as_of)
    for session in snapshot.ended:
        ago_s = (now_ns - timestamp_to_ns(session.closed_at)) / 1e9
        if session.state == ss.SESSION_STATE_FAULTED and ago_s < _RECENT_S:
            reason = words(ss.CloseReason.Name(session.close_reason), "CLOSE_REASON_")
            yield Alarm("warn", session_name(session), f"faulted {span(ago_s)} ago: {reason}")
