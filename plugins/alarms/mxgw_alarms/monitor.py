"""The monitor: owns an internal session, the present provider of alarms, and the book of active alarms.

When the session ends, the monitor opens another session; the pauses between attempts grow. While there is no session,
all alarms are stale, and no alarm is reported as cleared. The alarms that a provider reports are compared with the
alarms in the book, and only differences become events.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection, Mapping, Sequence

from mxgw.convert import timestamp_from_ns
from mxgw.v1 import alarms_pb2 as pb
from mxgw.v1.events_pb2 import (
    SOURCE_HEALTH_DEGRADED,
    SOURCE_HEALTH_GOOD,
    SOURCE_HEALTH_LOST,
    WORKER_STATE_EXITED,
    SourceHealth,
    WorkerState,
)
from mxgw_alarms.attribute_provider import AttributeProvider, discover
from mxgw_alarms.book import NO_ALARM, AlarmBook
from mxgw_alarms.counts import AlarmCounts
from mxgw_alarms.encoding import AlarmsTaken, batch_of
from mxgw_alarms.failover import FALLBACK, NONE, PRIMARY, Failover
from mxgw_alarms.manager_provider import ManagerProvider
from mxgw_alarms.providers import Outcome, Provider
from mxgw_alarms.settings import AlarmsSettings
from mxgw_core.api import (
    Feed,
    FeedDescription,
    Gateway,
    InternalSession,
    Metric,
    QueueLimits,
    Retention,
    SubscriberLimits,
)
from mxgw_core.api.errors import DependencyUnavailable, GatewayError

log = logging.getLogger(__name__)

CLIENT_NAME = "alarm monitor"
# The fallback provider starts when the search for alarms has finished, or at the latest after this time.
_DISCOVERY_S = 10.0
# When a new provider has reported nothing for this time, the monitor announces that no provider reports. The first
# values of a large plant arrive a little earlier (docs/reference/mxaccess.md#first-values).
_PATIENCE_S = 15.0
# When a session has lasted at least this long, the pause before the next attempt is the shortest one again.
_GOOD_SESSION_S = 60.0
_WORDS = {PRIMARY: "the alarm manager", FALLBACK: "sub-attributes", NONE: "nobody"}


class Monitor:
    """Keeps the active alarms up to date while `run` runs. All methods can be called in the event loop at any time.

    Attributes:
        book: the active alarms.
        feed: the log of alarm events, which subscribers read.
        counts: counts for the metrics.
        status: the provider that reports now, and why.
    """

    def __init__(self, gateway: Gateway, settings: AlarmsSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self.book = AlarmBook(settings.maximum_alarms)
        self.counts = AlarmCounts()
        self.feed: Feed = gateway.open_feed(
            FeedDescription(
                "alarms",
                SubscriberLimits(
                    settings.maximum_subscribers,
                    QueueLimits(
                        settings.queue_events, settings.queue_bytes, settings.queue_seconds, section="plugins.alarms"
                    ),
                    setting="plugins.alarms.maximum_subscribers",
                ),
                Retention(settings.events, settings.bytes, settings.seconds),
                self.taken,
                self._health,
            )
        )
        self._failover = Failover(settings.mode, settings.failures_before_switch, settings.probes_before_return)
        self._session: InternalSession | None = None
        self._providers: Mapping[pb.AlarmProvider.ValueType, Provider] = {}
        self._found: set[str] = set()
        self._warned_of_refused = False
        self.status = self._status(NONE, "the monitor has not started yet")

    # the present state, for the feed and the metrics

    def taken(self) -> AlarmsTaken:
        """Return the active alarms as of now."""
        book = self.book
        return AlarmsTaken(
            self.feed.epoch,
            self.feed.head_sequence,
            book.entries(),
            book.is_degraded,
            book.is_stale,
            book.unwatched,
            self.status,
        )

    def metrics(self) -> Sequence[Metric]:
        """Return the metrics of the plugin."""
        alarms = (entry.alarm for entry in self.book.entries())
        return self.counts.metrics(alarms, self.status.provider, self.feed.subscribers)

    def _health(self) -> tuple[WorkerState.ValueType, SourceHealth.ValueType]:
        worker = self._session.worker_state if self._session is not None else WORKER_STATE_EXITED
        match self.status.provider:
            case pb.ALARM_PROVIDER_PRIMARY:
                return worker, SOURCE_HEALTH_GOOD
            case pb.ALARM_PROVIDER_FALLBACK:
                return worker, SOURCE_HEALTH_DEGRADED
            case _:
                return worker, SOURCE_HEALTH_LOST

    # acknowledging alarms

    async def acknowledge(self, references: Sequence[str], comment: str, operator: str) -> Sequence[Outcome]:
        """Acknowledge active alarms; return one outcome for each alarm.

        Raises:
            GatewayError: there is no provider now, or the provider could not reach the source.
        """
        provider = self._providers.get(self.status.provider)
        if provider is None:
            raise DependencyUnavailable(
                f"no provider can be asked at present: {self.status.detail}",
                retry_after_s=self._settings.restart_first_s,
            )
        alarms = [entry.alarm for reference in references if (entry := self.book.get(reference)) is not None]
        return await provider.acknowledge(alarms, comment, operator)

    # the session and its provider

    async def run(self) -> None:
        """Keep a session open and follow its alarms until cancelled."""
        pause_s = self._settings.restart_first_s
        while True:
            began = time.perf_counter()
            detail = await self._one_session()
            self._change(NONE, detail)
            if time.perf_counter() - began >= _GOOD_SESSION_S:
                pause_s = self._settings.restart_first_s
            # A random pause spreads the attempts of several gateways. It is no secret, so `random` is good enough.
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311
            pause_s = min(pause_s * 2, self._settings.restart_longest_s)

    async def _one_session(self) -> str:
        """Open a session and follow its alarms until the session ends; return why it ended, as text for people."""
        try:
            session = await self._gateway.open_internal_session(CLIENT_NAME, self._settings.backend)
        except GatewayError as error:
            if not self._gateway.observation.is_draining:
                log.warning("the alarm monitor has no session: %s", error.message)
            return f"the monitor's session could not be opened: {error.message}"
        self._session = session
        try:
            await self._serve(session)
        except Exception:
            log.exception("the alarm monitor failed; it opens another session")
            return "the monitor failed; the gateway's log has the details"
        finally:
            self._session, self._providers = None, {}
            await session.close()
        info = session.info()
        reason = info.close_reason.name if info.close_reason is not None else "unknown"
        return f"the monitor's session ended ({reason}{f': {info.close_detail}' if info.close_detail else ''})"

    async def _serve(self, session: InternalSession) -> None:
        manager = ManagerProvider(session, self._settings)
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(session.wait_closed(), name="alarms:session")
            looking = tasks.create_task(self._look_around(session), name="alarms:discovery")
            while not ended.done():
                kind = self._failover.active
                if kind == FALLBACK:
                    await asyncio.wait((looking, ended), timeout=_DISCOVERY_S, return_when=asyncio.FIRST_COMPLETED)
                provider: Provider = manager if kind == PRIMARY else self._attributes(session)
                self._providers = {kind: provider}
                reporting = tasks.create_task(provider.run(_Reporting(self, kind)), name="alarms:provider")
                patience = tasks.create_task(self._expect(kind), name="alarms:patience")
                waiting = {ended, reporting}
                if self._failover.probes:
                    waiting.add(tasks.create_task(self._probe(manager), name="alarms:probe"))
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                own = {patience, *waiting} - {ended}
                for task in own:
                    task.cancel()
                await asyncio.wait(own)
            looking.cancel()

    async def _expect(self, kind: pb.AlarmProvider.ValueType) -> None:
        """Wait `_PATIENCE_S`; when the new provider has not reported by then, announce that no provider reports."""
        await asyncio.sleep(_PATIENCE_S)
        if self.status.provider != kind:
            self._change(NONE, f"{_WORDS[kind]} should speak and has not begun to within {_PATIENCE_S:g} s")

    async def _look_around(self, session: InternalSession) -> None:
        """Search for alarms that the fallback could watch. The search can take minutes, so it is a task of its own."""
        settings = self._settings
        if settings.discover and settings.mode != "primary":
            await discover(
                session, settings.discover_below, settings.in_alarm, settings.maximum_alarms, self._found.add
            )

    def _attributes(self, session: InternalSession) -> AttributeProvider:
        references = dict.fromkeys((*self._settings.references, *self._found, *self.book.references))
        return AttributeProvider(session, self._settings, tuple(references)[: self._settings.maximum_alarms])

    async def _probe(self, manager: ManagerProvider) -> None:
        """Probe the primary provider every `probe_interval_s`; return when the primary takes over again."""
        while True:
            await asyncio.sleep(self._settings.probe_interval_s)
            try:
                await manager.probe()
            except GatewayError as error:
                log.debug("the alarm manager is still away: %s", error.message)
                clean = False
            else:
                clean = True
            if self._failover.probed(clean=clean):
                return

    # processing the reports of providers

    def everything(
        self, kind: pb.AlarmProvider.ValueType, alarms: Sequence[pb.Alarm], watched: Collection[str] | None
    ) -> None:
        """Compare a complete report of a provider with the book, and emit events for the differences."""
        events = self.book.reconcile(alarms, watched=watched, degraded=kind == FALLBACK)
        detail = "it answers" if kind == PRIMARY else "the alarm manager does not answer"
        if self._settings.mode == "fallback":
            detail = "plugins.alarms.mode is fallback"
        self._change(kind, f"{_WORDS[kind]}: {detail}", unwatched=len(self.book.unwatched))
        self._emit(events)

    def changed(self, alarms: Sequence[pb.Alarm]) -> None:
        """Update the book with changed alarms from the present provider, and emit the events."""
        self._emit([event for alarm in alarms if (event := self.book.apply(alarm)) is not None])

    def failed(self, kind: pb.AlarmProvider.ValueType, detail: str, *, for_good: bool) -> bool:
        """Count a failure of a provider; return True when the provider must stop, because the fallback takes over."""
        switched = kind == PRIMARY and self._failover.failed(for_good=for_good)
        if switched:
            log.warning("the alarm manager failed, its last words were: %s; sub-attributes take over", detail)
            return True
        failures = self._failover.failures if kind == PRIMARY else self._settings.failures_before_switch
        if failures >= self._settings.failures_before_switch:
            self._change(NONE, f"{_WORDS[kind]} does not answer: {detail}")
        return False

    def _change(self, provider: pb.AlarmProvider.ValueType, detail: str, *, unwatched: int = 0) -> None:
        """Announce which provider reports from now on, if it is not the same as before."""
        previous = self.status.provider
        if provider == NONE:
            self.book.lost()
        if previous == provider:
            return
        self.status = self._status(provider, detail)
        self.counts.switched(provider)
        log.log(
            logging.INFO if provider == PRIMARY else logging.WARNING,
            "alarms come from %s now: %s; %d are active",
            _WORDS[provider],
            detail,
            len(self.book),
        )
        change = pb.ProviderChanged(previous=previous, current=self.status, unwatched_alarms=unwatched)
        self._emit(
            [pb.AlarmEvent(alarm_handle=NO_ALARM, kind=pb.ALARM_EVENT_KIND_PROVIDER_CHANGED, provider_changed=change)]
        )

    def _status(self, provider: pb.AlarmProvider.ValueType, detail: str) -> pb.ProviderStatus:
        return pb.ProviderStatus(
            provider=provider,
            detail=detail[:500],
            since=timestamp_from_ns(time.time_ns()),
            backend=self._settings.backend or self._gateway.default_backend,
        )

    def _emit(self, events: Sequence[pb.AlarmEvent]) -> None:
        if events:
            self.feed.append(batch_of(events, self.feed.head_sequence), len(events))
            self.counts.sent(events)
        if self.book.refused and not self._warned_of_refused:
            self._warned_of_refused = True
            log.warning(
                "there are more than %d different alarms: further ones are left out; raise plugins.alarms."
                "maximum_alarms",
                self._settings.maximum_alarms,
            )

    def worked(self) -> None:
        """Forget the counted failures of the primary provider, because it answered."""
        self._failover.worked()


class _Reporting:
    """The `Reporter` of one provider: passes the provider's reports to the monitor."""

    def __init__(self, monitor: Monitor, kind: pb.AlarmProvider.ValueType) -> None:
        self._monitor = monitor
        self._kind = kind

    def everything(self, alarms: Sequence[pb.Alarm], watched: Collection[str] | None) -> None:
        self._monitor.everything(self._kind, alarms, watched)

    def changed(self, alarms: Sequence[pb.Alarm]) -> None:
        self._monitor.changed(alarms)

    def unseen(self, references: Collection[str]) -> None:
        self._monitor.book.unseen(references)

    def works(self) -> None:
        if self._kind == PRIMARY:
            self._monitor.worked()

    def failed(self, detail: str, *, for_good: bool = False) -> bool:
        return self._monitor.failed(self._kind, detail, for_good=for_good)
