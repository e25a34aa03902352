"""How a stream comes back by itself after a cut, for events and for alarms alike.

    ResumePolicy      how long to wait between attempts and when to give up; the application chooses it
    is_temporary      which errors are a cut only, and which end the stream for good
    Backoff           counts the attempts since a cut, and says how long to wait before the next one
    ResumePoint       how far the application has come; decides what the next attempt asks for
    ResumingStream    puts these together: the frames of one stream, over as many calls as it takes

Each call is an `Attempt` (`_attempt.py`), which also notices silence. `EventStream` and `AlarmStream` (`streams.py`)
hand the frames of a `ResumingStream` to the application. The position of a stream is that of the last item the
application was handed, never of one that was only read, and a resume begins right after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from mxgw_client._attempt import Attempt, StreamKind, StreamRequest, now_s
from mxgw_client._calls import Calls
from mxgw_client.enums import GapReason, OnGap
from mxgw_client.errors import (
    CallFailed,
    CallTimedOut,
    ConnectionOptionError,
    GatewayUnreachable,
    MxgwClientError,
    SessionNotReady,
    StreamStale,
    SubscriberExists,
    SubscriberLimitReached,
)
from mxgw_client.events import StreamContext
from mxgw_client.frames import Gap, Heartbeat, Progress, SharedFrame, StreamCut, StreamOpened
from mxgw_client.position import Position, Start, after
from mxgw_client.references import ReferenceMap

log = logging.getLogger(__name__)

# What an attempt may meet until the gateway is there again, has noticed that the old stream is dead, or has taken its
# workers back.
_TEMPORARY = (GatewayUnreachable, CallTimedOut, SessionNotReady, SubscriberExists, SubscriberLimitReached)
_TEMPORARY_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
# The overflow policy that sends a snapshot after each of its gaps.
_RESYNC = "resync"

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """How a stream comes back by itself after a cut; `resume=None` switches that off.

    The n-th attempt waits a random time up to `first_delay_s * 2**n`, at most `longest_delay_s` (full jitter, so that
    many clients do not come back at once), and no less than the gateway asks for (`retry_after_s`). Without
    `maximum_attempts` and `maximum_outage_s` it tries until the gateway says that the session is over.

    Attributes:
        first_delay_s: the longest delay before the first attempt, in seconds.
        longest_delay_s: no delay is longer than this, whatever the number of attempts.
        attempt_timeout_s: how long one attempt may take to be answered.
        maximum_attempts: attempts in a row that fail before the stream ends with the error of the last one.
        maximum_outage_s: time since the cut after which no other attempt is made.

    Raises:
        ConnectionOptionError: a number that cannot work.
    """

    first_delay_s: float = 0.2
    longest_delay_s: float = 10.0
    attempt_timeout_s: float = 10.0
    maximum_attempts: int | None = None
    maximum_outage_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.longest_delay_s:
            raise ConnectionOptionError(
                f"first_delay_s is {self.first_delay_s}, longest_delay_s {self.longest_delay_s}: the first must be "
                "greater than 0 and no longer than the longest"
            )
        if self.attempt_timeout_s <= 0:
            raise ConnectionOptionError(f"attempt_timeout_s is {self.attempt_timeout_s}; it must be greater than 0")
        if self.maximum_attempts is not None and self.maximum_attempts < 1:
            raise ConnectionOptionError(f"maximum_attempts is {self.maximum_attempts}; pass resume=None for none")
        if self.maximum_outage_s is not None and self.maximum_outage_s <= 0:
            raise ConnectionOptionError(f"maximum_outage_s is {self.maximum_outage_s}; pass resume=None for none")

    def delay_s(self, attempt: int, retry_after_s: float | None, chance: float) -> float:
        """Return how long to wait before attempt number `attempt` (the first is 0).

        `retry_after_s` is what the gateway asked for; `chance`, from 0 to 1, picks one of the possible delays.
        """
        longest_s = min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(attempt, 60))
        return (retry_after_s or 0.0) + chance * longest_s


RESUME = ResumePolicy()


def is_temporary(error: MxgwClientError, *, was_open: bool) -> bool:
    """Return whether another attempt makes sense.

    `was_open`: the stream was open at some time. One that never was is not retried, so that a wrong request or a
    missing gateway is reported at once.
    """
    if not was_open:
        return False
    if error.resumable or isinstance(error, _TEMPORARY):
        return True
    return isinstance(error, CallFailed) and error.code in _TEMPORARY_CODES


class Backoff:
    """Counts the attempts since a cut. `clock` returns monotonic seconds, `chance` a number from 0 to 1."""

    def __init__(
        self, policy: ResumePolicy, clock: Callable[[], float], chance: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._cut_at: float | None = None
        self._attempts = 0

    def reset(self) -> None:
        """Forget the attempts: the stream is back, and something came over it."""
        self._cut_at, self._attempts = None, 0

    def next_delay_s(self, error: MxgwClientError) -> float | None:
        """Return how long to wait before the next attempt; None to give up, with a note on `error` that says why."""
        now, policy = self._clock(), self._policy
        if self._cut_at is None:
            self._cut_at = now
        delay_s = policy.delay_s(self._attempts, error.retry_after_s, self._chance())
        out_s = now - self._cut_at
        is_last = policy.maximum_attempts is not None and self._attempts >= policy.maximum_attempts
        is_late = policy.maximum_outage_s is not None and out_s + delay_s > policy.maximum_outage_s
        if is_last or is_late:
            error.add_note(f"gave up after {self._attempts} attempts in {out_s:.1f} s")
            return None
        self._attempts += 1
        return delay_s


class ResumePoint:
    """How far the application has come, and so what the next attempt asks for. Every frame handed out moves it.

    Attributes:
        position: everything up to it was handed out; None when nothing was and the start names no position.
        snapshot_owed: a snapshot was promised or begun, and its end was not handed out.
    """

    def __init__(self, kind: StreamKind[Any], request: StreamRequest, start: Start) -> None:
        self._kind = kind
        self._request = request
        self.position = start.position
        self.snapshot_owed = start.kind == Start.SNAPSHOT.kind or request.with_snapshot
        self._opened: StreamOpened | None = None
        # The position to take once the gap that the last StreamOpened announced was handed out.
        self._after_gap: Position | None = None

    def request_from_here(self) -> StreamRequest:
        """Return the first request, changed to start after the present position, with a snapshot if one is owed."""
        request = copy.deepcopy(self._request)
        if self.position is not None:
            request.start.CopyFrom(after(self.position).to_message())
            request.with_snapshot = self.snapshot_owed
        return request

    def hand_out(self, frame: object) -> None:
        """Count a frame as handed to the application. (For events the streams set `position` themselves.)"""
        match frame:
            case StreamOpened(position=position):
                self._opened, self._after_gap = frame, None
                if frame.was_resuming and not frame.recovered:
                    # The position moves with the gap that follows: a cut in between must not hide the gap.
                    self._after_gap = position
                    on_gap = self._request.on_gap or self._kind.default_on_gap
                    self.snapshot_owed |= on_gap == OnGap.SNAPSHOT
                else:
                    self._advance(position)
            case Progress(position=position) | Heartbeat(position=position):
                self._advance(position)
            case Gap():
                self._hand_out_gap(frame)
            case self._kind.snapshot():
                self.snapshot_owed = True
            case self._kind.snapshot_end(position=position):
                self.snapshot_owed = False
                self._advance(position)

    def _hand_out_gap(self, gap: Gap) -> None:
        after_gap, self._after_gap = self._after_gap, None
        if gap.covers_its_range:
            self._advance(Position(gap.epoch, gap.last_lost))
        elif after_gap is not None and not gap.last_lost:
            self.position = after_gap
        if gap.reason is GapReason.QUEUE_DROPPED and self._opened is not None and self._opened.policy == _RESYNC:
            self.snapshot_owed = True

    def _advance(self, position: Position) -> None:
        """Move forward to a position of the stream's epoch, never back."""
        assert self._opened is not None
        before = self.position
        if position.epoch != self._opened.position.epoch:
            return
        if before is None or before.epoch != position.epoch or position.sequence > before.sequence:
            self.position = position


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The stream was cut and the next attempt comes at `until_s`.

    `dead_generation` names a channel that must be replaced first: its connection is dead, unnoticed by gRPC.
    """

    until_s: float
    dead_generation: int | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """The stream is over for good; `stale_after_s` is that of its last attempt."""

    error: Exception
    stale_after_s: float


class ResumingStream(Generic[F]):
    """The frames of one stream, over as many calls as it takes.

    After a cut `next_frame` returns a `StreamCut`, then the StreamOpened of the next call that works. The owner calls
    `point.hand_out` with each frame that it hands to the application. `subject` names the stream in the log.
    """

    def __init__(
        self,
        kind: StreamKind[F],
        calls: Calls,
        request: StreamRequest,
        references: ReferenceMap,
        tasks: asyncio.TaskGroup,
        *,
        start: Start,
        resume: ResumePolicy | None,
        subject: str,
    ) -> None:
        self._kind = kind
        self._calls = calls
        self._request = request
        self._references = references
        self._tasks = tasks
        self._resume = resume
        self._subject = subject
        self._backoff = None if resume is None else Backoff(resume, now_s)
        self._state: Attempt[F] | _Waiting | _Ended | None = None
        # Set by `close`; ends the wait for the next attempt.
        self._closed = asyncio.Event()
        self._has_reader = False
        # A frame that `open` has read and `next_frame` returns first.
        self._first: F | SharedFrame | None = None
        # The StreamOpened read last.
        self.opened: StreamOpened | None = None
        self.point = ResumePoint(kind, request, start)

    @property
    def status(self) -> str:
        """One of "new", "open", "cut", "ended" and "closed"."""
        if self._closed.is_set():
            return "closed"
        if isinstance(self._state, _Ended):
            return "ended"
        if isinstance(self._state, Attempt) and self._state.opened is not None:
            return "open"
        return "new" if self.opened is None else "cut"

    @property
    def failure(self) -> Exception | None:
        """The error that ended the stream; None while it lives."""
        return self._state.error if isinstance(self._state, _Ended) else None

    @property
    def stale_after_s(self) -> float:
        """Silence after which the stream counts as cut; until StreamOpened it is the deadline of the attempt."""
        return self._state.stale_after_s if isinstance(self._state, Attempt | _Ended) else self._open_timeout_s

    @property
    def _open_timeout_s(self) -> float:
        if self._resume is None or self.opened is None:
            return self._calls.options.timeout_s
        return self._resume.attempt_timeout_s

    async def open(self) -> StreamOpened:
        """Wait for the first frame, which `next_frame` still returns.

        Raises:
            MxgwClientError: the stream could not be opened.
        """
        if self.opened is None:
            self._first = await self.next_frame()
        assert self.opened is not None
        return self.opened

    async def next_frame(self) -> F | SharedFrame:
        """Return the next frame.

        Raises:
            StopAsyncIteration: `close` was called.
            MxgwClientError: the stream is over, for this reason.
        """
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        if self._has_reader:
            raise RuntimeError("another task reads this stream already; open a second stream, or share what is read")
        self._has_reader = True
        try:
            while True:
                next_or_none = await self._try_frame()
                if next_or_none is not None:
                    return next_or_none
        finally:
            self._has_reader = False

    async def _try_frame(self) -> F | SharedFrame | None:
        """Return the next frame; None when an attempt failed before StreamOpened, which nobody needs to see."""
        attempt = await self._attempt()
        try:
            frame = await attempt.next_frame()
        except MxgwClientError as error:
            return self._after(attempt, error)
        if frame is None:
            raise StopAsyncIteration
        if isinstance(frame, StreamOpened):
            self.opened = frame
        elif attempt.is_proved and self._backoff is not None:
            self._backoff.reset()
        return frame

    async def _attempt(self) -> Attempt[F]:
        """Return the attempt under way; if there is none, wait until the next one is due and begin it."""
        if isinstance(self._state, _Waiting):
            await self._wait(self._state)
        if self._closed.is_set():
            raise StopAsyncIteration
        if isinstance(self._state, _Ended):
            raise self._state.error
        if not isinstance(self._state, Attempt):
            request = self._request if self._state is None else self.point.request_from_here()
            context = StreamContext(b"", self._references)
            self._state = Attempt(self._kind, self._calls, request, context, self._tasks, self._open_timeout_s)
        return self._state

    async def _wait(self, waiting: _Waiting) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(waiting.until_s):
                await self._closed.wait()
        if waiting.dead_generation is not None and not self._closed.is_set():
            await self._calls.renew(waiting.dead_generation)

    def _after(self, attempt: Attempt[F], error: MxgwClientError) -> StreamCut | None:
        """Decide what the end of an attempt means; raise `error` when it is the end of the stream."""
        attempt.cancel()
        if self._closed.is_set():
            raise StopAsyncIteration
        delay_s = None
        if self._backoff is not None and is_temporary(error, was_open=self.opened is not None):
            delay_s = self._backoff.next_delay_s(error)
        if delay_s is None:
            self._state = _Ended(error, attempt.stale_after_s)
            raise error
        is_dead = isinstance(error, StreamStale | CallTimedOut)
        self._state = _Waiting(now_s() + delay_s, attempt.generation if is_dead else None)
        if attempt.opened is None:
            log.info("%s: no stream yet, another attempt in %.1f s: %s", self._subject, delay_s, error)
            return None
        log.info("%s: the stream was cut, it comes back in %.1f s: %s", self._subject, delay_s, error)
        return StreamCut(error, self.point.position, delay_s)

    async def close(self) -> None:
        """End the stream; idempotent. A task that waits for a frame sees the iteration stop."""
        self._closed.set()
        self._first = None
        if isinstance(self._state, Attempt):
            self._state.cancel()
            await self._state.wait_cancelled()
