"""Checks event streams: whether the gateway kept its promises to one subscriber, over all its streams.

The promises: docs/reference/streams.md#the-promises.

The checker does not depend on how the gateway works. It gets what a client recorded (what the client asked for, every
frame in order, and how each stream ended), and an oracle that knows what the worker produced. System tests, benchmarks
and chaos runs all use this module:

    checker = StreamChecker(oracle)
    checker.attach(start)                  # the client asks for a stream
    for observation in observed(message):  # of each StreamEventsResponse, in order
        checker.observe(observation)
    checker.end("CONNECTION_LOST")         # how it ended; then attach again, as often as the client did
    checker.finish(head)                   # nothing up to `head` may be missing now
    assert not checker.violations, checker.report()

A client library that resumes by itself reports each resume. A test of such a library turns what the library yields into
the observations below, and calls `attach` at each resume.

The memory of a checker is bounded, because a run may last for days. The module has more than 400 lines, because a
checker that is spread over several modules is hard to check itself.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import Event, GapReason
from mxgw_core.api.types import Position

# How many violations are kept with their texts; later violations are only counted.
KEPT = 50


class Promise(enum.Enum):
    """What is promised to every subscriber. Source: docs/reference/streams.md#the-promises."""

    TRUE = "an event is what the worker produced under that number"
    ORDERED = "ordered: sequences and positions never go back"
    UNIQUE = "unique: no event comes twice"
    COMPLETE = "complete, or a Gap in the place of what is missing"
    PROGRESS = "progress, heartbeat and snapshot are never ahead of what was delivered"
    RESUMABLE = "a resume goes on right behind its position, or says that it does not"
    FILTERED = "only what the filter lets pass"
    MINIMAL = "no Gap for what was delivered or is still retained"
    PERMITTED = "nothing the subscriber may not see"
    ENDED = "a stream begins with StreamOpened and ends with a reason"


# The next classes and functions describe what a client recorded.


@dataclass(frozen=True, slots=True)
class Opened:
    """A StreamOpened frame."""

    epoch: bytes
    from_sequence: int
    head_sequence: int
    oldest_sequence: int
    was_resuming: bool = False
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One event. `content` is whatever the oracle compares, for example the value."""

    sequence: int
    item: Hashable
    content: Hashable = None


# A gap with one of these reasons was caused by the subscriber's own policy or filter: the log had the events.
_OF_THE_SUBSCRIBER = frozenset({"QUEUE_DROPPED", "CONFLATED", "FILTER_CHANGED"})


@dataclass(frozen=True, slots=True)
class Lost:
    """A Gap frame.

    `first`, `last` and `count` are 0 where they are unknown. `reason` is the name in the enum without its prefix.

    `runs` are the lengths of alternating runs from `first` on: lost, not lost, lost and so on. Without `runs` the whole
    range is lost.
    """

    epoch: bytes
    first: int
    last: int
    reason: str
    count: int = 0
    runs: tuple[int, ...] = ()

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges in which everything is lost."""
        first = self.first
        for index, length in enumerate(self.runs or (self.last - self.first + 1,)):
            if index % 2 == 0:
                yield first, first + length - 1
            first += length


@dataclass(frozen=True, slots=True)
class Passed:
    """A Progress or Heartbeat frame: everything up to `sequence` was delivered, filtered or covered by a Gap."""

    epoch: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """A Snapshot frame. `values` are the events from which the values in the snapshot come."""

    epoch: bytes
    sequence: int
    values: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """A SnapshotEnd frame."""

    epoch: bytes
    sequence: int


Observation: TypeAlias = Opened | Seen | Lost | Passed | SnapshotPart | SnapshotDone
Content: TypeAlias = Callable[[Event], Hashable]


def value_of(event: Event) -> Hashable:
    """Return the encoded value of a data change; two different values are encoded differently."""
    return event.data_change.value.SerializeToString(deterministic=True)


def seen(events: Iterable[Event], content: Content = value_of) -> Iterator[Seen]:
    """Yield an observation for each event. The `item` of the observation is `(server handle, item handle)`."""
    for event in events:
        yield Seen(event.sequence, (event.server_handle, event.item_handle), content(event))


def observed(message: StreamEventsResponse, content: Content = value_of) -> Iterator[Observation]:
    """Yield the observations in one frame of a stream; none for a frame that promises nothing (Draining)."""
    match message.WhichOneof("frame"):
        case "opened":
            o = message.opened
            yield Opened(o.epoch, o.from_sequence, o.head_sequence, o.oldest_sequence, o.was_resuming, o.recovered)
        case "events":
            yield from seen(message.events.events, content)
        case "gap":
            gap = message.gap
            reason = GapReason.Name(gap.reason).removeprefix("GAP_REASON_")
            yield Lost(gap.epoch, gap.first_lost, gap.last_lost, reason, gap.count, tuple(gap.runs))
        case "progress":
            yield Passed(message.progress.position.epoch, message.progress.position.sequence)
        case "heartbeat":
            yield Passed(message.heartbeat.position.epoch, message.heartbeat.position.sequence)
        case "snapshot":
            at = message.snapshot.position
            values = [
                Event(
                    sequence=item.sequence,
                    server_handle=item.server_handle,
                    item_handle=item.item_handle,
                    data_change=item.value,
                )
                for item in message.snapshot.items
            ]
            yield SnapshotPart(at.epoch, at.sequence, tuple(seen(values, content)))
        case "snapshot_end":
            yield SnapshotDone(message.snapshot_end.position.epoch, message.snapshot_end.position.sequence)


# The next classes know what the worker produced.


class Hole(enum.Enum):
    """What an oracle returns for a sequence that no event has."""

    HOLE = "the worker itself reported a gap here"


class Oracle(Protocol):
    """What the worker produced, known from another source than the stream under test."""

    def produced(self, epoch: bytes, sequence: int) -> Seen | Hole | None:
        """Return the event with this sequence, or a `Hole` if no event has it; None when the oracle does not know.

        The content of the returned event is None when the oracle does not know the content.
        """


class NothingKnown:
    """An oracle that knows no events.

    With this oracle, the checker checks sequences, but neither contents nor filters.
    """

    def produced(self, epoch: bytes, sequence: int) -> None:
        """Return None, because this oracle knows no events."""


class RoundRobin:
    """An oracle for sources whose items report strictly in turn, from the first event of the epoch on.

    With `n` items, event `s` has value number `(s - 1) // n` of item number `(s - 1) % n`. `content(index, count)`
    returns this value for the numbers of item and value, for example with `expected_value` of the simulator's profile
    `load` (up to 500 items, advised in one bulk call).
    """

    def __init__(self, epoch: bytes, items: Sequence[Hashable], content: Callable[[int, int], Hashable]) -> None:
        self._epoch = epoch
        self._items = tuple(items)
        self._content = content

    def produced(self, epoch: bytes, sequence: int) -> Seen | None:
        if epoch != self._epoch or sequence < 1:
            return None
        count, index = divmod(sequence - 1, len(self._items))
        return Seen(sequence, self._items[index], self._content(index, count))


# The rest of the module is the checker.


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that the gateway did not keep.

    `stream` is the number of the stream, from 1 for the subscriber's first. `text` says what happened.
    """

    promise: Promise
    stream: int
    text: str

    def __str__(self) -> str:
        return f"stream {self.stream}: {self.text} [{self.promise.value}]"


class StreamChecker:
    """Checks what one subscriber got, over all its streams; see the module's docstring.

    Args:
        visible: returns whether the subscriber's filter lets an item pass; None means that there is no filter.
        permitted: returns whether the subscriber is allowed to see an item; None allows every item.
        may_lose: returns whether a loss is excused; None excuses every loss that a gap names. A test in which
            everything stays retained uses `lambda lost: False`.

    Attributes:
        violations: the first `KEPT` violations. `counts` has the number of all violations for each promise.
        unjudged: how many missing events could not be judged. Perhaps the filter dropped them, but the oracle does not
            know their items.
    """

    def __init__(
        self,
        oracle: Oracle | None = None,
        *,
        visible: Callable[[Hashable], bool] | None = None,
        permitted: Callable[[Hashable], bool] | None = None,
        may_lose: Callable[[Lost], bool] | None = None,
    ) -> None:
        self._oracle: Oracle = oracle or NothingKnown()
        self._visible = visible
        self._permitted = permitted
        self._may_lose = may_lose
        self.violations: list[Violation] = []
        self.counts: Counter[Promise] = Counter()
        self.events = self.gaps = self.lost_events = self.streams = self.resumes = self.unjudged = 0
        self._is_running = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        # Everything up to this position was delivered, filtered or covered by a gap.
        self._at: Position | None = None
        # The highest sequence that a progress, a heartbeat or the end of a snapshot has reported.
        self._marked = 0
        self._delivered, self._gapped = _Ranges(), _Ranges()
        self._newest: dict[Hashable, int] = {}

    @property
    def position(self) -> Position | None:
        """The position up to which the subscriber got everything.

        None before the subscriber's first stream was opened.
        """
        return self._at

    # The next methods record what the client did.

    def attach(self, start: Position | None = None) -> None:
        """Record that the client asks for a stream after the position `start`.

        With None, the client names no position, and what it got before is not compared with the new stream.
        """
        if self._is_running:
            self._found(Promise.ENDED, "it was followed by another without having ended")
        self.streams += 1
        self.resumes += start is not None
        self._is_running = True
        self._start = start
        self._opened: Opened | None = None
        self._snapshot: SnapshotPart | None = None
        # The reason of the gap with which this stream must begin; None when no such gap is due.
        self._owed: str | None = None
        # A complete resume promises everything up to the sequence `_promised`. An incomplete resume whose position is
        # still in the log promises a gap that begins at or before the sequence `_owes_hole_until`. The value 0 means
        # that nothing is promised.
        self._promised = self._owes_hole_until = 0
        if start is None or (self._at is not None and start.epoch != self._at.epoch):
            self._begin_anew()
        if start is not None:
            if self._at is not None and start.sequence > self._at.sequence:
                self._found(
                    Promise.PROGRESS,
                    f"it was asked for after {start.sequence}, but only {self._at.sequence} had been handed over",
                )
            elif self._at is not None and not self._delivered.meets(start.sequence + 1, self._at.sequence):
                # The client asks again for a range of which it got no event: the range was only reported as lost or
                # passed. So events of this range are allowed to come now.
                self._at = start
                self._gapped.cut(start.sequence)
                self._marked = min(self._marked, start.sequence)
            self._at = self._at or start

    def end(self, reason: str) -> None:
        """Record that the stream ended, and for which reason.

        When the client itself has ended the stream, this is a reason too.
        """
        if not self._is_running:
            raise ValueError("no stream is running: call attach first")
        self._is_running = False
        if not reason:
            self._found(Promise.ENDED, "it ended without a reason")

    def finish(self, head: int | None = None) -> None:
        """Record that no more streams come. With `head`, check that the subscriber got everything up to `head`."""
        if self._is_running:
            self._found(Promise.ENDED, "it never ended")
            self._is_running = False
        if head is not None:
            at = self._at.sequence if self._at is not None else 0
            self._passes_over(head, Promise.COMPLETE, f"the subscriber was given nothing after {at}, of {head}")

    def report(self) -> str:
        """Return the counts and the violations as text."""
        figures = (
            f"{self.events} events, {self.gaps} gaps ({self.lost_events} lost), {self.streams} streams, "
            f"{self.resumes} resumes, {self.unjudged} unjudged: {self.counts.total()} violations"
        )
        return "\n".join([figures, *map(str, self.violations)])

    # The next methods check what the client got.

    def observe(self, observation: Observation) -> None:
        """Check the next observation of the running stream."""
        if not self._is_running:
            raise ValueError("no stream is running: call attach first")
        if isinstance(observation, Opened):
            self._open(observation)
            return
        if self._opened is None:
            self._found(Promise.ENDED, f"{type(observation).__name__} came before StreamOpened")
            return
        if self._owed is not None:
            self._pay(observation)
        self._hold_to_its_word(observation)
        if self._snapshot is not None and isinstance(observation, Seen | Lost):
            self._found(Promise.ORDERED, f"{_name(observation)} came inside a snapshot")
        match observation:
            case Seen():
                self._see(observation)
            case Lost():
                self._lose(observation)
            case Passed():
                self._pass("progress", observation.epoch, observation.sequence)
            case SnapshotPart():
                self._show(observation)
            case SnapshotDone():
                self._show_all(observation)

    def _open(self, opened: Opened) -> None:
        if self._opened is not None:
            self._found(Promise.ENDED, "a second StreamOpened came")
            return
        self._opened = opened
        start = self._start
        if opened.was_resuming != (start is not None):
            self._found(Promise.RESUMABLE, f"was_resuming is {opened.was_resuming}, asked for was {start}")
        if start is None:
            self._at = Position(opened.epoch, opened.from_sequence)
            return
        self._owed = _owed(opened, start)
        if opened.recovered and self._owed in ("EPOCH_CHANGED", "CURSOR_AHEAD"):
            self._found(Promise.RESUMABLE, f"recovered, although {self._owed}")
        if not opened.recovered and self._owed is None:
            self._owes_hole_until = opened.head_sequence
            if start.sequence == opened.head_sequence:
                self._found(Promise.MINIMAL, f"not recovered, although there is nothing after {start.sequence}")
        if opened.recovered:
            self._owed = None
            self._promised = opened.head_sequence
            if opened.from_sequence != start.sequence:
                self._found(Promise.RESUMABLE, f"recovered after {opened.from_sequence}, not after {start.sequence}")

    def _pay(self, observation: Observation) -> None:
        """Check that an incomplete resume begins with its gap.

        Only older events of a history store are allowed to come before the gap.
        """
        assert self._opened is not None
        if (
            self._owed == "RING_EVICTED"
            and isinstance(observation, Seen | Passed)
            and observation.sequence < self._opened.oldest_sequence
        ):
            return
        if self._owed == "RING_EVICTED" and self._here().sequence >= self._opened.oldest_sequence - 1:
            # A history store has delivered all older events, so the missing events lie within the log.
            self._owed = None
            return
        owed, self._owed = self._owed, None
        if isinstance(observation, Lost) and observation.reason == owed:
            return
        self._found(Promise.RESUMABLE, f"{_name(observation)} came first, where a Gap {owed} was due")
        if owed != "RING_EVICTED":
            self._stand_at_opening()

    def _hold_to_its_word(self, observation: Observation) -> None:
        """Check what the opening of a resume announced about the events up to the head at that moment.

        If `recovered` was true, only the subscriber's own policy or filter may cause a gap among these events. If it
        was false, there must be a gap.
        """
        if isinstance(observation, Lost) and observation.first:
            if observation.first <= self._promised and observation.reason not in _OF_THE_SUBSCRIBER:
                self._found(
                    Promise.RESUMABLE,
                    f"{observation}, although recovered was true and everything up to {self._promised} was to follow",
                )
            if observation.first <= self._owes_hole_until:
                self._owes_hole_until = 0
        elif isinstance(observation, Seen | Passed) and 0 < self._owes_hole_until <= observation.sequence:
            self._found(Promise.MINIMAL, f"not recovered, although nothing was missing up to {self._owes_hole_until}")
            self._owes_hole_until = 0

    def _stand_at_opening(self) -> None:
        assert self._opened is not None
        if self._at is None or self._at.epoch != self._opened.epoch:
            self._begin_anew()
        self._at = Position(self._opened.epoch, self._opened.from_sequence)

    def _see(self, event: Seen) -> None:
        at = self._here()
        if event.sequence <= at.sequence or event.sequence in self._gapped:
            self._found(*self._why_too_late(event.sequence, at.sequence))
            return
        self._passes_over(event.sequence - 1, Promise.COMPLETE, f"event {event.sequence} came after {at.sequence}")
        self._judge(event)
        self.events += 1
        self._newest[event.item] = event.sequence
        self._delivered.add(event.sequence, event.sequence)
        self._at = Position(at.epoch, event.sequence)

    def _why_too_late(self, sequence: int, at: int) -> tuple[Promise, str]:
        if sequence in self._delivered:
            return Promise.UNIQUE, f"event {sequence} came again"
        if sequence in self._gapped:
            return Promise.MINIMAL, f"event {sequence} came, although a Gap had said that it is lost"
        if sequence <= self._marked:
            return Promise.PROGRESS, f"event {sequence} came after the mark {self._marked}"
        return Promise.ORDERED, f"event {sequence} came after {at}"

    def _judge(self, event: Seen) -> None:
        assert self._opened is not None
        known = self._oracle.produced(self._opened.epoch, event.sequence)
        if isinstance(known, Hole):
            self._found(Promise.TRUE, f"event {event.sequence} came, where {known.value}")
        elif known is not None and (known.item != event.item or known.content not in (None, event.content)):
            self._found(Promise.TRUE, f"event {event.sequence} is {event}, the worker produced {known}")
        if self._visible is not None and not self._visible(event.item):
            self._found(Promise.FILTERED, f"event {event.sequence} of item {event.item} passed the filter")
        if self._permitted is not None and not self._permitted(event.item):
            self._found(Promise.PERMITTED, f"event {event.sequence} of item {event.item} was shown")

    def _lose(self, lost: Lost) -> None:
        assert self._opened is not None
        self.gaps += 1
        is_excused = self._may_lose is not None and self._may_lose(lost)
        if self._may_lose is not None and not is_excused:
            self._found(Promise.MINIMAL, f"{lost} is not excused")
        if lost.epoch != self._opened.epoch:
            self._found(Promise.COMPLETE, f"{lost} is of another epoch than its stream")
            return
        if not lost.first:
            if lost.reason not in ("EPOCH_CHANGED", "CURSOR_AHEAD"):
                self._found(Promise.COMPLETE, f"{lost} has no range")
            self._stand_at_opening()
            return
        at = self._here()
        events = sum(last - first + 1 for first, last in lost.ranges())
        if lost.last < lost.first or lost.count > events or (lost.runs and [*lost.ranges()][-1][1] != lost.last):
            self._found(Promise.COMPLETE, f"{lost} contradicts itself")
            return
        if lost.first <= at.sequence:
            what = "delivered" if self._delivered.meets(lost.first, lost.last) else "passed"
            self._found(Promise.MINIMAL, f"{lost} covers what had been {what} up to {at.sequence}")
        if lost.reason == "RING_EVICTED" and lost.last >= self._opened.oldest_sequence:
            self._found(Promise.MINIMAL, f"{lost}, but events from {self._opened.oldest_sequence} on were retained")
        # The oracle must not know the lost events. There is one exception: when the worker's outbox overflowed, the
        # worker has produced them. Then `may_lose` must excuse the loss.
        if lost.reason.startswith("SOURCE_") or (lost.reason.startswith("WORKER_") and not is_excused):
            self._judge_hole(lost)
        self._passes_over(lost.first - 1, Promise.COMPLETE, f"{lost} came after {at.sequence}")
        self.lost_events += lost.count or events
        for first, last in lost.ranges():
            self._gapped.add(first, last)
        if not lost.runs:  # after a gap with `runs`, the events between the lost runs must still come
            self._at = Position(at.epoch, max(at.sequence, lost.last))

    def _judge_hole(self, lost: Lost) -> None:
        for sequence in range(lost.first, lost.last + 1):
            known = self._oracle.produced(lost.epoch, sequence)
            if isinstance(known, Seen):
                self._found(Promise.MINIMAL, f"{lost} blames the worker, which produced {known}")
                return

    def _pass(self, what: str, epoch: bytes, sequence: int) -> None:
        at = self._here()
        if epoch != at.epoch:
            self._found(Promise.PROGRESS, f"{what} is of another epoch than its stream")
        elif sequence < at.sequence:
            self._found(Promise.ORDERED, f"{what} goes back from {at.sequence} to {sequence}")
        else:
            self._passes_over(sequence, Promise.PROGRESS, f"{what} says {sequence} after {at.sequence}")
            self._marked = max(self._marked, sequence)
            self._at = Position(epoch, sequence)

    def _show(self, part: SnapshotPart) -> None:
        at = self._here()
        before = self._snapshot
        if before is not None and (before.epoch, before.sequence) != (part.epoch, part.sequence):
            self._found(Promise.PROGRESS, f"parts of one snapshot are of {before.sequence} and {part.sequence}")
        if part.epoch != at.epoch or part.sequence < at.sequence:
            self._found(Promise.ORDERED, f"a snapshot as of {part.sequence} came after {at.sequence}")
        self._snapshot = part
        for value in part.values:
            newest = self._newest.get(value.item, 0)
            if value.sequence > part.sequence or value.sequence < min(newest, part.sequence):
                self._found(
                    Promise.PROGRESS,
                    f"the snapshot as of {part.sequence} shows {value}; {newest} had been delivered of that item",
                )
            self._judge(value)

    def _show_all(self, done: SnapshotDone) -> None:
        part, self._snapshot = self._snapshot, None
        if part is not None and (part.epoch, part.sequence) != (done.epoch, done.sequence):
            self._found(Promise.PROGRESS, f"a snapshot as of {part.sequence} ended as of {done.sequence}")
        self._pass("the end of a snapshot", done.epoch, done.sequence)

    def _here(self) -> Position:
        assert self._at is not None
        return self._at

    def _passes_over(self, until: int, promise: Promise, text: str) -> None:
        """Report a violation of `promise` if events up to `until` are missing without a gap.

        Only events behind the subscriber's position are examined.
        """
        at = self._here() if self._at is not None else Position(b"", 0)
        missing: list[int] = []
        for sequence in range(at.sequence + 1, until + 1):
            if sequence in self._gapped:
                continue
            if self._visible is None:
                missing = [sequence, until]
                break
            known = self._oracle.produced(at.epoch, sequence)
            if known is None:
                self.unjudged += 1
            elif isinstance(known, Hole) or self._visible(known.item):
                missing.append(sequence)
        if missing:
            self._found(promise, f"{text}: {missing[0]} to {missing[-1]} missing without a Gap")

    def _found(self, promise: Promise, text: str) -> None:
        self.counts[promise] += 1
        if len(self.violations) < KEPT:
            self.violations.append(Violation(promise, self.streams, text))


def _owed(opened: Opened, start: Position) -> str | None:
    """Return the reason of the gap with which a resume after `start` must begin; None when no such gap is due."""
    if start.epoch != opened.epoch:
        return "EPOCH_CHANGED"
    if start.sequence > opened.head_sequence:
        return "CURSOR_AHEAD"
    return "RING_EVICTED" if start.sequence < opened.oldest_sequence - 1 else None


def _name(observation: Observation) -> str:
    return f"event {observation.sequence}" if isinstance(observation, Seen) else type(observation).__name__


class _Ranges:
    """A set of numbers that is stored as ranges."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> None:
        low, high = bisect_right(self._lasts, first - 2), bisect_right(self._firsts, last + 1)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]

    def cut(self, after: int) -> None:
        """Remove every number above `after` from the set."""
        keep = bisect_right(self._firsts, after)
        del self._firsts[keep:], self._lasts[keep:]
        if keep:
            self._lasts[-1] = min(self._lasts[-1], after)

    def __contains__(self, number: int) -> bool:
        return self.meets(number, number)

    def meets(self, first: int, last: int) -> bool:
        """Return whether any number from `first` to `last` is in the set."""
        index = bisect_right(self._firsts, last) - 1
        return index >= 0 and self._lasts[index] >= first
