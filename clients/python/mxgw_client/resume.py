"""Streams of events and of alarms open again by themselves after their connection was cut.

    ResumePolicy      set by the application: the delays between attempts to open the stream, and when to give up
    is_temporary      decides after which errors the client opens the stream again, and which errors end the stream
    Backoff           counts the attempts since a cut and computes the delay before the next attempt
    ResumePoint       records how far the application has read, and builds the request of the next attempt from it
    ResumingStream    uses all of these, and returns the frames of one stream although it makes several calls

Each call is an `Attempt` (`_attempt.py`), which also detects that the gateway has become silent. `EventStream` and
`AlarmStream` (`streams.py`) pass the frames of a `ResumingStream` to the application. The position of a stream moves
when an event or frame is passed to the application, not already when the client reads it from the network. A resumed
stream begins right after that position.

This module has more than 400 lines, because its parts can only be understood together.
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

# After these errors another attempt makes sense. They come while the gateway is down, has not yet noticed that the old
# stream is dead, or is adopting its workers after a restart.
_TEMPORARY = (GatewayUnreachable, CallTimedOut, SessionNotReady, SubscriberExists, SubscriberLimitReached)
_TEMPORARY_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
# The name of the overflow policy that sends a snapshot after each gap that it makes.
_RESYNC = "resync"

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """Says when the client opens a stream again after a cut. With `resume=None` instead, a cut ends the stream.

    The delay before an attempt is random, so that many clients do not come back at the same moment. It is at most
    `first_delay_s` before the first attempt, at most twice as long before each further one, and never longer than
    `longest_delay_s`. When the gateway asks for a pause (`retry_after_s`), the delay comes after that pause. Without
    `maximum_attempts` and `maximum_outage_s` the client tries until it gets an error that cannot pass, for example that
    the session has ended.

    Attributes:
        first_delay_s: the upper limit of the random delay before the first attempt, in seconds.
        longest_delay_s: the upper limit of the random delay before any attempt, in seconds.
        attempt_timeout_s: how many seconds one attempt waits for the gateway's answer.
        maximum_attempts: after this many failed attempts in a row the stream ends with the error of the last attempt;
            None for no limit.
        maximum_outage_s: no attempt begins later than this many seconds after the cut; the stream ends with the last
            error instead. None for no limit.

    Raises:
        ConnectionOptionError: a number is not greater than 0, or the first delay is longer than the longest.
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
        """Return how many seconds to wait before attempt number `attempt` (the first attempt is number 0).

        `retry_after_s` is the pause that the gateway asked for, or None. `chance` is a random number from 0 to 1: 0
        means no delay after the pause, 1 the longest delay that is allowed before this attempt.
        """
        longest_s = min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(attempt, 60))
        return (retry_after_s or 0.0) + chance * longest_s


RESUME = ResumePolicy()


def is_temporary(error: MxgwClientError, *, was_open: bool) -> bool:
    """Return True when the stream should be opened again after `error`, and False when `error` ends the stream.

    `was_open` says whether the stream has been open before. While it is False the result is always False, so that the
    application learns at once of a wrong request or of a gateway that does not run.
    """
    if not was_open:
        return False
    if error.resumable or isinstance(error, _TEMPORARY):
        return True
    return isinstance(error, CallFailed) and error.code in _TEMPORARY_CODES


class Backoff:
    """Counts the attempts since a cut, and computes the delay before the next attempt.

    `clock` returns monotonic seconds, `chance` a random number from 0 to 1.
    """

    def __init__(
        self, policy: ResumePolicy, clock: Callable[[], float], chance: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._cut_at: float | None = None
        self._attempts = 0

    def reset(self) -> None:
        """Start counting from 0 again, because the stream works: a frame came after its StreamOpened."""
        self._cut_at, self._attempts = None, 0

    def next_delay_s(self, error: MxgwClientError) -> float | None:
        """Return how many seconds to wait before the next attempt; None when the limits of the policy are reached.

        In the case of None a note is added to `error`: how many attempts were made, and in how many seconds.
        """
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
    """How far the application has read a stream. The request of the next attempt is made from this.

    Attributes:
        position: the application was given everything up to this position. None when it was given nothing yet and
            `start` names no position.
        snapshot_owed: True while the application waits for a snapshot, or for the rest of one. The next attempt must
            then ask for a snapshot.
    """

    def __init__(self, kind: StreamKind[Any], request: StreamRequest, start: Start) -> None:
        self._kind = kind
        self._request = request
        self.position = start.position
        self.snapshot_owed = start.kind == Start.SNAPSHOT.kind or request.with_snapshot
        self._opened: StreamOpened | None = None
        # After an incomplete resume: the position at which the new stream begins. It becomes `position` only when the
        # Gap that follows StreamOpened has been passed to the application.
        self._after_gap: Position | None = None

    def request_from_here(self) -> StreamRequest:
        """Return the request of the next attempt: the first request, but starting after the present `position`.

        It asks for a snapshot when `snapshot_owed` is True. While there is no position it equals the first request.
        """
        request = copy.deepcopy(self._request)
        if self.position is not None:
            request.start.CopyFrom(after(self.position).to_message())
            request.with_snapshot = self.snapshot_owed
        return request

    def hand_out(self, frame: object) -> None:
        """Record that a frame is passed to the application. For events the streams set `position` instead."""
        match frame:
            case StreamOpened(position=position):
                self._opened, self._after_gap = frame, None
                if frame.was_resuming and not frame.recovered:
                    # The position moves when the Gap that follows is passed on. If it moved here, a cut between the two
                    # frames would hide the Gap from the application.
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
        """Set `position`, unless the new position belongs to another epoch than the stream or lies before the old
        position.
        """
        assert self._opened is not None
        before = self.position
        if position.epoch != self._opened.position.epoch:
            return
        if before is None or before.epoch != position.epoch or position.sequence > before.sequence:
            self.position = position


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The stream was cut, and the next attempt begins at the time `until_s` of the event loop.

    `dead_generation` is the generation of the gRPC channel to replace before the attempt, because its connection is
    dead and gRPC has not noticed. It is None when the channel can be used again.
    """

    until_s: float
    dead_generation: int | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """The stream has ended with `error` and is not opened again; `stale_after_s` is copied from its last attempt."""

    error: Exception
    stale_after_s: float


class ResumingStream(Generic[F]):
    """Returns the frames of one stream, and makes another call whenever the stream is cut.

    After a cut `next_frame` returns a `StreamCut`, and then the StreamOpened of the next call that succeeds. The caller
    passes each frame that the application gets to `point.hand_out`, except events. `subject` names the stream in log
    messages.
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
        # The StreamOpened that `open` has read; the next call of `next_frame` returns it.
        self._first: F | SharedFrame | None = None
        # The last StreamOpened that was read; None before the first one.
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
        """The error that ended the stream; None while the stream has not ended with an error."""
        return self._state.error if isinstance(self._state, _Ended) else None

    @property
    def stale_after_s(self) -> float:
        """The number of seconds without any frame after which the stream counts as cut.

        Until StreamOpened has come, it is the number of seconds that an attempt waits for StreamOpened.
        """
        return self._state.stale_after_s if isinstance(self._state, Attempt | _Ended) else self._open_timeout_s

    @property
    def _open_timeout_s(self) -> float:
        if self._resume is None or self.opened is None:
            return self._calls.options.timeout_s
        return self._resume.attempt_timeout_s

    async def open(self) -> StreamOpened:
        """Open the stream and return its StreamOpened. The next call of `next_frame` returns this frame once more.

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
            MxgwClientError: the stream has ended; the error says why.
            RuntimeError: another task is waiting for a frame of this stream.
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
        """Return the next frame, or None when an attempt failed before its StreamOpened and the caller must try again.

        The application gets one StreamCut per cut, and none for the attempts that fail after it.
        """
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
        """Return the present attempt. If there is none, wait until the next attempt is due, and begin it."""
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
        """Prepare the next attempt after `attempt` failed with `error`, or raise `error` when it ends the stream.

        Return the StreamCut for the application; None when the attempt had not reached StreamOpened.
        """
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
        """End the stream; idempotent. In a task that waits for a frame, `next_frame` raises StopAsyncIteration."""
        self._closed.set()
        self._first = None
        if isinstance(self._state, Attempt):
            self._state.cancel()
            await self._state.wait_cancelled()
