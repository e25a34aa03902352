"""The session's event log: the latest encoded events, bounded, which live delivery and replay read alike.

Worker blocks are merged into segments as they are appended, so that a reader far behind takes few large pieces, and
one that has caught up takes exactly what is new. A gap that the worker reports is an entry of its own, so that
numbering has no holes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.events.encoding import events_prefix, offset_after
from mxgw_core.events.pieces import Chunk, Gap, Piece, chunk_of

SEGMENT_BYTES = 64 * 1024
SEGMENT_EVENTS = 1024

# A joined message of this size is handed to readers that come to its place later, even when there is more by then.
_WORTH_KEEPING_BYTES = 32 * 1024
_KEPT_CHUNKS = 4
# While nothing is appended, so many joined messages are kept, of so many bytes in all; a larger one alone.
SHARED_CHUNKS = 16
SHARED_BYTES = 4 * 1024 * 1024
# The newest block is remembered as it came when it is no larger than this: most readers want it and nothing else.
_NEWEST_BYTES = 32 * 1024
# What a block takes beside its events: three list entries, two numbers of 28 bytes and one of 24; a gap takes more.
_BLOCK_BYTES = 120
_HOLE_BYTES = 400


class OutOfOrder(ValueError):
    """A block does not follow the head; the worker broke the protocol."""


@dataclass(slots=True)
class _Segment:
    first: int
    last: int
    # How many were begun before it.
    number: int
    data: bytearray = field(default_factory=bytearray)
    # First sequence, offset and time of each appended block. Cursors are mostly at the begin of a block.
    starts: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def events(self) -> int:
        return self.last - self.first + 1

    @property
    def size(self) -> int:
        return len(self.data)

    def append(self, first: int, last: int, data: bytes, now: float) -> None:
        self.starts.append(first)
        self.offsets.append(len(self.data))
        self.times.append(now)
        self.data += data
        self.last = last

    def appended_at(self, sequence: int) -> float:
        return self.times[bisect_right(self.starts, sequence) - 1]

    def events_after(self, sequence: int) -> int:
        return self.last - max(sequence, self.first - 1)

    def bytes_after(self, sequence: int) -> int:
        return len(self.data) - self.offset_of(max(sequence + 1, self.first))

    def offset_of(self, sequence: int) -> int:
        """Return where event `sequence` begins; `last + 1` is the end."""
        if sequence > self.last:
            return len(self.data)
        index = bisect_right(self.starts, sequence) - 1
        return offset_after(self.data, sequence - self.starts[index], self.offsets[index])

    def block_end(self, sequence: int, limit_bytes: int) -> tuple[int, int]:
        """Return `(last, offset)` of the furthest block end within `limit_bytes` of `sequence`, at least its own."""
        start = self.offset_of(sequence)
        if len(self.data) - start <= limit_bytes:
            return self.last, len(self.data)
        index = max(bisect_right(self.offsets, start + limit_bytes) - 1, bisect_right(self.starts, sequence))
        if index >= len(self.starts):
            return self.last, len(self.data)
        return self.starts[index] - 1, self.offsets[index]


@dataclass(frozen=True, slots=True)
class _Hole:
    """A gap in its place. Takes the room of one event, so that a source that only fails is bounded too."""

    gap: Gap
    time: float
    events: int = 0
    size: int = 0

    @property
    def first(self) -> int:
        return self.gap.first

    @property
    def last(self) -> int:
        return self.gap.last

    def appended_at(self, sequence: int) -> float:  # noqa: ARG002 - all of it came at once
        return self.time

    def events_after(self, sequence: int) -> int:  # noqa: ARG002 - it holds none
        return 0

    def bytes_after(self, sequence: int) -> int:  # noqa: ARG002 - it holds none
        return 0


_Entry: TypeAlias = _Segment | _Hole


class EventLog:
    """One epoch's events, oldest first, numbered without holes.

    Not thread-safe; lives in the event loop. `clock` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._entries: list[_Entry] = []
        self._firsts: list[int] = []
        self.head = 0
        # Events up to here never came: the worker that was taken over no longer had them.
        self.begun_after = 0
        self.events = 0
        self.bytes = 0
        self._holes = 0
        # Where the newest gap ended that was ever appended: behind it nothing is missing.
        self.unbroken_after = 0
        self._blocks = 0
        self._begun = 0
        # A segment takes no events that came this much later than its first: it is forgotten as a whole.
        self.segment_s = math.inf
        # Ever appended: with a reader's own counts they give its lag. Sequences that no event fills are no lag.
        self.appended_events = 0
        self.appended_bytes = 0
        # Messages joined for all readers at one place, by place and limit. A small one is forgotten when something is
        # appended, which then belongs into it; a large one is kept, because joining it anew would cost more.
        self._shared: dict[tuple[int, int], Chunk] = {}
        self._shared_bytes = 0
        self._shares_large = False
        # Whether there is more than one reader. For one alone nothing is kept: a message takes the last one's memory.
        self.is_shared = True
        # The newest block while it is small, and the sequence before it; -1 when there is none.
        self._newest, self._before_newest = b"", -1

    @property
    def oldest(self) -> int:
        """Oldest sequence held; `head + 1` when none is."""
        return self._firsts[0] if self._firsts else self.head + 1

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever appended."""
        return bool(self.appended_events or self.unbroken_after)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the events take, and what is needed to find them."""
        return self.bytes + self._blocks * _BLOCK_BYTES + self._holes * _HOLE_BYTES

    @property
    def shared_bytes(self) -> int:
        """How much memory is taken by what was joined for readers, and by what their filters made of it."""
        cuts = (cut for chunk in self._shared.values() for _, _, cut in chunk.cuts.values())
        return self._shared_bytes + len(self._newest) + sum(len(cut.frame) for cut in cuts if cut is not None)

    def append(self, first: int, last: int, data: bytes) -> None:
        """Append consecutive events.

        Raises:
            OutOfOrder: `first` is not the next sequence, or the range is empty.
        """
        self._advance(first, last)
        if len(data) <= _NEWEST_BYTES:
            self._newest, self._before_newest = data, first - 1
        now = self.clock()
        tail = self._entries[-1] if self._entries else None
        if (
            isinstance(tail, _Segment)
            and len(tail.data) + len(data) <= SEGMENT_BYTES
            and last - tail.first < SEGMENT_EVENTS
            and now - tail.times[0] <= self.segment_s
        ):
            tail.append(first, last, data, now)
        else:
            segment = _Segment(first, last, self._begun)
            self._begun += 1
            segment.append(first, last, data, now)
            self._push(segment)
        self.events += last - first + 1
        self.bytes += len(data)
        self._blocks += 1
        self.appended_events += last - first + 1
        self.appended_bytes += len(data)

    def append_gap(self, gap: Gap) -> None:
        """Append a range that no event will fill.

        Raises:
            OutOfOrder: as `append`.
        """
        self._advance(gap.first, gap.last)
        self._push(_Hole(gap, self.clock()))
        self._holes += 1
        self.unbroken_after = gap.last

    def start_after(self, sequence: int) -> None:
        """Begin the log behind `sequence` (a worker that was taken over sends what it still has).

        Raises:
            OutOfOrder: it has begun already, or further on.
        """
        if self.has_begun or sequence < self.head:
            raise OutOfOrder("the log has begun already")
        self.head = self.begun_after = sequence

    def release(self) -> None:
        """Forget every event; numbering and counts stay."""
        self._entries.clear()
        self._firsts.clear()
        self.drop_shared()
        self.events = self.bytes = self._holes = self._blocks = 0

    def _advance(self, first: int, last: int) -> None:
        if first != self.head + 1 or last < first:
            raise OutOfOrder(f"events {first} to {last} do not follow {self.head}")
        self.head = last
        self._before_newest = -1
        if self._shares_large:
            large = [(key, chunk) for key, chunk in self._shared.items() if chunk.batch_bytes >= _WORTH_KEEPING_BYTES]
            self._share_only(large[-_KEPT_CHUNKS:])
            self._shares_large = bool(large)
        else:
            self._shared.clear()
            self._shared_bytes = 0

    def drop_shared(self) -> bool:
        """Forget the messages joined for readers, which are joined anew when needed; return whether there were any."""
        had_some = bool(self._shared or self._newest)
        self._shared.clear()
        self._shared_bytes = 0
        self._newest, self._before_newest = b"", -1
        return had_some

    def _share_only(self, kept: Iterable[tuple[tuple[int, int], Chunk]]) -> None:
        self._shared = dict(kept)
        self._shared_bytes = sum(len(chunk.frame) for chunk in self._shared.values())

    def _share(self, key: tuple[int, int], chunk: Chunk) -> Chunk:
        """Keep what was joined for one reader for others at its place, and less of what was joined before."""
        shared = self._shared
        shared[key] = chunk
        self._shared_bytes += len(chunk.frame)
        while len(shared) > 1 and (self._shared_bytes > SHARED_BYTES or len(shared) > SHARED_CHUNKS):
            self._shared_bytes -= len(shared.pop(next(iter(shared))).frame)
        return chunk

    def _push(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._firsts.append(entry.first)

    def read(self, after: int, limit_bytes: int) -> Piece | None:
        """Return what follows `after`: events up to about `limit_bytes`, or one gap; None at the head.

        Readers that are behind meet: what they are given ends where a group of segments does, wherever they begin, so
        that from there on they share what is joined. At least one worker block is returned, even a larger one. `after`
        must be at least `oldest - 1`.

        Raises:
            LookupError: `after` is older than the log.
        """
        if after >= self.head:
            return None
        key = (after, limit_bytes)
        if (shared := self._shared.get(key)) is not None:
            return shared
        if after == self._before_newest and len(self._newest) <= limit_bytes:
            chunk = chunk_of(after + 1, self.head, self._newest)
            return self._share(key, chunk) if self.is_shared else chunk
        index = self._index_of(after + 1)
        entry = self._entries[index]
        if isinstance(entry, _Hole):
            if after + 1 == entry.first:
                return entry.gap
            return Gap(after + 1, entry.last, entry.gap.reason, entry.gap.detail)
        parts: list[memoryview] = []
        last, taken = after, 0
        group = max(1, limit_bytes // SEGMENT_BYTES)
        while isinstance(entry, _Segment):
            start = entry.offset_of(last + 1)
            block_last, end = entry.block_end(last + 1, limit_bytes - taken)
            if parts and taken + end - start > limit_bytes:
                break
            parts.append(memoryview(entry.data)[start:end])
            taken += end - start
            last = block_last
            index += 1
            is_group_end = (entry.number + 1) % group == 0
            if last != entry.last or is_group_end or taken >= limit_bytes or index == len(self._entries):
                break
            entry = self._entries[index]
        prefix = events_prefix(taken)
        chunk = Chunk(after + 1, last, b"".join((prefix, *parts)), len(prefix))
        for part in parts:
            part.release()  # a bytearray cannot grow while a view of it is alive
        if self.is_shared:
            self._share(key, chunk)
            self._shares_large = self._shares_large or taken >= _WORTH_KEEPING_BYTES
        return chunk

    def after(self, after: int) -> tuple[int, int]:
        """Return how many events, and how many bytes of them, are behind `after`."""
        if after >= self.head:
            return 0, 0
        index = self._index_of(after + 1)
        entry = self._entries[index]
        events, size = entry.events_after(after), entry.bytes_after(after)
        for entry in self._entries[index + 1 :]:
            events += entry.events
            size += entry.size
        return events, size

    def skip(self, after: int, events: int) -> int:
        """Return the sequence of the event that is the `events`-th behind `after`; the head when there are fewer."""
        if events <= 0 or after >= self.head:
            return after
        for entry in self._entries[self._index_of(after + 1) :]:
            here = entry.events_after(after)
            if events <= here:
                return entry.last - here + events
            events -= here
        return self.head

    def appended_at(self, sequence: int) -> float:
        """Return when event `sequence` was appended, on the log's clock; now when it is not here."""
        if not self.oldest <= sequence <= self.head:
            return self.clock()
        return self._entries[self._index_of(sequence)].appended_at(sequence)

    def _index_of(self, sequence: int) -> int:
        index = bisect_right(self._firsts, sequence) - 1
        if index < 0:
            raise LookupError(f"event {sequence} is older than the log ({self.oldest})")
        return index

    def trim(self, floor: int, events: int, limit_bytes: int, seconds: float) -> Gap | None:
        """Forget entries up to `floor` that exceed the retention; return the range forgotten, if any.

        An entry goes only whole: the log keeps at least `events`, `limit_bytes` and `seconds` worth of what it has,
        whichever is least (0 keeps nothing of that kind). A gap counts as one event.
        """
        drop = 0
        for entry in self._entries:
            if entry.last > floor or not self._is_expendable(entry, events, limit_bytes, seconds):
                break
            if isinstance(entry, _Segment):
                self._blocks -= len(entry.starts)
            else:
                self._holes -= 1
            self.events -= entry.events
            self.bytes -= entry.size
            drop += 1
        if not drop:
            return None
        first, last = self._entries[0].first, self._entries[drop - 1].last
        self._share_only((key, chunk) for key, chunk in self._shared.items() if key[0] >= last)
        if self._before_newest < last:
            self._newest, self._before_newest = b"", -1
        del self._entries[:drop]
        del self._firsts[:drop]
        return Gap(first, last, GapReason.GAP_REASON_RING_EVICTED)

    def trim_oldest(self, floor: int) -> Gap | None:
        """Forget the oldest entry, if all of it is up to `floor`, whatever is retained; return its range."""
        return self.trim(min(floor, self._entries[0].last), 0, 0, 0.0) if self._entries else None

    def exceeds(self, events: int, limit_bytes: int, seconds: float) -> bool:
        """Whether `trim` would forget something if everybody had read it."""
        return bool(self._entries) and self._is_expendable(self._entries[0], events, limit_bytes, seconds)

    def _is_expendable(self, entry: _Entry, events: int, limit_bytes: int, seconds: float) -> bool:
        return (
            self.events + self._holes - (entry.events or 1) >= events
            or self.bytes - entry.size >= limit_bytes
            or (seconds > 0 and entry.appended_at(entry.last) < self.clock() - seconds)
        )
