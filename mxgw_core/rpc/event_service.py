"""EventService: one stream per subscriber, served from the session's log."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import event_service_pb2 as pb
from mxgw.v1.events_pb2 import StreamOpened
from mxgw_core.api.access import AccessRequest, Moment
from mxgw_core.api.errors import (
    FeatureNotEnabled,
    GatewayDraining,
    GatewayError,
    InvalidRequest,
    PositionForeign,
    PositionLost,
    SubscriberExists,
    SubscriberLimitReached,
)
from mxgw_core.api.events import History, OverflowPolicy, PolicyRequest, StreamPace, SubscriberLimits
from mxgw_core.api.gateway import Call, ResponseStream
from mxgw_core.api.types import Position
from mxgw_core.config.models import EventSettings
from mxgw_core.events.distributor import Subscription
from mxgw_core.events.endings import cut_error
from mxgw_core.events.frames import draining_frame, gap_frame, heartbeat_frame, progress_frame
from mxgw_core.events.items import Control, End, Progress, SnapshotDue, SnapshotWanted
from mxgw_core.events.lead_in import lead_in, newest_of
from mxgw_core.events.log import Chunk, LogGap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.events.verdict import Start, decide
from mxgw_core.plugins import PluginHost
from mxgw_core.printable import printable
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.direct import DirectStream, DirectWriter
from mxgw_core.rpc.pacing import PACED_BYTES, Pacing
from mxgw_core.rpc.silence import Silence
from mxgw_core.rpc.snapshots import SnapshotMessages, fetch_snapshot, snapshot_frames
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session

_EPOCH_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Older:
    """A store of older events that reaches back to where a client resumes, and the newest event it has."""

    history: History
    newest: int


class EventStream(ResponseStream, DirectStream, Protocol):
    """What the events of a subscriber are written to."""


class EventService:
    """Implements mxgw.v1.EventService."""

    def __init__(
        self, settings: EventSettings, registry: SessionRegistry, plugins: PluginHost, access: AccessControl
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._plugins = plugins
        self._access = access
        self._streams = 0
        # Set while no stream is served.
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def StreamEvents(self, request: pb.StreamEventsRequest, call: Call, stream: EventStream) -> None:
        if self._registry.draining:
            raise GatewayDraining("the gateway is shutting down: come back later", retry_after_s=5.0)
        session = self._registry.get(request.session_id)
        session.require_ready()
        heartbeat_s = self._heartbeat(request)
        older = await self._older(session, request, call)
        paces = self._access.paces(session.info(), call.identity)
        subscription = self._attach(session, request, call, older)
        subscriber = subscription.subscriber
        session.attached()
        self._streams += 1
        self._none_left.clear()
        try:
            await self._serve(session, subscription, older, paces, stream, heartbeat_s)
        finally:
            self._streams -= 1
            if not self._streams:
                self._none_left.set()
            if session.distributor.detach(subscriber):
                session.detached()

    # attaching

    async def _older(self, session: Session, request: pb.StreamEventsRequest, call: Call) -> _Older | None:
        """Return a store that reaches back to where the client wants to resume, when the log does not.

        None for callers with a filter: what an item's handle stood for so long ago cannot be known.
        """
        distributor = session.distributor
        after = request.start.after
        if not (
            request.start.HasField("after")
            and after.epoch == distributor.epoch
            and after.sequence < distributor.log.oldest - 1
        ) or self._access.filters(session.info(), call.identity):
            return None
        for answer in self._plugins.ask("mxgw_history", session=session.info()):
            history: History | None = answer.value
            newest = None if history is None else await newest_of(history, after.epoch, after.sequence)
            if history is not None and newest is not None:
                return _Older(history, newest)
        return None

    def _attach(
        self, session: Session, request: pb.StreamEventsRequest, call: Call, older: _Older | None
    ) -> Subscription:
        """Check the request and place the cursor; nothing in here waits, so nothing can come in between."""
        session.require_ready()
        # Waiting for a history store may have taken a while: judge again, in the step that attaches.
        self._access.authorize(
            AccessRequest(
                call.method, call.identity, call.peer, session.id, session.info(), request, moment=Moment.ATTACH
            )
        )
        start = _start_of(request)
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
        if isinstance(start, Position) and request.on_gap == pb.ON_GAP_REFUSE:
            verdict = decide(distributor.log, distributor.epoch, start)
            is_stored = older is not None and verdict.gap is not None and 0 < verdict.gap.last <= older.newest
            if not verdict.recovered and not is_stored:
                raise PositionLost(
                    verdict.gap.detail if verdict.gap else "the position is lost",
                    metadata={
                        "epoch": distributor.epoch.hex(),
                        "oldest_sequence": str(distributor.log.oldest),
                        "head_sequence": str(distributor.log.head),
                    },
                )
        limits = session.subscriber_limits
        self._check_room(session, limits)
        subscriber_id = secrets.token_hex(4)
        policy, source = self._policy(session, request, subscriber_id, limits)
        subscription = distributor.attach(
            subscriber_id,
            start,
            limits=limits.queue,
            policy=policy,
            policy_source=source,
            filters=self._access.filters(session.info(), call.identity),
            client_name=printable(request.client_name, 128),
            peer=call.peer.address,
            older_until=older.newest if older is not None else None,
        )
        lost = subscription.verdict.was_resuming and not subscription.verdict.recovered
        wants_snapshot = wants_snapshot or (request.with_snapshot and distributor.has_snapshots)
        if wants_snapshot or (lost and request.on_gap == pb.ON_GAP_SNAPSHOT):
            subscription.subscriber.want_snapshot()
        return subscription

    def _check_room(self, session: Session, limits: SubscriberLimits) -> None:
        attached = len(session.distributor.subscribers)
        if attached < limits.maximum:
            return
        if limits.maximum == 1:
            raise SubscriberExists(
                "the session has its one subscriber: end that stream first, or "
                + (f"change {limits.setting}" if limits.setting else "enable the plugin backpressure for more"),
                metadata={"subscribers": "1", "setting": limits.setting or "plugins.enabled"},
            )
        raise SubscriberLimitReached(
            f"the session has {attached} subscribers, as many as it may have: end one, or raise "
            + (limits.setting or "the limit of the plugin that sets it"),
            metadata={"subscribers": str(attached), "setting": limits.setting},
        )

    def _policy(
        self, session: Session, request: pb.StreamEventsRequest, subscriber_id: str, limits: SubscriberLimits
    ) -> tuple[OverflowPolicy, str]:
        """Return the policy and who brought it."""
        asked = request.policy.name
        answers = self._plugins.ask(
            "mxgw_overflow_policy",
            request=PolicyRequest(
                session=session.info(),
                subscriber_id=subscriber_id,
                client_name=request.client_name,
                name=asked,
                parameters=dict(request.policy.parameters),
                limits=limits.queue,
            ),
        )
        for answer in answers:
            if isinstance(answer.error, GatewayError):
                raise answer.error
            if answer.value is not None:
                return answer.value, self._plugins.source_of(answer.plugin)
        if asked in ("", "disconnect"):
            return DisconnectPolicy(), "mxgw"
        if failed := [answer.plugin for answer in answers if answer.error is not None]:
            raise InvalidRequest(
                f"the overflow policy {asked!r} cannot be had: plugin {', '.join(failed)} failed, as the gateway's "
                "log says; ask for disconnect",
                metadata={"field": "policy"},
            )
        raise InvalidRequest(
            f"no plugin of this gateway brings the overflow policy {asked!r}: ask for disconnect, or enable the plugin",
            metadata={"field": "policy"},
        )

    def _heartbeat(self, request: pb.StreamEventsRequest) -> float:
        if not request.HasField("heartbeat_interval"):
            return self._settings.heartbeat_interval_s
        seconds = duration_to_seconds(request.heartbeat_interval)
        if not 1 <= seconds <= 60:
            raise InvalidRequest(
                f"heartbeat_interval is {seconds:g} s; it must lie between 1 and 60 s",
                metadata={"field": "heartbeat_interval"},
            )
        return seconds

    # serving

    async def _serve(
        self,
        session: Session,
        subscription: Subscription,
        older: _Older | None,
        paces: Sequence[StreamPace],
        stream: EventStream,
        heartbeat_s: float,
    ) -> None:
        subscriber, distributor = subscription.subscriber, session.distributor
        await stream.write(self._opened(session, subscription, heartbeat_s))
        loop = asyncio.get_running_loop()
        silence = Silence(subscriber, heartbeat_s)
        drain_s = self._settings.overflow_drain_s
        snapshot = SnapshotMessages(distributor.epoch, 0, ())
        pacing = Pacing(paces, subscriber)
        batch_bytes = min(self._settings.batch_bytes, PACED_BYTES) if pacing else self._settings.batch_bytes
        direct = DirectWriter(subscriber, stream, silence, batch_bytes)
        try:
            # A reader that stopped cannot be told anything: once its stream is over, it gets this long per message.
            async with asyncio.timeout(None) as cutoff:
                subscriber.on_end = lambda: cutoff.reschedule(loop.time() + drain_s)
                if subscriber.end is not None:  # it came while StreamOpened was written
                    subscriber.on_end()
                gap = subscription.verdict.gap
                if older is not None and gap is not None and gap.first:
                    async with aclosing(lead_in(older.history, distributor.epoch, gap.first - 1, gap.last)) as pieces:
                        async for piece in pieces:
                            if (passed := subscriber.passed(piece)) is not None:
                                await pacing.until_due()
                                await stream.write(_encoded(passed, distributor.epoch))
                                pacing.sent(passed)
                                silence.broken()
                while True:
                    if pacing and (held_s := pacing.held_s()) > 0:
                        await asyncio.sleep(held_s)
                        if silence.is_due():
                            await stream.write(self._heartbeat_of(session, subscriber))
                            silence.broken()
                        continue
                    match direct.take():
                        case Chunk(frame=frame) as chunk if pacing:
                            await stream.write(frame)
                            pacing.sent(chunk)
                        case Chunk(frame=frame) | Control(frame):
                            await stream.write(frame)
                        case LogGap() | Progress() as item:
                            await stream.write(_encoded(item, distributor.epoch))
                        case SnapshotWanted():
                            try:
                                snapshot = await fetch_snapshot(session)
                            except GatewayError:
                                if subscriber.end is None:
                                    raise
                            else:  # when the session ended meanwhile, what is unread is still delivered
                                subscriber.snapshot_fetched(snapshot.sequence)
                        case SnapshotDue():
                            for frame in snapshot_frames(snapshot, subscriber.filters, self._settings.batch_bytes):
                                await stream.write(frame)
                                silence.broken()
                        case End(error):
                            raise error
                        case None if silence.is_due():
                            await stream.write(self._heartbeat_of(session, subscriber))
                        case None:
                            # A paced stream is written by this task only, which keeps the pace.
                            await (subscriber.wait() if pacing else direct.wait())
                            continue
                    silence.broken()
                    direct.written = subscriber.delivered
                    if subscriber.end is not None:
                        cutoff.reschedule(loop.time() + drain_s)
        except TimeoutError:
            assert subscriber.end is not None
            raise cut_error(subscriber.end.error, direct.written, drain_s) from None
        finally:
            subscriber.on_end = None
            silence.cancel()

    def _heartbeat_of(self, session: Session, subscriber: Subscriber) -> bytes:
        distributor, worker = session.distributor, session.worker
        return heartbeat_frame(
            distributor.epoch, subscriber.delivered, distributor.log.head, worker.state, worker.health.source
        )

    def _opened(self, session: Session, subscription: Subscription, heartbeat_s: float) -> bytes:
        log, verdict, subscriber = session.distributor.log, subscription.verdict, subscription.subscriber
        horizon_s = session.distributor.horizon_s
        return pb.StreamEventsResponse(
            opened=StreamOpened(
                epoch=session.distributor.epoch,
                # In front of the gap that follows: whoever is cut before it came resumes there, and is told again.
                from_sequence=verdict.gap.first - 1 if verdict.gap and verdict.gap.first else verdict.cursor,
                head_sequence=log.head,
                oldest_sequence=log.oldest,
                was_resuming=verdict.was_resuming,
                recovered=verdict.recovered,
                heartbeat_interval=duration_from_seconds(heartbeat_s),
                policy=subscriber.policy.name,
                subscriber_id=subscriber.id,
                horizon=None if horizon_s is None else duration_from_seconds(horizon_s),
            )
        ).SerializeToString()

    # shutting down

    def attached(self) -> int:
        """Return how many streams there are."""
        return self._streams

    async def drained(self, timeout_s: float) -> None:
        """Return once no stream is left, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        except TimeoutError:
            pass

    def drain(self, retry_after_s: float, deadline_s: float) -> int:
        """Tell every stream to come back later, and end each once it has what is in the log; return how many."""
        frame = draining_frame(retry_after_s, deadline_s)
        error = GatewayDraining(
            "the gateway is shutting down: come back later with your last position", retry_after_s=retry_after_s
        )
        streams: Sequence[Subscriber] = [
            subscriber for session in self._registry.live() for subscriber in session.distributor.subscribers.values()
        ]
        for subscriber in streams:
            subscriber.send(frame)
            subscriber.finish(error)
        return len(streams)


def _encoded(item: Chunk | LogGap | Progress, epoch: bytes) -> bytes:
    match item:
        case Chunk(frame=frame):
            return frame
        case LogGap() as gap:
            return gap_frame(epoch, gap)
        case Progress(sequence):
            return progress_frame(epoch, sequence)


def _start_of(request: pb.StreamEventsRequest) -> Start | Position:
    match request.start.WhichOneof("start"):
        case "now":
            return Start.NOW
        case "after":
            epoch = request.start.after.epoch
            if len(epoch) != _EPOCH_BYTES:
                raise InvalidRequest(
                    f"the position's epoch has {len(epoch)} bytes, it must have {_EPOCH_BYTES}: send back what the "
                    "gateway gave you, unchanged",
                    metadata={"field": "start.after.epoch"},
                )
            return Position(epoch, request.start.after.sequence)
        case "snapshot_then_live":
            return Start.NOW
        case _:
            return Start.OLDEST_RETAINED
