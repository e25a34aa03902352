"""Where a reader's unread events are held. A subscriber is always in exactly one of five states:

    FromLog     reads the log from a cursor on: the usual state, which needs no memory but the cursor
    Aside       reads a backlog of its own, then the log
    Gathering   gathers the newest value of each item, while the policy conflates or has an interval
    Refusing    reads a backlog; arriving events are lost until enough of the backlog was read (`DropNewest`)
    Ending      reads a backlog, then the stream ends with an error

`events.overflow` puts a reader into another state when its policy acts. `then` returns the state that follows once the
reader has read enough.

Unread events lie in up to three parts, which are read in this order: a backlog, the gathered events, the log. The class
`Source` has what all states have in common.

The module has more than 400 lines, because only side by side can the five states be compared and checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import QueueLimits
from mxgw_core.events.backlog import Backlog
from mxgw_core.events.conflation import Conflation
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import PIECE_BYTES, Chunk, Gap, Piece
from mxgw_core.events.policies import CheckedPolicy

# Many unread events are gathered in steps of about this size (0.2 ms each), so that several readers which begin to
# conflate at the same moment do not delay other readers. A step also takes two events for every new one, so that the
# unread events become fewer.
_STEP_EVENTS = 250
_STEP_BYTES = 4 * 1024


@dataclass(slots=True)
class Granted:
    """The old events that a reader asked for when it attached. While they are unread, they do not count as lag.

    Attributes:
        head: the newest sequence of the log when the reader attached.
        events: how many events had ever been appended to the log by then. `bytes`: their bytes.
        unread_events: how many events lay between the reader's start and `head`. `unread_bytes`: their bytes.
        is_delivered: whether the reader has been handed everything up to `head`.
    """

    head: int
    events: int
    bytes: int
    unread_events: int
    unread_bytes: int
    is_delivered: bool = False


class Unread(NamedTuple):
    """Unread events: how many, their bytes, and the age of the oldest in seconds."""

    events: int
    bytes: int
    seconds: float

    def exceeds(self, limits: QueueLimits) -> bool:
        """Whether any of the three limits is exceeded; 0 is no limit."""
        return (
            _exceeds(self.events, limits.events)
            or _exceeds(self.bytes, limits.bytes)
            or _exceeds(self.seconds, limits.seconds)
        )


class Source:
    """The common base of the five states."""

    __slots__ = ()

    backlog: Backlog | None = None
    gathered: Conflation | None = None
    rest: FromLog | None = None

    def next(self, limit_bytes: int) -> Piece | None:  # noqa: ARG002 - a backlog's pieces are as large as they are
        """Take the next piece; a piece from the log has about `limit_bytes` at most.

        Return None if there is no piece, or if the policy's interval has not ended yet.
        """
        return self.backlog.pop() if self.backlog else None

    def then(self) -> Source:
        """Return the state that the reader is in after a call of `next` or `arrived`; nearly always this same state."""
        return self

    def arrived(self) -> None:
        """Process the events appended to the log since the last call.

        Most of the five states do nothing here, because `next` reads these events later.
        """

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:
        """Whether the reader is over its limits, so that its policy must be asked."""
        return self.lag(granted).exceeds(limits)

    def due_in_s(self) -> float | None:
        """Return after how many seconds the gathered events become readable.

        None when the policy has no interval, or when no events wait for the end of the interval.
        """
        return None

    @property
    def reads_after(self) -> int | None:
        """The sequence behind which this reader still reads the log; None when it does not read the log any more."""
        return self.rest.cursor if self.rest is not None else None

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to take."""
        return not self.backlog and not self.gathered and (self.rest is None or self.rest.is_read)

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes are held for this reader alone. Unread events in the shared log are not counted."""
        own = self.backlog.bytes if self.backlog is not None else 0
        return own + self.gathered.memory_bytes if self.gathered is not None else own

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the reader's unread events outside the log use."""
        own = self.backlog.memory_bytes if self.backlog is not None else 0
        return own + self.gathered.memory_bytes if self.gathered is not None else own

    def unread(self) -> Unread:
        """Return how many events the reader has not taken yet, their bytes, and the age of the oldest.

        All gathered events have the age of the event that was gathered first, even if that event was replaced.
        """
        events = size = 0
        since: float | None = None
        for part in (self.backlog, self.gathered):
            if part:
                events, size = events + part.events, size + part.bytes
                since = part.since if since is None else since
        assert self.rest is not None  # this is called only in states with a `rest`; `Ending` overrides this method
        return self.rest.and_before(events, size, since)

    def lag(self, granted: Granted) -> Unread:
        """Return the events, bytes and seconds that are compared with the reader's limits.

        Old events that the reader asked for when it attached do not count. `seconds` is the age of the oldest unread
        event that is still in the log.
        """
        assert self.rest is not None  # only `Ending` has no `rest`, and in this state no policy is asked
        in_log = self.rest.lag(granted)
        free_events, free_bytes = (0, 0) if granted.is_delivered else self._granted_unread(granted)
        events = size = 0
        for part in (self.backlog, self.gathered):
            if part is not None:
                events, size = events + part.events, size + part.bytes
        return Unread(
            in_log.events + max(0, events - free_events), in_log.bytes + max(0, size - free_bytes), in_log.seconds
        )

    def _granted_unread(self, granted: Granted) -> tuple[int, int]:
        """Return how many unread events outside the log the reader asked for when it attached, and their bytes."""
        return self.backlog.until(granted.head) if self.backlog is not None else (0, 0)


class FromLog(Source):
    """Reads the log. `cursor` is the last sequence that was taken from the log."""

    __slots__ = ("cursor", "log", "taken_bytes", "taken_events")

    cursor: int
    taken_events: int
    taken_bytes: int

    def __init__(self, log: EventLog, cursor: int) -> None:
        self.log = log
        self.move_to(cursor)

    def next(self, limit_bytes: int) -> Piece | None:
        piece = self.log.read(self.cursor, limit_bytes)
        if piece is None:
            return None
        self.cursor = last = piece.last
        if type(piece) is Chunk:
            self.taken_events += piece.kept or last - piece.first + 1
            self.taken_bytes += len(piece.frame) - piece.start
        return piece

    @property
    def reads_after(self) -> int:
        return self.cursor

    @property
    def is_read(self) -> bool:
        return self.cursor >= self.log.head

    def unread(self) -> Unread:
        return self.and_before(0, 0, None)

    def lag(self, granted: Granted) -> Unread:
        log = self.log
        oldest = max(self.cursor, granted.head) + 1
        return Unread(
            log.appended_events - max(self.taken_events, granted.events),
            log.appended_bytes - max(self.taken_bytes, granted.bytes),
            log.clock() - log.appended_at(oldest) if oldest <= log.head else 0.0,
        )

    def and_before(self, events: int, size: int, since: float | None) -> Unread:
        """Return the sum of two parts: what is unread in the log, and other unread events.

        The other part has `events` events of `size` bytes, and the oldest of them came at `since`.
        """
        log = self.log
        if since is None and not self.is_read:
            since = log.appended_at(self.cursor + 1)
        seconds = 0.0 if since is None else max(0.0, log.clock() - since)
        return Unread(
            events + log.appended_events - self.taken_events, size + log.appended_bytes - self.taken_bytes, seconds
        )

    def move_to(self, sequence: int) -> None:
        """Let the next read of the log begin behind `sequence`."""
        self.cursor = sequence
        events, size = self.log.after(sequence)
        # How many of all events ever appended to the log lie up to the cursor, and their bytes. The log counts all that
        # were appended; the difference is the lag.
        self.taken_events = self.log.appended_events - events
        self.taken_bytes = self.log.appended_bytes - size

    def move_into(self, backlog: Backlog) -> None:
        """Move everything unread from the log to `backlog`."""
        while (piece := self.log.read(self.cursor, PIECE_BYTES)) is not None:
            backlog.append(piece, self.log.appended_at(piece.first))
            self.move_to(piece.last)


class Aside(Source):
    """Reads the backlog, and then returns to the log."""

    __slots__ = ("backlog", "rest")

    def __init__(self, backlog: Backlog, rest: FromLog) -> None:
        self.backlog: Backlog = backlog
        self.rest: FromLog = rest

    def next(self, limit_bytes: int) -> Piece | None:
        return self.backlog.pop() if self.backlog else self.rest.next(limit_bytes)

    def then(self) -> Source:
        return self if self.backlog else self.rest


class Gathering(Source):
    """Gathers the newest value of each item, and every event of another kind, from the log.

    If the policy conflates, this state ends as soon as the reader has read everything gathered. If the policy has an
    interval (`interval_s`), the state never ends, and gathered events become readable only at `due_at`. The backlog has
    the events that are readable now.
    """

    __slots__ = ("_asked_bytes", "_asked_events", "_seen_events", "backlog", "due_at", "gathered", "interval_s", "rest")

    def __init__(self, rest: FromLog, policy_name: str, interval_s: float = 0.0) -> None:
        self.rest: FromLog = rest
        self.backlog: Backlog = Backlog()
        detail = f"newer values of the same items took their place (policy {policy_name!r})"
        self.gathered: Conflation = Conflation(detail)
        self.interval_s = interval_s
        self.due_at = rest.log.clock()
        # How many events had been appended to the log when events were last gathered.
        self._seen_events = rest.log.appended_events
        # How many events, and how many bytes, had been appended to the log when the policy last acted, or when gathered
        # events last became readable.
        self._asked_events = self._asked_bytes = 0

    def next(self, limit_bytes: int) -> Piece | None:
        if not self.backlog:
            self._give_out()
        return super().next(limit_bytes)

    def then(self) -> Source:
        return self if self.interval_s or self.backlog or self.gathered else self.rest

    def arrived(self) -> None:
        """Gather the new events of the log. If very many events are unread, gather only some of them in this call."""
        log, rest = self.rest.log, self.rest
        if rest.is_read:
            return
        room = _STEP_EVENTS + 2 * (log.appended_events - self._seen_events)
        self._seen_events = log.appended_events
        while room > 0 and (piece := log.read(rest.cursor, _STEP_BYTES)) is not None:
            self.gathered.absorb(piece, log.appended_at(piece.first))
            rest.move_to(piece.last)
            room -= piece.events if isinstance(piece, Chunk) else 1

    def asked(self) -> None:
        """Begin to count the appended events again from 0.

        The policy is asked again when the events appended after this call exceed the limits.
        """
        self._asked_events, self._asked_bytes = self.rest.log.appended_events, self.rest.log.appended_bytes

    def due_in_s(self) -> float | None:
        if self.interval_s and (self.gathered or not self.rest.is_read):
            return max(0.0, self.due_at - self.rest.log.clock())
        return None

    def _give_out(self) -> None:
        """Move the next piece of the gathered events to the backlog, if it is readable by now."""
        gathered, clock = self.gathered, self.rest.log.clock
        since, pieces = gathered.since, gathered.take()
        if not pieces and (not self.interval_s or clock() >= self.due_at):
            if self.interval_s:
                self.arrived()
                if not self.rest.is_read:
                    return  # the reader must get the last value of each item, so all events must be gathered before
            since = gathered.since
            gathered.release()
            if pieces := gathered.take():
                self.due_at = clock() + self.interval_s
                self.asked()
        for piece in pieces:
            self.backlog.append(piece, since)

    def settle(self) -> None:
        """Move everything gathered to the backlog."""
        since = self.gathered.since
        for piece in self.gathered.drain():
            self.backlog.append(piece, since)

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:
        if not self.fits(limits, granted):
            return True
        log = self.rest.log
        # Only events appended after the last call of `asked` count here. If the gathered events counted too, the policy
        # would be asked again at every event.
        events, size = log.appended_events - self._asked_events, log.appended_bytes - self._asked_bytes
        return not self.interval_s and (_exceeds(events, limits.events) or _exceeds(size, limits.bytes))

    def fits(self, limits: QueueLimits, granted: Granted) -> bool:
        """Whether what remains after conflating is within the limits.

        All remaining events count against the limit in bytes. Gaps, and events that are never replaced, count against
        the limit in events. The newest values do not, because there is at most one for each item.
        """
        free_events, free_bytes = (0, 0) if granted.is_delivered else self._granted_unread(granted)
        size = self.gathered.bytes + self.backlog.bytes - free_bytes
        return not _exceeds(self.gathered.others - free_events, limits.events) and not _exceeds(size, limits.bytes)

    def _granted_unread(self, granted: Granted) -> tuple[int, int]:
        # An upper bound, because newer events have replaced some of them.
        return granted.unread_events, granted.unread_bytes


class Refusing(Source):
    """Reads the backlog, and refuses arriving events until at most `until_events` events of the backlog are unread.

    After that, one gap reports all refused events, and the reader continues in the state given as `aside`.
    """

    __slots__ = ("_aside", "_first", "_refused_events", "_since", "_until_events", "_why", "backlog", "rest")

    def __init__(self, aside: Aside | Gathering, until_events: int, why: str) -> None:
        self._aside = aside
        self.backlog: Backlog = aside.backlog
        self.rest: FromLog = aside.rest
        self._until_events = until_events
        self._why = why
        self._since = self.rest.log.clock()
        self._first = self.rest.cursor + 1
        self._refused_events = 0

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:  # noqa: ARG002 - the policy has already acted
        return False

    def then(self) -> Source:
        return self if self.backlog.events > self._until_events else self.reopened()

    def arrived(self) -> None:
        """Refuse the new events of the log."""
        refused = self.rest.log.after(self.rest.cursor)[0]
        if refused or self._refused_events:
            self._refused_events += refused
            self.rest.move_to(self.rest.log.head)
        else:  # only gaps that the worker reported have come: they do not count as events, and keep their reasons
            self.rest.move_into(self.backlog)
            self._first = self.rest.cursor + 1

    def reopened(self) -> Source:
        """Add a gap for the refused events to the backlog; return the state that accepts events again."""
        if self._first <= self.rest.cursor:
            gap = dropped_gap(self._first, self.rest.cursor, self._refused_events, self._why)
            self.backlog.append(gap, self._since)
        return self._aside.then()


class Ending(Source):
    """Reads the backlog; the stream then ends with `error`. Nothing more is read from the log."""

    __slots__ = ("_clock", "backlog", "error")

    def __init__(self, backlog: Backlog, error: GatewayError, clock: Callable[[], float]) -> None:
        self.backlog: Backlog = backlog
        self.error = error
        self._clock = clock

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:  # noqa: ARG002 - no policy is asked any more
        return False

    def unread(self) -> Unread:
        since = self.backlog.since
        seconds = 0.0 if since is None else max(0.0, self._clock() - since)
        return Unread(self.backlog.events, self.backlog.bytes, seconds)


def first_source(log: EventLog, cursor: int, policy: CheckedPolicy, gap: Gap | None) -> Source:
    """Return the state of a reader that has just attached.

    The reader first gets `gap`, if there is one, and then reads the log behind `cursor`.
    """
    rest = FromLog(log, cursor)
    first: Aside | Gathering
    first = Gathering(rest, policy.name, policy.interval_s) if policy.interval_s else Aside(Backlog(), rest)
    if gap is not None:
        first.backlog.put_first(gap, log.clock())
    return first.then()


def settled(source: Source) -> Source:
    """Move gathered events to the backlog. Return a state that has a backlog, and no gathered events."""
    if isinstance(source, FromLog):
        return Aside(Backlog(), source)
    if isinstance(source, Gathering):
        source.settle()
        return source if source.interval_s else Aside(source.backlog, source.rest)
    return source


def set_aside(source: Source) -> Aside | Gathering:
    """Return a state that has everything unread in its backlog.

    `source` must be neither `Refusing` nor `Ending`.
    """
    aside = settled(source)
    assert isinstance(aside, Aside | Gathering)
    aside.rest.move_into(aside.backlog)
    return aside


def ended(source: Source, error: GatewayError) -> Ending:
    """Return the state that delivers everything unread and then ends with `error`."""
    if isinstance(source, Ending):
        return source
    if isinstance(source, Refusing):
        source.arrived()
        source.reopened()
        return Ending(source.backlog, error, source.rest.log.clock)
    aside = set_aside(source)
    return Ending(aside.backlog, error, aside.rest.log.clock)


def dropped_gap(first: int, last: int, events: int, why: str) -> Gap:
    """Return the gap for a range from which an overflow policy dropped `events` events."""
    return Gap(first, last, GapReason.GAP_REASON_QUEUE_DROPPED, why, events)


def _exceeds(amount: float, limit: float) -> bool:
    return bool(limit) and amount > limit
