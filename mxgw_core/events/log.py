"""The session's event log: a bounded store of the latest encoded events, for live delivery and for replay.

The worker sends consecutive events in blocks, and the log appends each block to a segment. A reader that is far behind
gets many blocks in one message (a joined message), and a reader that has caught up gets exactly the new block. A joined
message is kept for a while, so that other readers at the same place get it too. A gap that the worker reports is an
entry of its own, so that the numbering has no holes.

The module has more than 400 lines, because segments, joined messages and trimming use the same borders.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.events.encoding import events_prefix, offset_after
from mxgw_core.events.pieces import Chunk, Gap, Piece, chunk_of

SEGMENT_BYTES = 64 * 1024
SEGMENT_EVENTS = 1024

# A joined message of at least this size stays kept when more events are appended. A reader that later reads from the
# same sequence gets this message, although a message with more events could be joined by then.
_WORTH_KEEPING_BYTES = 32 * 1024
_KEPT_CHUNKS = 4
# At most this many joined messages are kept, and at most this many bytes of them. If only one message is kept, it is
# allowed to be larger.
SHARED_CHUNKS = 16
SHARED_BYTES = 4 * 1024 * 1024
# The newest block is also kept by itself if it has at most this size, because most readers need exactly this block.
_NEWEST_BYTES = 32 * 1024
# How many bytes of memory a block uses beside its events (three list entries, two numbers of 28 bytes and one of 24),
# and how many bytes a gap uses.
_BLOCK_BYTES = 120
_HOLE_BYTES = 400


class OutOfOrder(ValueError):
    """A block or a gap does not follow the head: the worker broke the protocol."""


@dataclass(slots=True)
class _Segment:
    first: int
    last: int
    # How many segments were begun before this segment.
    number: int
    # `EventLog.appended_memory` before this segment was begun.
    memory_before: int
    data: bytearray = field(default_factory=bytearray)
    # The first sequence, the offset and the time of each appended block. Most reads begin at the beginning of a block.
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
        """Return the offset at which event `sequence` begins; for `last + 1`, the end of the segment."""
        if sequence > self.last:
            return len(self.data)
        index = bisect_right(self.starts, sequence) - 1
        return offset_after(self.data, sequence - self.starts[index], self.offsets[index])

    def block_end(self, sequence: int, limit_bytes: int) -> tuple[int, int]:
        """Return the end of a message that begins at event `sequence`: the last sequence, and the offset behind it.

        A message has whole blocks up to `limit_bytes`, and at least the rest of the event's own block.
        """
        start = self.offset_of(sequence)
        if len(self.data) - start <= limit_bytes:
            return self.last, len(self.data)
        index = max(bisect_right(self.offsets, start + limit_bytes) - 1, bisect_right(self.starts, sequence))
        if index >= len(self.starts):
            return self.last, len(self.data)
        return self.starts[index] - 1, self.offsets[index]


@dataclass(frozen=True, slots=True)
class _Hole:
    """A gap in the log. It counts as one event, so that the log stays bounded even if a source only reports gaps."""

    gap: Gap
    time: float
    memory_before: int
    events: int = 0
    size: int = 0

    @property
    def first(self) -> int:
        return self.gap.first

    @property
    def last(self) -> int:
        return self.gap.last

    def appended_at(self, sequence: int) -> float:  # noqa: ARG002 - the whole range came at once
        return self.time

    def events_after(self, sequence: int) -> int:  # noqa: ARG002 - a gap has no events
        return 0

    def bytes_after(self, sequence: int) -> int:  # noqa: ARG002 - a gap has no events
        return 0


_Entry: TypeAlias = _Segment | _Hole


class EventLog:
    """One epoch's events, oldest first, numbered without holes.

    Not thread-safe: used only in the event loop. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._entries: list[_Entry] = []
        self._firsts: list[int] = []
        self.head = 0
        # Events up to this sequence never came to this log: an adopted worker no longer had them.
        self.begun_after = 0
        self.events = 0
        self.bytes = 0
        self._holes = 0
        # The last sequence of the newest gap that was ever appended: all events behind this sequence were appended.
        self.unbroken_after = 0
        self._begun = 0
        # An event that comes more than this many seconds after the first event of a segment begins a new segment. A
        # segment is forgotten only as a whole, so its events must not differ much in age.
        self.segment_s = math.inf
        # How many events were ever appended, and their bytes; gaps do not count. These numbers, minus the events and
        # bytes that a reader has taken, are the reader's lag.
        self.appended_events = 0
        self.appended_bytes = 0
        # About how many bytes of memory everything that was ever appended has used, gaps included.
        self.appended_memory = 0
        # The kept joined messages. Key: the sequence before the message, and the size limit. When events are appended,
        # small messages are forgotten, because a message joined now would have the new events too. Large messages stay
        # kept, because joining them again would cost more.
        self._shared: dict[tuple[int, int], Chunk] = {}
        self._shared_bytes = 0
        self._shares_large = False
        # Whether there is more than one reader. For a single reader no joined message is kept, so that the memory of
        # the message is freed at once.
        self.is_shared = True
        # The newest block, if it is small enough to be kept, and the sequence before this block; -1 when no block is
        # kept.
        self._newest, self._before_newest = b"", -1

    @property
    def oldest(self) -> int:
        """The oldest sequence in the log; `head + 1` when the log is empty."""
        return self._firsts[0] if self._firsts else self.head + 1

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever appended."""
        return bool(self.appended_events or self.unbroken_after)

    @property
    def gaps(self) -> int:
        """How many gaps the log holds."""
        return self._holes

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the events use, including the numbers by which they are found."""
        return self.memory_after(self.oldest - 1)

    @property
    def shared_bytes(self) -> int:
        """How many bytes the kept joined messages use, and the chunks that filters made of these messages."""
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
            segment = _Segment(first, last, self._begun, self.appended_memory)
            self._begun += 1
            segment.append(first, last, data, now)
            self._push(segment)
        self.events += last - first + 1
        self.bytes += len(data)
        self.appended_events += last - first + 1
        self.appended_bytes += len(data)
        self.appended_memory += len(data) + _BLOCK_BYTES

    def append_gap(self, gap: Gap) -> None:
        """Append a gap: a range that no event will fill.

        Raises:
            OutOfOrder: the gap does not begin at the next sequence, or its range is empty.
        """
        self._advance(gap.first, gap.last)
        self._push(_Hole(gap, self.clock(), self.appended_memory))
        self._holes += 1
        self.appended_memory += _HOLE_BYTES
        self.unbroken_after = gap.last

    def start_after(self, sequence: int) -> None:
        """Begin the log behind `sequence`, because an adopted worker only has later events.

        Raises:
            OutOfOrder: something was appended already, or the head is already beyond `sequence`.
        """
        if self.has_begun or sequence < self.head:
            raise OutOfOrder("the log has begun already")
        self.head = self.begun_after = sequence

    def release(self) -> None:
        """Forget every event and gap. The head, and the counts of everything ever appended, do not change."""
        self._entries.clear()
        self._firsts.clear()
        self.drop_shared()
        self.events = self.bytes = self._holes = 0

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
        """Forget the kept joined messages, and return whether there were any. Readers can still get the same events."""
        had_some = bool(self._shared or self._newest)
        self._shared.clear()
        self._shared_bytes = 0
        self._newest, self._before_newest = b"", -1
        return had_some

    def _share_only(self, kept: Iterable[tuple[tuple[int, int], Chunk]]) -> None:
        self._shared = dict(kept)
        self._shared_bytes = sum(len(chunk.frame) for chunk in self._shared.values())

    def _share(self, key: tuple[int, int], chunk: Chunk) -> Chunk:
        """Keep a joined message, and forget the oldest kept messages if there are too many. Return the message."""
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

        The segments are divided into groups of about `limit_bytes`, and no chunk reaches beyond the end of a group. So
        readers that are behind at different places all read from the beginning of a group at some time, and from there
        on they share joined messages. At least one block of the worker is returned, even if it is larger than
        `limit_bytes`. `after` must be at least `oldest - 1`.

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
            part.release()  # the bytearray of a segment cannot grow while a memoryview of it exists
        if self.is_shared:
            self._share(key, chunk)
            self._shares_large = self._shares_large or taken >= _WORTH_KEEPING_BYTES
        return chunk

    def after(self, after: int) -> tuple[int, int]:
        """Return how many events follow `after`, and how many bytes these events have."""
        if after >= self.head:
            return 0, 0
        index = self._index_of(after + 1)
        entry = self._entries[index]
        events, size = entry.events_after(after), entry.bytes_after(after)
        for entry in self._entries[index + 1 :]:
            events += entry.events
            size += entry.size
        return events, size

    def memory_after(self, after: int) -> int:
        """Return about how many bytes of memory the entries use that have events or gaps behind `after`."""
        if after >= self.head or not self._entries:
            return 0
        return self.appended_memory - self._entries[max(0, bisect_right(self._firsts, after + 1) - 1)].memory_before

    def after_memory(self, limit_bytes: int) -> int:
        """Return the sequence behind which the log uses about `limit_bytes` of memory at most.

        It lies between two entries. The newest entry always lies behind it, even if it is larger than the limit.
        """
        if not self._entries:
            return self.head
        begin = self.appended_memory - limit_bytes
        index = bisect_left(self._entries, begin, key=lambda entry: entry.memory_before)
        return self._entries[min(index, len(self._entries) - 1)].first - 1

    def skip(self, after: int, events: int) -> int:
        """Return the sequence that lies `events` events behind `after`; the head when fewer events follow."""
        if events <= 0 or after >= self.head:
            return after
        for entry in self._entries[self._index_of(after + 1) :]:
            here = entry.events_after(after)
            if events <= here:
                return entry.last - here + events
            events -= here
        return self.head

    def appended_at(self, sequence: int) -> float:
        """Return the time at which event `sequence` was appended; the present time if the event is not in the log."""
        if not self.oldest <= sequence <= self.head:
            return self.clock()
        return self._entries[self._index_of(sequence)].appended_at(sequence)

    def _index_of(self, sequence: int) -> int:
        index = bisect_right(self._firsts, sequence) - 1
        if index < 0:
            raise LookupError(f"event {sequence} is older than the log ({self.oldest})")
        return index

    def trim(self, floor: int, events: int, limit_bytes: int, seconds: float) -> Gap | None:
        """Forget entries up to `floor` that exceed the retention; return the range that was forgotten, or None.

        The oldest entry is forgotten when the rest of the log still has `events` events or `limit_bytes` bytes, or when
        the entry is older than `seconds` (0 is no limit on the age). A gap counts as one event.
        """
        drop = 0
        for entry in self._entries:
            if entry.last > floor or not self._is_expendable(entry, events, limit_bytes, seconds):
                break
            self._holes -= isinstance(entry, _Hole)
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
        """Forget the oldest entry, even if it is retained, and return its range.

        Return None if there is no entry, or if the oldest entry ends behind `floor`.
        """
        return self.trim(min(floor, self._entries[0].last), 0, 0, 0.0) if self._entries else None

    def exceeds(self, events: int, limit_bytes: int, seconds: float) -> bool:
        """Whether `trim` would forget something if every reader had read everything."""
        return bool(self._entries) and self._is_expendable(self._entries[0], events, limit_bytes, seconds)

    def _is_expendable(self, entry: _Entry, events: int, limit_bytes: int, seconds: float) -> bool:
        return (
            self.events + self._holes - (entry.events or 1) >= events
            or self.bytes - entry.size >= limit_bytes
            or (seconds > 0 and entry.appended_at(entry.last) < self.clock() - seconds)
        )
