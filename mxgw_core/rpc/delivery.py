"""Serving one subscriber: what every numbered stream has in common, whoever fills its log.

The stream of a session and the feed of a plugin are the same here: a distributor to read from, a way to fetch a
snapshot, and what a heartbeat says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import event_service_pb2 as pb
from mxgw.v1.events_pb2 import StreamOpened
from mxgw_core.api.errors import (
    GatewayDraining,
    GatewayError,
    InvalidRequest,
    PositionLost,
    SubscriberExists,
    SubscriberLimitReached,
)
from mxgw_core.api.events import OverflowPolicy, PolicyRequest, StreamPace, SubscriberLimits
from mxgw_core.api.slices import turn
from mxgw_core.api.types import Position
from mxgw_core.config.models import EventSettings
from mxgw_core.events.distributor import Distributor, Subscription
from mxgw_core.events.endings import cut_error
from mxgw_core.events.frames import draining_frame, gap_frame, progress_frame
from mxgw_core.events.items import Control, End, Progress, SnapshotDue, SnapshotWanted
from mxgw_core.events.log import Chunk, LogGap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.events.verdict import Start
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.direct import DirectWriter, EventStream
from mxgw_core.rpc.pacing import PACED_BYTES, Pacing
from mxgw_core.rpc.silence import Silence

_EPOCH_BYTES = 16


class Fetched(Protocol):
    """A snapshot at hand: the state as of `sequence`."""

    @property
    def sequence(self) -> int: ...

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield it in frames of about `limit_bytes`, of what its reader may see, and its end.

        An empty frame is none: it lets others have their turn.
        """


FetchSnapshot: TypeAlias = Callable[[], Awaitable[Fetched]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One stream being served. `heartbeat` returns the frame for a subscriber that stands at a sequence."""

    distributor: Distributor
    subscription: Subscription
    stream: EventStream
    settings: EventSettings
    heartbeat_s: float
    fetch: FetchSnapshot
    heartbeat: Callable[[int], bytes]
    # Older events from an outside store, in place of the gap that the verdict names; None while it is waited for.
    older: AsyncGenerator[Chunk | LogGap | None, None] | None = None
    paces: Sequence[StreamPace] = ()

    async def run(self) -> None:
        """Serve until the stream is over.

        Raises:
            GatewayError: why it is over.
        """
        subscriber, epoch, stream = self.subscription.subscriber, self.distributor.epoch, self.stream
        batch_bytes, drain_s = self.settings.batch_bytes, self.settings.overflow_drain_s
        await stream.write(self._opened())
        loop = asyncio.get_running_loop()
        silence = Silence(subscriber, self.heartbeat_s)
        snapshot: Fetched | None = None
        pacing = Pacing(self.paces, subscriber)
        if pacing:
            batch_bytes = min(batch_bytes, PACED_BYTES)
        direct = DirectWriter(subscriber, stream, silence, batch_bytes)

        async def beat() -> None:
            if silence.is_due():
                await stream.write(self.heartbeat(subscriber.delivered))
                silence.broken()

        async def hold() -> None:
            while (held_s := pacing.held_s()) > 0:
                await asyncio.sleep(held_s)
                await beat()

        try:
            # A reader that stopped cannot be told anything: once its stream is over, it gets this long per message.
            async with asyncio.timeout(None) as cutoff:
                subscriber.on_end = lambda: cutoff.reschedule(loop.time() + drain_s)
                if subscriber.end is not None:  # it came while StreamOpened was written
                    subscriber.on_end()
                if self.older is not None:
                    async with aclosing(self.older) as pieces:
                        async for piece in pieces:
                            if piece is None:
                                await beat()
                                continue
                            await hold()
                            await subscriber.judged(piece)
                            if (passed := subscriber.passed(piece)) is not None:
                                pacing.sent(passed)
                                await stream.write(encoded(passed, epoch))
                                silence.broken()
                            direct.written = subscriber.delivered
                while True:
                    if pacing:
                        await hold()
                    match direct.take():
                        case Chunk(frame=frame) as chunk if pacing:
                            pacing.sent(chunk)  # before its reader can know of it
                            await stream.write(frame)
                        case Chunk(frame=frame) | Control(frame):
                            await stream.write(frame)
                        case LogGap() | Progress() as item:
                            await stream.write(encoded(item, epoch))
                        case SnapshotWanted():
                            try:
                                snapshot = await self.fetch()
                            except GatewayError:
                                if subscriber.end is None:
                                    raise
                            else:  # when the session ended meanwhile, what is unread is still delivered
                                subscriber.snapshot_fetched(snapshot.sequence)
                        case SnapshotDue():
                            assert snapshot is not None  # due because it was fetched
                            for frame in snapshot.frames(batch_bytes):
                                if frame:
                                    await stream.write(frame)
                                    silence.broken()
                                else:
                                    await turn()
                            snapshot = None
                        case End(error):
                            raise error
                        case None if silence.is_due():
                            await stream.write(self.heartbeat(subscriber.delivered))
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

    def _opened(self) -> bytes:
        log, verdict, subscriber = self.distributor.log, self.subscription.verdict, self.subscription.subscriber
        horizon_s = self.distributor.horizon_s
        return pb.StreamEventsResponse(
            opened=StreamOpened(
                epoch=self.distributor.epoch,
                # In front of the gap that follows: whoever is cut before it came resumes there, and is told again.
                from_sequence=verdict.gap.first - 1 if verdict.gap and verdict.gap.first else verdict.cursor,
                head_sequence=log.head,
                oldest_sequence=log.oldest,
                was_resuming=verdict.was_resuming,
                recovered=verdict.recovered,
                heartbeat_interval=duration_from_seconds(self.heartbeat_s),
                policy=subscriber.policy.name,
                subscriber_id=subscriber.id,
                horizon=None if horizon_s is None else duration_from_seconds(horizon_s),
            )
        ).SerializeToString()


# what a request asks for


def start_of(start: pb.StartPosition) -> Start | Position:
    """Return where a stream is to begin; `snapshot_then_live` begins now.

    Raises:
        InvalidRequest: the position is none.
    """
    match start.WhichOneof("start"):
        case "now":
            return Start.NOW
        case "after":
            epoch = start.after.epoch
            if len(epoch) != _EPOCH_BYTES:
                raise InvalidRequest(
                    f"the position's epoch has {len(epoch)} bytes, it must have {_EPOCH_BYTES}: send back what the "
                    "gateway gave you, unchanged",
                    metadata={"field": "start.after.epoch"},
                )
            return Position(epoch, start.after.sequence)
        case "snapshot_then_live":
            return Start.NOW
        case _:
            return Start.OLDEST_RETAINED


def heartbeat_of(asked: Duration | None, default_s: float) -> float:
    """Return the silence before a heartbeat, in seconds.

    Raises:
        InvalidRequest: it is out of range.
    """
    if asked is None:
        return default_s
    seconds = duration_to_seconds(asked)
    if not 1 <= seconds <= 60:
        raise InvalidRequest(
            f"heartbeat_interval is {seconds:g} s; it must lie between 1 and 60 s",
            metadata={"field": "heartbeat_interval"},
        )
    return seconds


def check_room(distributor: Distributor, limits: SubscriberLimits) -> None:
    """Make sure that one more subscriber may attach.

    Raises:
        SubscriberExists: there may be one, and it is there.
        SubscriberLimitReached: there are as many as there may be.
    """
    attached = len(distributor.subscribers)
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


def policy_of(plugins: PluginHost, request: PolicyRequest) -> tuple[OverflowPolicy, str]:
    """Return the policy that was asked for and who brought it.

    Raises:
        GatewayError: nobody brings it, or a plugin refuses.
    """
    asked = request.name
    answers = plugins.ask("mxgw_overflow_policy", request=request)
    for answer in answers:
        if isinstance(answer.error, GatewayError):
            raise answer.error
        if answer.value is not None:
            return answer.value, plugins.source_of(answer.plugin)
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


def position_lost(distributor: Distributor, gap: LogGap | None) -> PositionLost:
    """Return the refusal of a resume that would not be complete."""
    return PositionLost(
        gap.detail
        if gap
        else "events behind the position were lost at the worker: ask for ON_GAP_DELIVER_RETAINED to be told which",
        metadata={
            "epoch": distributor.epoch.hex(),
            "oldest_sequence": str(distributor.log.oldest),
            "head_sequence": str(distributor.log.head),
        },
    )


def drain(subscribers: Sequence[Subscriber], retry_after_s: float, deadline_s: float) -> None:
    """Tell streams to come back later, and end each once it has what is in the log."""
    frame = draining_frame(retry_after_s, deadline_s)
    error = GatewayDraining(
        "the gateway is shutting down: come back later with your last position", retry_after_s=retry_after_s
    )
    for subscriber in subscribers:
        subscriber.send(frame)
        subscriber.finish(error)


class OpenCount:
    """How many streams are served, and waiting for none to be left."""

    def __init__(self) -> None:
        self.streams = 0
        # Set while no stream is served.
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __enter__(self) -> None:
        self.streams += 1
        self._none_left.clear()

    def __exit__(self, *exc_info: object) -> None:
        self.streams -= 1
        if not self.streams:
            self._none_left.set()

    async def drained(self, timeout_s: float) -> None:
        """Return once no stream is left, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        except TimeoutError:
            pass


def encoded(item: Chunk | LogGap | Progress, epoch: bytes) -> bytes:
    """Return the frame of what a subscriber takes."""
    match item:
        case Chunk(frame=frame):
            return frame
        case LogGap() as gap:
            return gap_frame(epoch, gap)
        case Progress(sequence):
            return progress_frame(epoch, sequence)
