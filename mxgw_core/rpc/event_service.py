"""EventService: one stream per subscriber, served from the session's log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from mxgw.v1 import event_service_pb2 as pb
from mxgw_core.api.access import AccessRequest, Moment
from mxgw_core.api.calls import Call
from mxgw_core.api.errors import FeatureNotEnabled, GatewayDraining, PositionForeign
from mxgw_core.api.events import StreamPace
from mxgw_core.api.types import Position
from mxgw_core.config.models import EventSettings
from mxgw_core.events.filters import ItemFilters
from mxgw_core.events.frames import heartbeat_frame
from mxgw_core.events.history import Older, Store, find_older, is_older
from mxgw_core.events.pieces import Piece
from mxgw_core.events.stored_items import StoredItems
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.open_streams import OpenCount, drain
from mxgw_core.rpc.outlet import Outlet
from mxgw_core.rpc.snapshots import fetch_snapshot
from mxgw_core.rpc.stream_requests import attach, heartbeat_of, start_of
from mxgw_core.rpc.writers import ResponseWriter
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session

# After an overflow, the last page of a history store may take this share of `overflow_drain_s`. The rest of this time
# is for the delivery of the unread events.
_LAST_PAGE_SHARE = 0.2


class EventService:
    """Implements mxgw.v1.EventService."""

    def __init__(
        self, settings: EventSettings, registry: SessionRegistry, plugins: PluginHost, access: AccessControl
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._plugins = plugins
        self._access = access
        self._open = OpenCount()

    async def StreamEvents(self, request: pb.StreamEventsRequest, call: Call, stream: ResponseWriter) -> None:
        if self._registry.draining:
            raise GatewayDraining("the gateway is shutting down: come back later", retry_after_s=5.0)
        session = self._registry.get(request.session_id)
        session.require_ready()
        asked = request.heartbeat_interval if request.HasField("heartbeat_interval") else None
        heartbeat_s = heartbeat_of(asked, self._settings.heartbeat_interval_s)
        older = await self._older(session, request, call)
        paces = self._access.paces(session.info(), call.identity)
        subscriber = self._attach(session, request, call, older)
        session.attached()
        try:
            with self._open:
                outlet = self._outlet(session, subscriber, paces, stream, heartbeat_s)
                await outlet.run(_in_place_of_the_gap(session, subscriber, older))
        finally:
            if session.distributor.detach(subscriber):
                session.detached()

    # The next methods attach a subscriber.

    async def _older(self, session: Session, request: pb.StreamEventsRequest, call: Call) -> Older | None:
        """Return a history store that has events behind the client's position, if the log does not have all of them."""
        if not request.start.HasField("after"):
            return None

        after, distributor, settings = request.start.after, session.distributor, self._settings

        def store() -> Store | None:
            for answer in self._plugins.ask("mxgw_history", session=session.info()):
                if answer.value is not None:
                    source = f"plugin {answer.plugin} ({self._plugins.source_of(answer.plugin)})"
                    page_s = settings.history_page_timeout_s
                    last_page_s = min(page_s, settings.overflow_drain_s * _LAST_PAGE_SHARE)
                    return Store(
                        *(answer.value, source, page_s, last_page_s, distributor.broken_promises.left), answer.owner
                    )
            return None

        distributor.trim()
        position = Position(after.epoch, after.sequence)
        if not is_older(distributor.log, distributor.epoch, position):
            return None
        is_filtered = bool(self._access.filters(session.info(), call.identity))
        promises = distributor.broken_promises_to_filtered if is_filtered else distributor.broken_promises
        return await find_older(store, distributor.log, distributor.epoch, position, promises)

    def _attach(self, session: Session, request: pb.StreamEventsRequest, call: Call, older: Older | None) -> Subscriber:
        """Check the request and attach a subscriber. Nothing in here waits, so that nothing changes between the two."""
        session.require_ready()
        # Rights are checked again here, because the gateway has perhaps waited for a history store for a while.
        self._access.authorize(
            AccessRequest(
                call.method,
                call.identity,
                call.peer,
                session.id,
                session.info,
                request,
                moment=Moment.ATTACH,
                is_internal=session.request.is_internal,
            )
        )
        start = start_of(request.start)
        distributor = session.distributor
        wants_snapshot = request.start.HasField("snapshot_then_live")
        if (wants_snapshot or request.on_gap == pb.ON_GAP_SNAPSHOT) and not distributor.has_snapshots:
            raise FeatureNotEnabled(
                "snapshots need the plugin replay: enable it in the gateway's settings, or start at oldest_retained",
                metadata={"plugin": "replay"},
            )
        if isinstance(start, Position) and start.epoch != distributor.epoch and self._registry.knows_epoch(start.epoch):
            raise PositionForeign(
                "the position belongs to another session: keep positions apart by session, and start this one at "
                "oldest_retained",
                metadata={"field": "start.after"},
            )
        return attach(
            *(distributor, self._plugins, request, start),
            session=session.info(),
            limits=session.subscriber_limits,
            peer=call.peer.address,
            wants_snapshot=wants_snapshot or (request.with_snapshot and distributor.has_snapshots),
            snapshot_on_gap=(pb.ON_GAP_SNAPSHOT,),
            filters=lambda: self._access.filters(session.info(), call.identity),
            older_until=older.reach if older is not None else None,
        )

    # The next method makes the object that serves a subscriber.

    def _outlet(
        self,
        session: Session,
        subscriber: Subscriber,
        paces: Sequence[StreamPace],
        stream: ResponseWriter,
        heartbeat_s: float,
    ) -> Outlet:
        distributor, filters = session.distributor, subscriber.filters
        # The other kind of filters is only for readers of a plugin's feed.
        assert filters is None or isinstance(filters, ItemFilters)

        def heartbeat(sequence: int) -> bytes:
            worker, head = session.worker, distributor.log.head
            return heartbeat_frame(distributor.epoch, sequence, head, worker.state, worker.health.source)

        return Outlet(
            *(distributor, subscriber, stream, self._settings, heartbeat_s),
            fetch=lambda: fetch_snapshot(session, filters),
            heartbeat=heartbeat,
            paces=paces,
        )

    # The next methods are for the shutdown of the gateway.

    def attached(self) -> int:
        """Return how many streams are open."""
        return self._open.streams

    async def drained(self, timeout_s: float) -> None:
        """Wait until no stream is left, but not longer than `timeout_s`."""
        await self._open.drained(timeout_s)

    def drain(self, retry_after_s: float, deadline_s: float) -> int:
        """Ask every client to come back later, and end each stream after the events in the log.

        Return the number of streams.
        """
        streams = [
            subscriber for session in self._registry.live() for subscriber in session.distributor.subscribers.values()
        ]
        drain(streams, retry_after_s, deadline_s)
        return len(streams)


def _in_place_of_the_gap(
    session: Session, subscriber: Subscriber, older: Older | None
) -> AsyncGenerator[Piece, None] | None:
    """Return the pieces of a history store that are sent instead of the opening gap; None if no store is asked."""
    place, filters = subscriber.place, subscriber.filters
    if older is None or place.gap is None or not place.gap.first:
        return None
    items = StoredItems(session.items) if isinstance(filters, ItemFilters) else None
    pieces = older.in_place_of(
        place.gap,
        session.distributor.epoch,
        is_whole=place.recovered,
        is_ending=lambda: subscriber.end_error is not None,
        items=items,
    )
    if not isinstance(filters, ItemFilters) or items is None:
        return pieces
    return _filtered(pieces, subscriber, ItemFilters(filters.filters, items))


async def _filtered(
    pieces: AsyncGenerator[Piece, None], subscriber: Subscriber, filters: ItemFilters
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of a history store, and let `filters` decide about their events until the last one was sent."""
    subscriber.fed_filters = filters
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
    finally:
        subscriber.fed_filters = None
