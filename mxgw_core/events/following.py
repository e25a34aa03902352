"""Followers: readers of plugins that hold the log until they have acknowledged its events.

A follower reads the log like any other reader, with a cursor. Besides, it has an acknowledged position, and the log
does not forget what lies behind it: this is the only place where unacknowledged events are kept. The memory that is
held in this way is limited for each session, and for all sessions together (`Following`). Beyond a limit the oldest
events are no longer held. If the log then forgets events that a follower was not handed yet, the follower gets a gap.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.following import Followed, FollowedBatch, FollowedGap, FollowedItems
from mxgw_core.api.ranges import check_whole_number
from mxgw_core.events.frames import lost_events
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Gap
from mxgw_core.events.sources import FromLog
from mxgw_core.events.start import StartPlace

log = logging.getLogger(__name__)

# A session can have many thousand items; their records are handed over in parts of this many.
_RECORDS_AT_ONCE = 5_000
# When all sessions together hold too much, one in this many parts of the limit becomes free.
_TOTAL_SHARE = 16
_SESSION_LIMIT = "the follower had not acknowledged more than {} bytes of this session ({})"
_TOTAL_LIMIT = (
    "followers had not acknowledged more than {} bytes of all sessions (events.follow_total_bytes), and this session "
    "had the most"
)
_HELP = "acknowledge sooner, or raise the limit"
NO_MEMORY = "the gateway held more than limits.memory_bytes"


class LogFollower:
    """Implements api.Follower. Made by `SessionFollowers.follow`. Lives in the event loop.

    Attributes:
        holds_after: the log keeps what lies behind this sequence. It is the acknowledged position, or a later one
            where a limit was passed.
    """

    def __init__(
        self,
        followers: SessionFollowers,
        place: StartPlace,
        *,
        session_id: str,
        epoch: bytes,
        name: str,
        batch_bytes: int,
    ) -> None:
        self._followers = followers
        self._session_id = session_id
        self._epoch = epoch
        self.name = name or "unnamed"
        self._batch_bytes = batch_bytes
        self._source = FromLog(followers.log, place.cursor)
        self._opening_gap = place.gap
        self._delivered = self._acknowledged = place.delivered
        self.holds_after = place.cursor
        # Why events are no longer held that were not acknowledged.
        self._why = ""
        # The item records up to this serial were handed over.
        self._serial = 0
        # How many of the events behind the cursor the log has forgotten, as far as they were counted.
        self._lost_events = 0
        # Whether the log of the gateway says already that this follower loses events. That is said again only after it
        # had acknowledged everything.
        self._is_reported = False
        # While a task waits in `__anext__`: completed by `wake`.
        self._woken: asyncio.Future[None] | None = None
        self.is_closed = False

    @property
    def session_id(self) -> str:
        return self._session_id

    @property
    def epoch(self) -> bytes:
        return self._epoch

    @property
    def delivered(self) -> int:
        return self._delivered

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    @property
    def end_error(self) -> GatewayError | None:
        return self._followers.end_error

    @property
    def lag(self) -> tuple[int, int]:
        """How many events of the log are not acknowledged, and their bytes."""
        events = self._followers.log
        return events.after(max(self._acknowledged, events.oldest - 1))

    def __aiter__(self) -> LogFollower:
        return self

    async def __anext__(self) -> Followed:
        if self._woken is not None:
            raise RuntimeError(f"two tasks read the follower {self.name!r} of session {self._session_id} at once")
        while True:
            if self.is_closed:
                raise StopAsyncIteration
            followed = self._take()
            if followed is not None:
                return followed
            if self._followers.is_complete:
                self.close()
                continue
            self._woken = asyncio.get_running_loop().create_future()
            try:
                await self._woken
            finally:
                self._woken = None

    def _take(self) -> Followed | None:
        """Return what comes next; None when the follower has everything."""
        events = self._followers.log
        if (gap := self._opening_gap) is not None:
            self._opening_gap = None
            return self._gap(gap)
        if self._source.cursor < events.oldest - 1:
            first, last, lost = self._source.cursor + 1, events.oldest - 1, self._lost_events
            self._lost_events = 0
            self._source.move_to(last)
            self._delivered = last
            return FollowedGap(first, last, lost, GapReason.GAP_REASON_QUEUE_DROPPED, f"{self._why}: {_HELP}")
        if begun := self._followers.items.begun_after(self._serial, _RECORDS_AT_ONCE):
            self._serial = begun[-1].serial
            return FollowedItems(tuple(begun))
        piece = self._source.next(self._batch_bytes)
        if piece is None:
            return None
        if isinstance(piece, Gap):
            return self._gap(piece)
        self._delivered = piece.last
        return FollowedBatch(piece.first, piece.last, piece.batch)

    def _gap(self, gap: Gap) -> FollowedGap:
        self._delivered = gap.last
        return FollowedGap(gap.first, gap.last, lost_events(gap), gap.reason, gap.detail)

    def acknowledge(self, sequence: int) -> None:
        check_whole_number("sequence", sequence)
        if sequence > self._delivered:
            raise ValueError(
                f"follower {self.name!r} of session {self._session_id} acknowledged {sequence}, and was handed "
                f"everything up to {self._delivered} only"
            )
        if sequence > self._acknowledged:
            self._acknowledged = sequence
            self.holds_after = max(self.holds_after, sequence)
            if sequence == self._followers.log.head:
                self._is_reported = False
            if not self.is_closed:
                self._followers.released()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._followers.closed(self)
            self.wake()

    async def __aenter__(self) -> LogFollower:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def wake(self) -> None:
        """Let a task that waits in `__anext__` look again."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def let_go(self, until: int, why: str) -> None:
        """Hold nothing up to `until` any more."""
        if self.holds_after < until:
            self.holds_after = until
            self._why = why

    def trimmed(self) -> int:
        """Return how many events the log has forgotten before they were handed over, since the last call."""
        events = self._followers.log
        if self._source.cursor >= events.oldest - 1:
            return 0
        lost = events.appended_events - events.events - self._source.taken_events
        if not self._is_reported:
            self._is_reported = True
            log.warning(
                "follower %s of session %s loses events from %d on: %s; %s",
                *(self.name, self._session_id, self._source.cursor + 1, self._why, _HELP),
            )
        more, self._lost_events = lost - self._lost_events, lost
        return more


class SessionFollowers:
    """The followers of one session's log.

    Args:
        trim: lets the log forget what no reader needs any more.
        changed: called when the first follower has come, and when the last one has gone.

    Attributes:
        end_error: the error with which the session's events end; None before that was decided.
        is_complete: whether the last event is in the log, so that followers end when they have read everything.
    """

    def __init__(
        self, events: EventLog, items: ItemBook, trim: Callable[[], None], changed: Callable[[], None]
    ) -> None:
        self.log = events
        self.items = items
        self.end_error: GatewayError | None = None
        self.is_complete = False
        # `events.follow_bytes`, or less where a plugin limits the session's memory. `setting` is the limit's name.
        self.limit_bytes = 0
        self.setting = ""
        self._trim = trim
        self._changed = changed
        self._open: list[LogFollower] = []
        self._following: Following | None = None

    def __bool__(self) -> bool:
        return bool(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def follow(
        self, following: Following, place: StartPlace, *, session_id: str, epoch: bytes, name: str, batch_bytes: int
    ) -> LogFollower:
        """Add a follower that begins at `place`. `following` has the limits of all sessions together."""
        follower = LogFollower(self, place, session_id=session_id, epoch=epoch, name=name, batch_bytes=batch_bytes)
        self._following = following
        self._open.append(follower)
        following.opened(follower)
        following.check(self)
        self._changed()
        return follower

    @property
    def held_after(self) -> int | None:
        """The sequence behind which some follower holds the log; None when there is no follower."""
        return min(follower.holds_after for follower in self._open) if self._open else None

    @property
    def held_bytes(self) -> int:
        """About how many bytes of memory the log keeps for followers. Other readers may need some of it as well."""
        after = self.held_after
        return 0 if after is None else self.log.memory_after(after)

    def arrived(self) -> None:
        """Wake the followers, because there are new events, and check the limits."""
        for follower in self._open:
            follower.wake()
        if self._following is not None:
            self._following.check(self)

    def released(self) -> None:
        """Let the log forget what a follower has acknowledged."""
        if self._following is not None:
            self._following.check(self)
        self._trim()

    def closed(self, follower: LogFollower) -> None:
        """Forget a follower that was closed, and let the log forget what it held."""
        self._open.remove(follower)
        if self._following is not None:
            self._following.closed(follower)
        self.released()
        if not self._open:
            self._changed()

    def complete(self) -> None:
        """Let each follower end when it has read everything that is in the log now."""
        self.is_complete = True
        for follower in self._open:
            follower.wake()

    def let_go(self, limit_bytes: int, why: str) -> None:
        """Hold at most the newest `limit_bytes` of the log."""
        self.let_go_until(self.log.after_memory(limit_bytes), why)

    def let_go_until(self, sequence: int, why: str) -> None:
        """Hold nothing up to `sequence` any more."""
        for follower in self._open:
            follower.let_go(sequence, why)

    def trimmed(self) -> None:
        """Count what followers have lost, because the log has forgotten some of its events."""
        for follower in self._open:
            if (lost := follower.trimmed()) and self._following is not None:
                self._following.lost_events[follower.name] += lost

    def trim(self) -> None:
        """Let the log forget what no reader needs any more."""
        self._trim()


class Following:
    """The followers of all sessions, and the limits of what they hold.

    Attributes:
        followers: the open followers, oldest first.
        lost_events: how many events followers have lost. Key: the follower's name.
    """

    def __init__(self, session_bytes: int, total_bytes: int) -> None:
        self.session_bytes = session_bytes
        self.total_bytes = total_bytes
        self.followers: list[LogFollower] = []
        self.lost_events: Counter[str] = Counter()
        # What each session with followers holds, and the sum.
        self._held: dict[SessionFollowers, int] = {}
        self.held_bytes = 0
        # While `drained` waits: completed when the last follower was closed.
        self._drained: asyncio.Future[None] | None = None

    def opened(self, follower: LogFollower) -> None:
        """Count a new follower."""
        self.followers.append(follower)
        self.lost_events[follower.name] += 0

    def closed(self, follower: LogFollower) -> None:
        """Count a follower no longer."""
        self.followers.remove(follower)
        if not self.followers and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def check(self, session: SessionFollowers) -> None:
        """Count what the followers of a session hold, and let the oldest go beyond the limits. Nothing is trimmed in
        this session; another session that holds more is trimmed.
        """
        if session.held_bytes > session.limit_bytes:
            session.let_go(session.limit_bytes, _SESSION_LIMIT.format(session.limit_bytes, session.setting))
        self._count(session)
        if self.held_bytes <= self.total_bytes:
            return
        # Release more than has to be released, so that the sessions are not compared again for each batch.
        target = self.total_bytes - self.total_bytes // _TOTAL_SHARE
        # The newest entry of each log is always held, so the session that holds the most can have nothing to release.
        for largest in sorted(self._held, key=self._held.__getitem__, reverse=True):
            excess = self.held_bytes - target
            if excess <= 0:
                return
            largest.let_go(max(0, self._held[largest] - excess), _TOTAL_LIMIT.format(self.total_bytes))
            self._count(largest)
            if largest is not session:
                largest.trim()

    def _count(self, session: SessionFollowers) -> None:
        held = session.held_bytes
        self.held_bytes += held - self._held.pop(session, 0)
        if held:
            self._held[session] = held

    async def drained(self, timeout_s: float) -> None:
        """Wait until every follower has read everything or was closed, but not longer than `timeout_s`. Then close the
        others, and name them in the log.
        """
        if self.followers:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,), timeout=timeout_s)
        for follower in tuple(self.followers):
            log.warning(
                "follower %s of session %s did not read the last events, behind %d, before the gateway stopped",
                *(follower.name, follower.session_id, follower.delivered),
            )
            follower.close()
