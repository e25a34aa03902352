"""Decides what one subscriber's stream sends, and when. Nothing else writes to a stream of numbered events.

An Outlet serves streams of sessions and streams of plugins' feeds in the same way: each has a distributor to read from,
a function that fetches a snapshot, and a function that makes heartbeats.

`pump` writes until nothing is left, or until the transport accepts no more at once. It is called when events arrive,
when a write has ended, and by timers. So events are written in the same step that appends them, and no task has to be
woken. The stream's own task, in `run`, does what takes long: it fetches snapshots, reads the pages of a history store,
and lets other tasks run between the answers of filters. Otherwise it waits for the end of the stream.
"""

from __future__ import annotations

import asyncio
import random
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

# A stream with a pace takes pieces of about this size, which have a few dozen events, so that few events are sent at
# once.
_PACED_BYTES = 4 * 1024
# A pace is asked again after this time at the latest, because the end of the stream can be decided meanwhile.
_LONGEST_HOLD_S = 0.25


class Fetched(Protocol):
    """A snapshot that was fetched: the last values as of `sequence`."""

    @property
    def sequence(self) -> int: ...

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield frames of about `limit_bytes` with the values that the reader may see, and the end of the snapshot.

        An empty frame must not be sent: it only tells the caller to let other tasks run.
        """


FetchSnapshot: TypeAlias = Callable[[], Awaitable[Fetched]]


class Outlet:
    """Serves one subscriber. Lives in the event loop.

    Args:
        fetch: fetches a snapshot.
        heartbeat: returns a heartbeat frame; its argument is the last sequence that the subscriber was handed.
        heartbeat_s: after this many seconds without any other frame, a heartbeat is sent.
        paces: limits on how fast events are sent; the slowest one counts.
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
        # Returns what to send next: at first the pieces of a history store, if there is one, and then the unread
        # events.
        self._take: Callable[[int], Output | None] = subscriber.take
        self._snapshot: Fetched | None = None
        self._snapshot_frames: Iterator[bytes] | None = None
        # Everything up to this sequence was written.
        self._written = subscriber.delivered
        self._written_at = 0.0
        # Whether nothing had been written for `heartbeat_s` when the timer of the heartbeat fired.
        self._is_silent = False
        # The long work that the stream's task must do next; None when there is none. Nothing is written while
        # `_is_away` is true, which means that this work is not done yet, or that the stream is over.
        self._job: Callable[[], Awaitable[None]] | None = None
        self._is_away = False
        # `_is_pumping`: whether `pump` runs now. `_pump_again`: whether `pump` was called again meanwhile, by something
        # that it had called itself, for example a filter of a plugin.
        self._is_pumping = self._pump_again = False
        # Whether the task fetches a snapshot. Meanwhile only control frames and heartbeats are written.
        self._is_fetching = False
        # Whether the pieces of a history store are being sent. They come before the events of the log.
        self._is_sending_older = False
        # The error that ends the stream; the task raises it.
        self._error: BaseException | None = None
        # Set when the task has something to do.
        self._called = asyncio.Event()
        self._is_ending = False
        self._cutoff = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None

    async def run(self, older: AsyncGenerator[Piece, None] | None = None) -> None:
        """Serve until the stream is over. `older` are the pieces of a history store that replace the opening gap.

        Raises:
            GatewayError: the reason why the stream has ended.
            PeerGone: the connection has ended.
        """
        subscriber, writer = self._subscriber, self._writer
        try:
            # A reader that has stopped reading would never let its stream end. So once the end is decided, the reader
            # has a limited time for each message, StreamOpened included.
            async with self._cutoff:
                subscriber.on_end = self._ends
                if subscriber.end_error is not None:
                    self._ends()
                await writer.write(self._opened())
                writer.on_writable = self._landed
                self._wrote()
                self._listen()
                if older is not None:
                    await self._send_older(older)
                subscriber.on_work = self.pump
                await self._work()
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

    # The next methods write frames.

    def pump(self) -> None:
        """Write until nothing is left, or until the transport accepts no more at once."""
        if self._writer.unsent_bytes or (self._is_away and not self._is_fetching):
            return
        if self._is_pumping:
            self._pump_again = True
            return
        self._is_pumping = True
        try:
            while True:
                while (frame := self._next_frame()) is not None:
                    if not self._writer.try_write(frame):
                        self._subscriber.is_idle = False
                        return
                    self._wrote()
                if not self._pump_again:
                    return
                self._pump_again = False
        except BaseException as error:  # not only the transport can fail here, but also filters, paces and snapshots
            self._over(error)
        finally:
            self._is_pumping = self._pump_again = False

    def _landed(self, error: BaseException | None) -> None:
        """Continue after the pending write has ended."""
        if error is not None:
            self._over(error)
            return
        self._wrote()
        self.pump()

    def _wrote(self) -> None:
        self._written = self._subscriber.delivered
        self._written_at = time.perf_counter()
        if self._is_sending_older:
            self._called.set()  # the task gets the next page; all pages together have the time of one message
        elif self._is_ending:
            self._ends()

    def _next_frame(self) -> bytes | None:
        """Return the next frame to write; None if there is none, or if the stream's task must do something first."""
        while True:
            if self._is_away:
                return self._frame_beside_a_fetch()
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
                    pace.sent(output.events)  # the pace must count the events before the reader has them
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
                    assert self._snapshot is not None  # a snapshot is due only after it was fetched
                    self._snapshot_frames, self._snapshot = self._snapshot.frames(self._batch_bytes), None
                case End(error):
                    self._over(error)
                    return None

    def _frame_beside_a_fetch(self) -> bytes | None:
        """Return what the reader is sent while a snapshot is fetched: control frames and heartbeats."""
        if not self._is_fetching:
            return None
        if (control := self._subscriber.take_control()) is not None:
            return control.frame
        return self._heartbeat_if_due() if self._is_silent else None

    def _nothing_to_take(self) -> bytes | None:
        subscriber = self._subscriber
        if subscriber.is_asking:
            self._call(turn)
            return None
        if self._is_sending_older:
            # The reader has got everything that it may see of the page, so the stream's task gets the next page.
            self._called.set()
        elif (due_s := subscriber.source.due_in_s()) is not None:
            return self._wait(due_s)
        else:
            subscriber.is_idle = True
        return self._heartbeat_if_due() if self._is_silent else None

    def _wait(self, seconds: float) -> bytes | None:
        """Write no events for `seconds`. Return a heartbeat if one is due now, else None."""
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
        """Return for how long paces hold events back now; 0 if none does, and once the end of the stream is decided.

        Streams of one key share the key's pace. They ask the pace again after random times. After fixed times, the same
        stream would be the first one again and again.
        """
        if self._is_ending:
            return 0.0
        held_s = max(pace.wait_s() for pace in self._paces)
        share = random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on this number
        return min(_LONGEST_HOLD_S, held_s) * share if held_s > 0 else 0.0

    # The next methods send heartbeats, and end the stream.

    def _listen(self) -> None:
        """Send a heartbeat if nothing was written for `heartbeat_s`, and set the timer of the next call.

        A write does not change the timer that is already set.
        """
        left_s = self._written_at + self._heartbeat_s - time.perf_counter()
        if left_s <= 0:
            self._is_silent = True
            self.pump()
            left_s = self._heartbeat_s
        self._heart = asyncio.get_running_loop().call_later(left_s, self._listen)

    def _heartbeat_if_due(self) -> bytes | None:
        self._is_silent = False
        if time.perf_counter() - self._written_at < self._heartbeat_s:
            return None
        return self._heartbeat(self._subscriber.delivered)

    def _ends(self) -> None:
        """Record that the stream is about to end. From now on the reader has `overflow_drain_s` for each message."""
        self._is_ending = True
        if not self._cutoff.expired():
            self._cutoff.reschedule(asyncio.get_running_loop().time() + self._drain_s)

    def _over(self, error: BaseException) -> None:
        self._error = error
        self._is_away, self._is_fetching = True, False
        self._called.set()

    # The next methods let the stream's own task do long work.

    def _call(self, job: Callable[[], Awaitable[None]]) -> None:
        """Let the stream's task do a job that takes long. Nothing is written until the job is done."""
        self._job = job
        self._is_away = True
        self._subscriber.is_idle = False
        self._called.set()

    async def _work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run the jobs of the stream's task until `until` returns True.

        Raises:
            BaseException: the error that ends the stream.
        """
        while True:
            self.pump()
            if self._error is not None:
                error, self._error = self._error, None
                try:
                    raise error
                finally:
                    del error  # the traceback refers to the local variables, so the error would refer to itself
            if until():
                return
            await self._called.wait()
            self._called.clear()
            job, self._job = self._job, None
            if job is not None:
                await job()
                self._is_away = self._error is not None

    async def _fetch(self) -> None:
        self._is_fetching = True
        try:
            self._snapshot = await self._fetch_snapshot()
        except GatewayError:
            if self._subscriber.end_error is None:
                raise  # if the end was decided meanwhile, unread events are still delivered
        else:
            self._subscriber.snapshot_fetched(self._snapshot.sequence)
        finally:
            self._is_fetching = False

    async def _send_older(self, older: AsyncGenerator[Piece, None]) -> None:
        """Send the pieces of a history store, one after another."""
        subscriber = self._subscriber
        self._take, self._is_sending_older = subscriber.take_fed, True
        async with aclosing(older):
            async for piece in older:
                subscriber.feed(piece)
                await self._work(until=lambda: not (subscriber.is_asking or self._writer.unsent_bytes))
        self._take, self._is_sending_older = subscriber.take, False

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
                policy=subscriber.policy_name,
                subscriber_id=subscriber.id,
                horizon=None if horizon_s is None else duration_from_seconds(horizon_s),
            )
        ).SerializeToString()
