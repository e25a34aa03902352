"""Feeds, which are event streams of plugins. A feed has its own distributor, and is served by the same class Outlet."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mxgw.v1.event_service_pb2 import ON_GAP_SNAPSHOT, ON_GAP_UNSPECIFIED
from mxgw_core.api.calls import Call, ResponseStream
from mxgw_core.api.errors import GatewayDraining, PluginFailed
from mxgw_core.api.feeds import FeedDescription, FeedFilter, FeedRequest, FeedSnapshot
from mxgw_core.api.types import SessionInfo, SessionState
from mxgw_core.config.models import EventSettings
from mxgw_core.events.distributor import NOTHING_RETAINED, Distributor
from mxgw_core.events.frames import heartbeat_frame
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.calls import Owner
from mxgw_core.plugins.objects import plugin_feed
from mxgw_core.rpc.open_streams import OpenCount, drain
from mxgw_core.rpc.outlet import Outlet
from mxgw_core.rpc.stream_requests import EPOCH_BYTES, attach, start_of
from mxgw_core.rpc.writers import ResponseWriter

# How often limits in seconds are checked for a feed. (For a session, this is done together with the regular check
# whether the worker still answers.)
_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A plugin's snapshot. `sequence` is the head of the feed when the snapshot was taken."""

    sequence: int
    snapshot: FeedSnapshot
    filters: Sequence[FeedFilter]

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        return self.snapshot.frames(self.filters, limit_bytes)


class PluginFeed:
    """Implements api.Feed. A feed belongs to the plugin whose code runs when this object is made."""

    def __init__(
        self, description: FeedDescription, settings: EventSettings, plugins: PluginHost, owner: Owner | None
    ) -> None:
        self._description = plugin_feed(description, owner)
        self._settings = settings
        self._plugins = plugins
        self._opened_at = time.time()
        self._is_draining = False
        self._failure: Callable[[], PluginFailed] | None = None
        self._check: asyncio.TimerHandle | None = None
        self.open = OpenCount()
        self.distributor = Distributor(unattached=NOTHING_RETAINED)
        self.distributor.epoch = secrets.token_bytes(EPOCH_BYTES)
        self.distributor.retain(description.retention)

    @property
    def epoch(self) -> bytes:
        return self.distributor.epoch

    @property
    def head_sequence(self) -> int:
        return self.distributor.log.head

    @property
    def subscribers(self) -> int:
        return len(self.distributor.subscribers)

    def append(self, batch: bytes, events: int) -> None:
        first = self.head_sequence + 1
        self.distributor.append(first, first + events - 1, batch)
        self.distributor.flush()
        self._arm_check()

    async def serve(self, request: FeedRequest, call: Call, stream: ResponseStream) -> None:
        assert isinstance(stream, ResponseWriter)  # every stream that the gateway gives to a call is a writer
        subscriber = self._attach(request, call)
        self._arm_check()
        try:
            with self.open:
                await self._outlet(subscriber, request, stream).run()
        finally:
            self.distributor.detach(subscriber)

    def _attach(self, request: FeedRequest, call: Call) -> Subscriber:
        """Attach a subscriber, and ask for a snapshot if the client wants one.

        Nothing here waits, so nothing changes meanwhile.
        """
        if self._failure is not None:
            raise self._failure()
        if self._is_draining:
            raise GatewayDraining("the gateway is shutting down: come back later", retry_after_s=5.0)
        start = Start.NOW if request.start is None else start_of(request.start)
        wants_snapshot = request.with_snapshot or request.start is None or request.start.HasField("snapshot_then_live")
        return attach(
            *(self.distributor, self._plugins, request, start),
            session=self._info(),
            limits=self._description.limits,
            peer=call.peer.address,
            wants_snapshot=wants_snapshot,
            snapshot_on_gap=(ON_GAP_UNSPECIFIED, ON_GAP_SNAPSHOT),
            feed_filters=request.filters,
        )

    def _info(self) -> SessionInfo:
        """Return the feed described as if it were a session, because overflow policies are given a `SessionInfo`."""
        log = self.distributor.log
        return SessionInfo(
            session_id=f"feed:{self._description.name}",
            state=SessionState.READY,
            owner="",
            client_name=self._description.name,
            tag="",
            backend="",
            opened_at=self._opened_at,
            epoch=self.epoch,
            head_sequence=log.head,
            oldest_sequence=log.oldest,
            subscribers=self.subscribers,
            worker_pid=0,
        )

    def _outlet(self, subscriber: Subscriber, request: FeedRequest, stream: ResponseWriter) -> Outlet:
        distributor, description = self.distributor, self._description

        async def taken() -> _Taken:
            return _Taken(distributor.log.head, description.snapshot(), request.filters)

        def heartbeat(sequence: int) -> bytes:
            return heartbeat_frame(distributor.epoch, sequence, distributor.log.head, *description.health())

        heartbeat_s = self._settings.heartbeat_interval_s if request.heartbeat_s is None else request.heartbeat_s
        return Outlet(*(distributor, subscriber, stream, self._settings, heartbeat_s), fetch=taken, heartbeat=heartbeat)

    def _arm_check(self) -> None:
        if self._check is None and not self._is_draining:
            self._check = asyncio.get_running_loop().call_later(_CHECK_S, self._look)

    def _look(self) -> None:
        self._check = None
        self.distributor.check()
        if self.distributor.subscribers or (self.distributor.log.events and self._description.retention.seconds):
            self._arm_check()

    def drain(self, retry_after_s: float, deadline_s: float) -> int:
        """Ask every client to come back later, and refuse new streams; return how many streams are open."""
        self._stop_checks()
        streams: Sequence[Subscriber] = tuple(self.distributor.subscribers.values())
        drain(streams, retry_after_s, deadline_s)
        return len(streams)

    def end(self, failure: Callable[[], PluginFailed]) -> None:
        """End all streams after the events that are in the log, and refuse new ones. `failure` makes the errors."""
        self._failure = failure
        self._stop_checks()
        for subscriber in self.distributor.subscribers.values():
            subscriber.finish(failure())

    def _stop_checks(self) -> None:
        self._is_draining = True
        if self._check is not None:
            self._check.cancel()
            self._check = None
