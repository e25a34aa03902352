"""Takes samples of the state of the whole gateway. All dashboards that watch the gateway share the samples.

The service sends each operator only the part of a sample that the operator is allowed to see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import gateway_service_pb2 as gw
from mxgw.v1.session_service_pb2 import ListSubscribersResponse
from mxgw_core.api import Gateway, Observation, PluginStatus, SessionInfo, resident_bytes

# All requests within this time after a sample was taken get this sample.
_SHARED_S = 0.2
_GAP_FRAMES, _LOST, _OVERFLOWS = "mxgw_gap_frames_total", "mxgw_events_lost_total", "mxgw_subscriber_overflow_total"


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the gateway at one moment, with all its sessions."""

    as_of_ns: int
    sessions: Sequence[tuple[SessionInfo, pb.SessionRow]]
    plugins: Sequence[pb.PluginRow]
    process: pb.GatewayProcess


class Sampler:
    """Takes samples on request. Requests within `_SHARED_S` get the same sample."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gateway = gateway
        self._clock = clock
        self._sample: Sample | None = None
        self._sampled_at = 0.0

    def sample(self, watchers: int, loop_delay_s: float) -> Sample:
        """Return a sample that is at most 0.2 s old."""
        now = self._clock()
        if self._sample is None or now - self._sampled_at > _SHARED_S:
            self._sample, self._sampled_at = self._look(watchers, loop_delay_s), now
        return self._sample

    def _look(self, watchers: int, loop_delay_s: float) -> Sample:
        seen = self._gateway.observation
        known = [(info, row) for info in self._gateway.sessions() if (row := row_of(seen, info)) is not None]
        return Sample(
            as_of_ns=time.time_ns(),
            sessions=known,
            plugins=[_plugin(status) for status in seen.plugins()],
            process=pb.GatewayProcess(
                pid=os.getpid(),
                rss_bytes=resident_bytes(),
                cpu_time=duration_from_seconds(time.process_time()),
                loop_delay=duration_from_seconds(max(0.0, loop_delay_s)),
                watchers=watchers,
            ),
        )


def row_of(seen: Observation, info: SessionInfo) -> pb.SessionRow | None:
    """Return a session as a row of the table of sessions; None when the gateway does not know the session any more."""
    session = seen.session(info.session_id)
    if session is None:
        return None
    row = pb.SessionRow(session=session)
    if info.detached_s is not None and not session.HasField("closed_at"):
        row.detached.CopyFrom(duration_from_seconds(info.detached_s))
    subscribers = seen.subscribers(info.session_id)
    if subscribers is not None:
        _add_lag(row, subscribers)
    return row


def _add_lag(row: pb.SessionRow, subscribers: ListSubscribersResponse) -> None:
    for subscriber in subscribers.subscribers:
        row.lag_events = max(row.lag_events, subscriber.lag_events)
        if duration_to_seconds(subscriber.lag_age) > duration_to_seconds(row.lag_age):
            row.lag_age.CopyFrom(subscriber.lag_age)
    for counter in subscribers.counters:
        # Conflated events are not counted as lost, because the subscriber asked for conflation.
        conflated = counter.labels.get("reason") == "CONFLATED"
        if counter.name == _GAP_FRAMES and not conflated:
            row.gap_frames += counter.value
        elif counter.name == _LOST and not conflated:
            row.lost_events += counter.value
        elif counter.name == _OVERFLOWS:
            row.overflows += counter.value


def _plugin(status: PluginStatus) -> pb.PluginRow:
    return pb.PluginRow(
        plugin=gw.PluginInfo(
            name=status.name,
            state=gw.PluginState.Value(f"PLUGIN_STATE_{status.state.upper()}"),
            distribution=status.distribution,
            version=status.version,
            required=status.required,
            detail=status.detail,
            controls_access=status.controls_access,
        ),
        hook_failures=dict(status.hook_failures),
    )
