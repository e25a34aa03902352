"""What one subscriber's stream sends, and when: the only writer of a stream of numbered events.

The stream of a session and the feed of a plugin are the same here: a distributor to read from, a way to fetch a
snapshot, and what a heartbeat says.

`pump` writes what there is until the transport does not take more at once. It is called when events arrive, when a
write has ended, and by timers, so that events are written in the very step that appends them and no task has to be
woken. The stream's own task, in `run`, does what takes long (a snapshot, the pages of a history store, a turn for
others between the answers of filters), and otherwise waits for the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias

from mxgw.convert import duration_from_seconds
from mxgw.v1 import event_service_pb2 as pb
from mxgw.v1.events_pb2 import StreamOpened
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import StreamPace
from mxgw_core.api.slices import turn
from mxgw_core.config.models import EventSettings
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.frames import gap_frame, progress_frame
from mxgw_core.events.overflow import cut_error
from mxgw_core.events.pieces import Chunk, Gap, Piece
from mxgw_core.events.snapshot_place import SnapshotDue, SnapshotWanted
from mxgw_core.events.subscriber import Control, End, Output, Progress, Subscriber
from mxgw_core.rpc.writers import ResponseWriter

# A stream with a pace is sent pieces of about this size, a few dozen events, so that few go out at once.
_PACED_BYTES = 4 * 1024
# While its pace holds it back, it is looked at this often whether it goes on: it may have ended.
_LONGEST_HOLD_S = 0.25


class Fetched(Protocol):
    """A snapshot at hand: the state as of `sequence`."""

    @property
    def sequence(self) -> int: ...

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield it in frames of about `limit_bytes`, of what its reader may see, and its end.

        An empty frame is not to be sent: it asks for a turn of others.
        """


FetchSnapshot: TypeAlias = Callable[[], Awaitable[Fetched]]


class Outlet:
    """Serves one subscriber. Lives in the event loop.

    Args:
        fetch: returns a snapshot.
        heartbeat: returns the heartbeat's frame for a subscriber that was handed everything up to a sequence.
        heartbeat_s: a heartbeat is sent when nothing else was for so long.
        paces: hold the stream's events back; the slowest counts.
    """

    def __init__(
        self,
        distributor: Distributor,
        subscriber: Subscriber,
        writer: ResponseWriter,
        settings: EventSettings,
        heartbeat_s: float,
        *,
        fetch: FetchSnapshot,
        heartbeat: Callable[[int], bytes],
        paces: Sequence[StreamPace] = (),
    ) -> None:
        self._distributor = distributor
        self._subscriber = subscriber
        self._writer = writer
        self._batch_bytes = min(settings.batch_bytes, _PACED_BYTES) if paces else settings.batch_bytes
        self._drain_s = settings.overflow_drain_s
        self._heartbeat_s = heartbeat_s
        self._heartbeat = heartbeat
        self._fetch_snapshot = fetch
        self._paces = paces
        # What is sent: first what a history store has, then what the subscriber has.
        self._take: Callable[[int], Output | None] = subscriber.take
        self._snapshot: Fetched | None = None
        self._snapshot_frames: Iterator[bytes] | None = None
        # Everything up to here was written.
        self._written = subscriber.delivered
        self._written_at = 0.0
        # Nothing was written for as long as a heartbeat waits.
        self._is_silent = False
        # What the stream's task has to do before anything else is written, and whether it has begun to.
        self._job: Callable[[], Awaitable[None]] | None = None
        self._is_away = False
        # Why the stream is over.
        self._error: BaseException | None = None
        # Set when the task has something to do.
        self._called = asyncio.Event()
        self._is_ending = False
        self._cutoff = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None

    async def run(self, older: AsyncGenerator[Piece, None] | None = None) -> None:
        """Serve until the stream is over. `older`: what a history store has in place of the opening gap.

        Raises:
            GatewayError: why it is over.
            PeerGone: the client went away.
        """
        subscriber, writer = self._subscriber, self._writer
        await writer.write(self._opened())
        writer.on_writable = self._landed
        self._written_at = time.monotonic()
        try:
            # No message reaches a reader that stopped reading: once its stream ends, it gets this long for each.
            async with self._cutoff:
                subscriber.on_end = self._ends
                if subscriber.end_error is not None:  # it was decided while StreamOpened was written
                    self._ends()
                self._listen()
                if older is not None:
                    await self._send_older(older)
                subscriber.on_work = self.pump
                await self._work(until=lambda: False)
        except TimeoutError:
            error = subscriber.end_error
            if error is None or not self._cutoff.expired():
                raise
            raise cut_error(error, self._written, self._drain_s) from None
        finally:
            subscriber.on_end = subscriber.on_work = None
            subscriber.is_idle = subscriber.is_timed = False
            for timer in (self._timer, self._heart):
                if timer is not None:
                    timer.cancel()
            writer.abort()

    # writing

    def pump(self) -> None:
        """Write what there is, until the transport does not take more at once."""
        if self._is_away or self._writer.unsent_bytes:
            return
        try:
            while (frame := self._next_frame()) is not None:
                if not self._writer.try_write(frame):
                    self._subscriber.is_idle = False
                    return
                self._wrote()
        except BaseException as error:  # also of filters, of paces, and of the source's policy
            self._over(error)

    def _landed(self, error: BaseException | None) -> None:
        """The pending write has ended."""
        if error is not None:
            self._over(error)
            return
        self._wrote()
        self.pump()

    def _wrote(self) -> None:
        self._written = self._subscriber.delivered
        self._written_at = time.monotonic()
        if self._is_ending:
            self._ends()

    def _next_frame(self) -> bytes | None:
        """Return what is to be written next; None when there is nothing, or the task is called first."""
        while True:
            if self._snapshot_frames is not None:
                frame = next(self._snapshot_frames, None)
                if frame is None:
                    self._snapshot_frames = None
                    continue
                if not frame:
                    self._call(turn)
                return frame or None
            if self._paces and (held_s := self._held_s()) > 0:
                return self._wait(held_s)
            output = self._take(self._batch_bytes)
            if output is None:
                return self._nothing_to_take()
            if type(output) is Chunk:
                for pace in self._paces:
                    pace.sent(output.events)  # before its reader can know of it
                return output.frame
            match output:
                case Control(frame):
                    return frame
                case Gap():
                    return gap_frame(self._distributor.epoch, output)
                case Progress(sequence):
                    return progress_frame(self._distributor.epoch, sequence)
                case SnapshotWanted():
                    self._call(self._fetch)
                    return None
                case SnapshotDue():
                    assert self._snapshot is not None  # due because it was fetched
                    self._snapshot_frames, self._snapshot = self._snapshot.frames(self._batch_bytes), None
                case End(error):
                    self._over(error)
                    return None

    def _nothing_to_take(self) -> bytes | None:
        subscriber = self._subscriber
        if subscriber.is_asking:
            self._call(turn)
            return None
        if subscriber.on_work is None:  # what the history store gave is written: its next page may come
            self._called.set()
        elif (due_s := subscriber.source.due_in_s()) is not None:
            return self._wait(due_s)
        else:
            subscriber.is_idle = True
        return self._heartbeat_if_due() if self._is_silent else None

    def _wait(self, seconds: float) -> bytes | None:
        """Write no events for so long; a heartbeat may be due."""
        self._subscriber.is_idle = False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._waited)
            self._subscriber.is_timed = True
        return self._heartbeat_if_due() if self._is_silent else None

    def _waited(self) -> None:
        self._timer = None
        self._subscriber.is_timed = False
        self.pump()

    def _held_s(self) -> float:
        """Return how long paces hold events back now; 0 also for what is left when the stream ends."""
        if self._is_ending:
            return 0.0
        return min(_LONGEST_HOLD_S, max(pace.wait_s() for pace in self._paces))

    # silence, and the end

    def _listen(self) -> None:
        """Send a heartbeat when nothing was written for long enough; one timer, set anew only as it fires."""
        left_s = self._written_at + self._heartbeat_s - time.monotonic()
        if left_s <= 0:
            self._is_silent = True
            self.pump()
            left_s = self._heartbeat_s
        self._heart = asyncio.get_running_loop().call_later(left_s, self._listen)

    def _heartbeat_if_due(self) -> bytes | None:
        self._is_silent = False
        if time.monotonic() - self._written_at < self._heartbeat_s:
            return None
        return self._heartbeat(self._subscriber.delivered)

    def _ends(self) -> None:
        """The stream is about to end: its reader gets a while for each message from now on."""
        self._is_ending = True
        if not self._cutoff.expired():
            self._cutoff.reschedule(asyncio.get_running_loop().time() + self._drain_s)

    def _over(self, error: BaseException) -> None:
        self._error = error
        self._is_away = True
        self._called.set()

    # what the stream's own task does

    def _call(self, job: Callable[[], Awaitable[None]]) -> None:
        """Let the task do what takes long; nothing is written before it has."""
        self._job = job
        self._is_away = True
        self._subscriber.is_idle = False
        self._called.set()

    async def _work(self, until: Callable[[], bool]) -> None:
        """Do what the task is called for.

        Raises:
            BaseException: why the stream is over.
        """
        self.pump()
        while not until():
            await self._called.wait()
            self._called.clear()
            if self._error is not None:
                error, self._error = self._error, None  # which would refer to itself by way of its traceback
                raise error
            job, self._job = self._job, None
            if job is not None:
                await job()
                self._is_away = False
            self.pump()

    async def _fetch(self) -> None:
        try:
            self._snapshot = await self._fetch_snapshot()
        except GatewayError:
            if self._subscriber.end_error is None:
                raise  # else the session ended meanwhile, and what is unread is still delivered
        else:
            self._subscriber.snapshot_fetched(self._snapshot.sequence)

    async def _send_older(self, older: AsyncGenerator[Piece, None]) -> None:
        """Send what a history store has, one piece after another."""
        subscriber = self._subscriber
        self._take = subscriber.take_fed
        async with aclosing(older):
            async for piece in older:
                subscriber.feed(piece)
                await self._work(until=lambda: not (subscriber.is_asking or self._writer.unsent_bytes))
        self._take = subscriber.take

    def _opened(self) -> bytes:
        distributor, place, subscriber = self._distributor, self._subscriber.place, self._subscriber
        horizon_s = distributor.horizon_s
        return pb.StreamEventsResponse(
            opened=StreamOpened(
                epoch=distributor.epoch,
                from_sequence=place.delivered,
                head_sequence=distributor.log.head,
                oldest_sequence=distributor.log.oldest,
                was_resuming=place.was_resuming,
                recovered=place.recovered,
                heartbeat_interval=duration_from_seconds(self._heartbeat_s),
                policy=subscriber.policy.name,
                subscriber_id=subscriber.id,
                horizon=None if horizon_s is None else duration_from_seconds(horizon_s),
            )
        ).SerializeToString()
