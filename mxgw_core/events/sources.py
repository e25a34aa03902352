"""What one reader has yet to read, and where it lies: the state of a subscriber, exactly one at a time.

    FromLog     the log, from a cursor on: the usual state, which costs nothing but the cursor
    Aside       a backlog of the reader's own, then the log
    Gathering   the newest value of each item, while the policy conflates or paces
    Refusing    a backlog; what arrives is lost until enough of the backlog was read (`DropNewest`)
    Ending      a backlog, then the error that ends the stream

`events.overflow` leads from one to another when a policy acts. `then` leads back once the reader has read enough.

Unread events lie in up to three parts, which are read in this order: a backlog, what is gathered, the log. `Source`
says once what all states have in common.

More than 400 lines: the five states can only be compared, and are only complete, in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import OverflowPolicy, PacedPolicy, QueueLimits
from mxgw_core.events.backlog import Backlog
from mxgw_core.events.conflation import Conflation
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import PIECE_BYTES, Chunk, Gap, Piece

# A long run of unread events is gathered in steps of about this size (0.2 ms), and at least twice as fast as it grows:
# several readers that begin to conflate at the same moment must not hold up the others.
_STEP_EVENTS = 250
_STEP_BYTES = 4 * 1024


@dataclass(slots=True)
class Granted:
    """What a reader asked for itself as it attached: as long as that is unread it does not count as lag.

    Attributes:
        head: the log's newest sequence at that moment. `events` and `bytes`: how much had ever been appended by then.
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
        """Whether any limit is passed."""
        return (
            _exceeds(self.events, limits.events)
            or _exceeds(self.bytes, limits.bytes)
            or _exceeds(self.seconds, limits.seconds)
        )


class Source:
    """One of the five states."""

    __slots__ = ()

    backlog: Backlog | None = None
    gathered: Conflation | None = None
    rest: FromLog | None = None

    def next(self, limit_bytes: int) -> Piece | None:  # noqa: ARG002 - a backlog has pieces of its own
        """Take what comes next, from the log up to about `limit_bytes`; None when there is nothing, or not yet."""
        return self.backlog.pop() if self.backlog else None

    def then(self) -> Source:
        """Return the state to go on in after `next` or `arrived`: nearly always this one."""
        return self

    def arrived(self) -> None:
        """Take notice that the log was appended to, or that time has passed."""

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:
        """Whether the policy is to be asked."""
        return self.lag(granted).exceeds(limits)

    def due_in_s(self) -> float | None:
        """Return in how many seconds the next pieces may be taken; None when no event waits for its time."""
        return None

    @property
    def reads_after(self) -> int | None:
        """The sequence behind which the log is still to be read; None when it is not read any more."""
        return self.rest.cursor if self.rest is not None else None

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to take."""
        return not self.backlog and not self.gathered and (self.rest is None or self.rest.is_read)

    @property
    def backlog_bytes(self) -> int:
        """Memory held for this reader's events alone. Unread events in the shared log cost nothing more."""
        own = self.backlog.bytes if self.backlog is not None else 0
        return own + self.gathered.memory_bytes if self.gathered is not None else own

    @property
    def memory_bytes(self) -> int:
        """The same and what finding the events takes."""
        own = self.backlog.memory_bytes if self.backlog is not None else 0
        return own + self.gathered.memory_bytes if self.gathered is not None else own

    def unread(self) -> Unread:
        """Return everything not taken yet. `seconds` of gathered events: how long they have been gathered."""
        events = size = 0
        since: float | None = None
        for part in (self.backlog, self.gathered):
            if part:
                events, size = events + part.events, size + part.bytes
                since = part.since if since is None else since
        assert self.rest is not None  # `Ending` has an `unread` of its own
        return self.rest.and_before(events, size, since)

    def lag(self, granted: Granted) -> Unread:
        """Return what counts against the limits. `seconds` counts only what is still in the log."""
        assert self.rest is not None  # once a stream ends no policy is asked
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
        """Return how many events and bytes of what is not in the log the reader asked for itself."""
        return self.backlog.until(granted.head) if self.backlog is not None else (0, 0)


class FromLog(Source):
    """Reads the log. `cursor`: everything up to here was taken from the log."""

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
        """Return what is unread of the log and, in front of it, so many events and bytes, the oldest from `since`."""
        log = self.log
        if since is None and not self.is_read:
            since = log.appended_at(self.cursor + 1)
        seconds = 0.0 if since is None else max(0.0, log.clock() - since)
        return Unread(
            events + log.appended_events - self.taken_events, size + log.appended_bytes - self.taken_bytes, seconds
        )

    def move_to(self, sequence: int) -> None:
        """Go on behind `sequence`."""
        self.cursor = sequence
        events, size = self.log.after(sequence)
        # Of all that was ever appended; with the log's own counts this gives the lag.
        self.taken_events = self.log.appended_events - events
        self.taken_bytes = self.log.appended_bytes - size

    def move_into(self, backlog: Backlog) -> None:
        """Set everything unread aside."""
        while (piece := self.log.read(self.cursor, PIECE_BYTES)) is not None:
            backlog.append(piece, self.log.appended_at(piece.first))
            self.move_to(piece.last)


class Aside(Source):
    """Reads the backlog, and goes back to the log."""

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

    A policy that conflates ends it as soon as the reader has read everything gathered. With `interval_s` the policy
    has a pace: nothing is given out before `due_at`, and the state stays. The backlog has what may be read now.
    """

    __slots__ = ("_asked_bytes", "_asked_events", "_seen_events", "backlog", "due_at", "gathered", "interval_s", "rest")

    def __init__(self, rest: FromLog, policy_name: str, interval_s: float = 0.0) -> None:
        self.rest: FromLog = rest
        self.backlog: Backlog = Backlog()
        detail = f"newer values of the same items took their place (policy {policy_name!r})"
        self.gathered: Conflation = Conflation(detail)
        self.interval_s = interval_s
        self.due_at = rest.log.clock()
        # How much had been appended when events were last gathered.
        self._seen_events = rest.log.appended_events
        # How much had been appended when the policy was last asked, or when the reader was given what was gathered.
        self._asked_events = self._asked_bytes = 0

    def next(self, limit_bytes: int) -> Piece | None:
        if not self.backlog:
            self._give_out()
        return super().next(limit_bytes)

    def then(self) -> Source:
        return self if self.interval_s or self.backlog or self.gathered else self.rest

    def arrived(self) -> None:
        """Gather what is new in the log, and more of a long run of unread events."""
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
        """Begin to count anew what is appended until the policy is asked again."""
        self._asked_events, self._asked_bytes = self.rest.log.appended_events, self.rest.log.appended_bytes

    def due_in_s(self) -> float | None:
        if self.interval_s and (self.gathered or not self.rest.is_read):
            return max(0.0, self.due_at - self.rest.log.clock())
        return None

    def _give_out(self) -> None:
        """Move the next piece of what was gathered to the backlog, once it may be read."""
        gathered, clock = self.gathered, self.rest.log.clock
        since, pieces = gathered.since, gathered.take()
        if not pieces and (not self.interval_s or clock() >= self.due_at):
            if self.interval_s:
                self.arrived()
                if not self.rest.is_read:
                    return  # due until everything is gathered, so that the last value of each item goes out
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
        # What conflating cannot make smaller is no lag again, or every event would make the policy be asked.
        events, size = log.appended_events - self._asked_events, log.appended_bytes - self._asked_bytes
        return not self.interval_s and (_exceeds(events, limits.events) or _exceeds(size, limits.bytes))

    def fits(self, limits: QueueLimits, granted: Granted) -> bool:
        """Whether the events that are never replaced, and one value of each item, are within the limits.

        The newest values may be more than the limit in events: there are no more of them than items.
        """
        free_events, free_bytes = (0, 0) if granted.is_delivered else self._granted_unread(granted)
        size = self.gathered.bytes + self.backlog.bytes - free_bytes
        return not _exceeds(self.gathered.others - free_events, limits.events) and not _exceeds(size, limits.bytes)

    def _granted_unread(self, granted: Granted) -> tuple[int, int]:
        return granted.unread_events, granted.unread_bytes  # at most: some of it was conflated


class Refusing(Source):
    """Reads what was set aside; arriving events are lost until at most `until_events` of the backlog are unread.

    A gap then replaces all refused events, and `aside` goes on.
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

    def is_over(self, limits: QueueLimits, granted: Granted) -> bool:  # noqa: ARG002 - its policy has acted
        return False

    def then(self) -> Source:
        return self if self.backlog.events > self._until_events else self.reopened()

    def arrived(self) -> None:
        """Refuse what is new."""
        refused = self.rest.log.after(self.rest.cursor)[0]
        if refused or self._refused_events:
            self._refused_events += refused
            self.rest.move_to(self.rest.log.head)
        else:  # a gap of the worker's takes no room, and keeps its own reason
            self.rest.move_into(self.backlog)
            self._first = self.rest.cursor + 1

    def reopened(self) -> Source:
        """Put a gap for the refused events behind the backlog; return the state that takes events again."""
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


def first_source(log: EventLog, cursor: int, policy: OverflowPolicy, gap: Gap | None) -> Source:
    """Return the state of a reader that begins with `gap`, if any, and goes on behind `cursor`."""
    rest = FromLog(log, cursor)
    first: Aside | Gathering
    if isinstance(policy, PacedPolicy):
        first = Gathering(rest, policy.name, policy.interval_s)
    else:
        first = Aside(Backlog(), rest)
    if gap is not None:
        first.backlog.put_first(gap, log.clock())
    return first.then()


def settled(source: Source) -> Source:
    """Return the state with everything gathered in its backlog, and with a backlog in any case."""
    if isinstance(source, FromLog):
        return Aside(Backlog(), source)
    if isinstance(source, Gathering):
        source.settle()
        return source if source.interval_s else Aside(source.backlog, source.rest)
    return source


def set_aside(source: Source) -> Aside | Gathering:
    """Return the state with everything unread in its backlog; `source` neither refuses nor ends."""
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
    """Return the gap of a range whose `events` events an overflow policy dropped."""
    return Gap(first, last, GapReason.GAP_REASON_QUEUE_DROPPED, why, events)


def _exceeds(amount: float, limit: float) -> bool:
    return bool(limit) and amount > limit
