"""Implements `api.Observation`, with which the dashboard and other plugins look at the running gateway."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.session_service_pb2 import GetSessionStateResponse, ListSubscribersResponse
from mxgw.v1.session_service_pb2 import Session as SessionMessage
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.access import AuditEntry
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import Conflate, Lag, QueueLimits
from mxgw_core.api.metrics import Metric
from mxgw_core.api.observation import CommandInFlight, PluginStatus, ShownSetting
from mxgw_core.config.effective import effective_settings
from mxgw_core.config.models import Settings
from mxgw_core.metrics import MetricsSource
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.rpc.internal_session import frames_of
from mxgw_core.rpc.session_messages import ended_session, live_session, subscribers_of
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.registry import SessionRegistry

_STATE_TIMEOUT_S = 5.0
# The limits of the lag of a mirror, the reader that `watch` makes. When its lag is beyond them, it conflates at once,
# without waiting for the end of the interval. Events that cannot be conflated are dropped beyond this number, with a
# gap.
_MIRROR = QueueLimits(events=20_000, bytes=8 * 1024 * 1024, seconds=0.0)


@dataclass(frozen=True, slots=True)
class _MirrorPolicy:
    """An overflow policy that delivers the newest value of each item once per interval."""

    interval_s: float
    name: str = "mirror"

    def on_overflow(self, lag: Lag) -> Conflate:
        del lag
        return Conflate()


class Observing:
    """Implements `api.Observation`.

    `origins` has the place where each setting was set (`LoadedSettings.origins`). A key that is missing there counts as
    a default.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: PluginHost,
        registry: SessionRegistry,
        origins: Mapping[str, str],
        calls: CallCounts,
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._registry = registry
        self._origins = origins
        self._metrics = MetricsSource(settings, plugins, registry, calls)

    @property
    def backends(self) -> Sequence[str]:
        return sorted(self._settings.backends)

    @property
    def session_limit(self) -> int:
        return self._settings.limits.sessions

    @property
    def memory_bytes(self) -> int:
        return self._registry.memory.use().total

    @property
    def memory_limit_bytes(self) -> int:
        return self._registry.memory.limit_bytes

    @property
    def spare_workers(self) -> int:
        return self._registry.pool.ready

    @property
    def is_draining(self) -> bool:
        return self._registry.draining

    def sessions(self) -> Sequence[SessionMessage]:
        return [live_session(session) for session in self._registry.live()]

    def session(self, session_id: str) -> SessionMessage | None:
        ended = self._registry.ended.find(session_id)
        if ended is not None:
            return ended_session(ended)
        session = self._registry.find(session_id)
        return live_session(session) if session is not None else None

    def subscribers(self, session_id: str) -> ListSubscribersResponse | None:
        session = self._registry.find(session_id)
        return subscribers_of(session) if session is not None else None

    def commands(self, session_id: str) -> Sequence[CommandInFlight]:
        session = self._registry.find(session_id)
        if session is None:
            return ()
        return [CommandInFlight(name, age_s) for name, age_s in session.worker.commands.in_flight()]

    async def session_state(
        self, session_id: str, *, include_values: bool, page_size: int, page_token: str = ""
    ) -> GetSessionStateResponse:
        session = self._registry.get(session_id)
        session.require_ready()
        request = w.GetState(include_values=include_values, page_size=page_size, page_token=page_token)
        worker_request = w.CommandRequest(get_state=request)
        reply = await call_worker(session, worker_request, _STATE_TIMEOUT_S, is_use=False)
        return reply.state

    @asynccontextmanager
    async def watch(self, session_id: str, interval_s: float) -> AsyncIterator[AsyncIterator[StreamEventsResponse]]:
        distributor = self._registry.get(session_id).distributor
        name = f"mirror-{secrets.token_hex(4)}"
        subscriber = distributor.attach_internal(name, limits=_MIRROR, policy=_MirrorPolicy(interval_s))
        try:
            yield frames_of(subscriber, distributor.epoch, self._settings.events.batch_bytes)
        finally:
            distributor.detach(subscriber)

    def audit_tail(self, limit: int) -> Sequence[AuditEntry] | None:
        for answer in self._plugins.ask("mxgw_audit_tail", limit=limit):
            if isinstance(answer.error, GatewayError):
                raise answer.error
            if answer.error is None:
                entries: Sequence[AuditEntry] = answer.value
                return entries
        return None

    def plugins(self) -> Sequence[PluginStatus]:
        failures = self._plugins.failures
        return [
            PluginStatus(
                record.name,
                record.state.value,
                record.distribution,
                record.version,
                record.required,
                record.detail,
                {hook: count for (plugin, hook), count in failures.items() if plugin == record.name},
                record.controls_access,
            )
            for record in self._plugins.records
        ]

    def metrics(self) -> Sequence[Metric]:
        return self._metrics.collect()

    def settings(self) -> Sequence[ShownSetting]:
        return [ShownSetting(*setting) for setting in effective_settings(self._settings, self._origins)]
