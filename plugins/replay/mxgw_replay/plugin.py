"""The hooks of the plugin: they set the retention and the detach grace, and warn when a log keeps events for a shorter
time than the detach grace.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mxgw_core.api import (
    CloseReason,
    Gateway,
    Metric,
    Retention,
    SessionInfo,
    SettingsSection,
    SubscriberLimits,
    hookimpl,
)
from mxgw_core.api.metrics import gauge
from mxgw_replay.settings import FORMER, ReplaySettings

log = logging.getLogger(__name__)


class ReplayPlugin:
    """Says what the log keeps after delivery, and how long a session waits for a subscriber.

    The gateway itself sends the kept events to a client that resumes.
    """

    def __init__(self) -> None:
        self._settings = ReplaySettings()
        # Ids of the sessions for which a warning was logged, so that there is one warning for each session.
        self.warned: set[str] = set()

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[ReplaySettings]:
        return SettingsSection("replay", ReplaySettings, self._configure, FORMER)

    def _configure(self, settings: ReplaySettings) -> None:
        self._settings = settings

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._running(gateway)

    @asynccontextmanager
    async def _running(self, gateway: Gateway) -> AsyncIterator[None]:
        self._warn_if_short_of_grace()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch_horizons(gateway), name="replay:horizons")
            try:
                yield
            finally:
                watching.cancel()

    @hookimpl
    def mxgw_check_settings(self, limits: SubscriberLimits) -> Sequence[str]:
        # A client that is disconnected for overflow first reads its whole queue. Meanwhile the same number of events
        # can arrive, and the log must still have them when the client resumes. So the log needs twice the size of the
        # queue.
        queue = limits.queue
        problems = []
        if self._settings.events < 2 * queue.events:
            problems.append(
                f"plugins.replay.events is {self._settings.events}, which is less than twice the subscribers' queue of "
                f"{queue.events} events: a client that was cut for overflow could not resume; raise it to "
                f"{2 * queue.events}, or lower the queue"
            )
        if self._settings.bytes < 2 * queue.bytes:
            problems.append(
                f"plugins.replay.bytes is {self._settings.bytes}, which is less than twice the subscribers' queue of "
                f"{queue.bytes} bytes: raise it to {2 * queue.bytes}, or lower the queue"
            )
        return problems

    def _warn_if_short_of_grace(self) -> None:
        seconds, grace_s = self._settings.seconds, self._settings.detach_grace_seconds
        if grace_s != "none" and 0 < seconds < grace_s:
            log.warning(
                "plugins.replay.seconds is %g, less than detach_grace_seconds, %g: who comes back between the two gets "
                "a gap; raise seconds, or lower the grace",
                seconds,
                grace_s,
            )

    @hookimpl
    def mxgw_retention(self, session: SessionInfo) -> Retention:
        del session
        s = self._settings
        return Retention(s.events, s.bytes, s.seconds, snapshots=s.snapshots)

    @hookimpl
    def mxgw_detach_grace(self, session: SessionInfo) -> float:
        del session
        grace_s = self._settings.detach_grace_seconds
        return math.inf if grace_s == "none" else grace_s

    @hookimpl
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        del reason
        self.warned.discard(session.session_id)

    @hookimpl
    def mxgw_metrics(self) -> Sequence[Metric]:
        grace_s = self._settings.detach_grace_seconds
        return [
            gauge(
                "mxgw_replay_detach_grace_seconds",
                "How long a session outlives its last subscriber (plugins.replay.detach_grace_seconds).",
                None if grace_s == "none" else grace_s,
            )
        ]

    async def _watch_horizons(self, gateway: Gateway) -> None:
        while True:
            await asyncio.sleep(self._settings.horizon_check_s)
            self.check_horizons(gateway.sessions())

    def check_horizons(self, sessions: Sequence[SessionInfo]) -> None:
        """Log a warning for each session whose log keeps events for a shorter time than the detach grace.

        That time is calculated from the present rate of events. Only one warning is logged for each session.
        """
        for session in sessions:
            self._warn_if_short(session)

    def _warn_if_short(self, session: SessionInfo) -> None:
        grace_s = self._settings.detach_grace_seconds
        if grace_s == "none" or session.horizon_s is None or session.session_id in self.warned:
            return
        if session.horizon_s < grace_s:
            self.warned.add(session.session_id)
            log.warning(
                "session %s: at its present rate the log reaches back %.1f s, less than the detach grace of %g s: who "
                "comes back later than that gets a gap; raise plugins.replay.events and .bytes, or lower "
                "detach_grace_seconds",
                session.session_id,
                session.horizon_s,
                grace_s,
            )
