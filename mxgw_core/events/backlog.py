"""Events set aside for one subscriber after its overflow policy acted: a queue that only this subscriber reads.

Entries are runs of events, and gaps, oldest first. An operation that drops events puts exact gaps in their place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import compress, islice

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.events.encoding import record_of
from mxgw_core.events.filters import Opened, opened
from mxgw_core.events.pieces import Chunk, Gap, Kept, Piece, packed, unpacked

_DROPPED = GapReason.GAP_REASON_QUEUE_DROPPED
# Reasons of gaps for events that were in the log. The counts of such gaps are exact, so two counts can be added.
_COUNTED = frozenset({_DROPPED, GapReason.GAP_REASON_CONFLATED})

# How many bytes of memory an entry uses, not counting its events.
_ENTRY_BYTES = 400


class Backlog:
    """Unread runs of events, and gaps, each with the time at which its oldest event came."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Piece, float]] = deque()
        # The chunk that belongs to a gap with `runs`, after the gap was taken. This chunk is taken next, even when
        # events are dropped meanwhile, and it does not count as unread any more.
        self._promised: Chunk | None = None
        self.events = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries) or self._promised is not None

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the entries use."""
        promised = self._promised.batch_bytes if self._promised is not None else 0
        return self.bytes + promised + len(self._entries) * _ENTRY_BYTES

    @property
    def since(self) -> float | None:
        """The time at which the events of the oldest entry came; None when there is no entry."""
        return self._entries[0][1] if self._entries else None

    @property
    def begins_without_range(self) -> bool:
        """Whether the oldest entry is a gap that names no range."""
        return bool(self._entries) and not self._entries[0][0].last

    def until(self, sequence: int) -> tuple[int, int]:
        """Return how many events up to `sequence` the backlog has, and about how many bytes these events have."""
        events = size = 0
        for entry, _ in self._entries:
            if entry.first > sequence:
                break
            if isinstance(entry, Chunk):
                here = entry.events if entry.last <= sequence else min(entry.events, sequence - entry.first + 1)
                events += here
                size += entry.batch_bytes * here // entry.events
        return events, size

    def append(self, entry: Piece, now: float) -> None:
        """Add an entry behind all others.

        Two neighbouring gaps become one, if their reason is the same and in `_COUNTED`.
        """
        last = self._entries[-1][0] if self._entries else None
        if isinstance(entry, Gap) and isinstance(last, Gap) and (joined := _joined(last, entry)):
            self._entries[-1] = joined, self._entries[-1][1]
        else:
            self._entries.append((entry, now))
            self._count(entry, 1)

    def put_first(self, entry: Piece, now: float) -> None:
        """Put `entry` in front of all others."""
        self._entries.appendleft((entry, now))
        self._count(entry, 1)

    def pop(self) -> Piece:
        """Take the oldest entry. After a gap with `runs`, the next call takes the chunk that belongs to this gap."""
        if self._promised is not None:
            promised, self._promised = self._promised, None
            return promised
        entry = self._pop()[0]
        if isinstance(entry, Gap) and entry.runs:
            following = self._pop()[0]
            assert isinstance(following, Chunk)
            self._promised = following
        return entry

    def drain(self) -> list[tuple[Piece, float]]:
        """Remove and return all entries with their times.

        A gap with `runs` and its chunk are split: each run becomes an entry of its own.

        A gap without a range stays in the backlog: only the first gap of a stream can have no range.
        """
        self._unpack()
        front = [entry for entry in self._entries if not entry[0].last]
        rest = [entry for entry in self._entries if entry[0].last]
        self._entries = deque(front)
        self.events = self.bytes = 0
        return rest

    def drop_oldest(self, excess_events: int, detail: str) -> int:
        """Drop the `excess_events` oldest events, or as many as there are; return how many were dropped.

        A gap between two dropped events becomes part of the gap that reports the dropped events.
        """
        self._unpack()
        dropped = 0
        gaps: list[tuple[Gap, float]] = []
        while self._entries and dropped < excess_events:
            entry, since = self._pop()
            if isinstance(entry, Gap):
                gaps.append((entry, since))
                continue
            take = min(entry.events, excess_events - dropped)
            last = entry.first + take - 1
            _add_dropped(gaps, Gap(entry.first, last, _DROPPED, detail, count=take), since)
            dropped += take
            if take < entry.events:
                self.put_first(entry.split(last)[1], since)
        for gap, since in reversed(gaps):
            self.put_first(gap, since)
        return dropped

    def select(self, choose: Callable[[Sequence[int], Sequence[int]], Sequence[bool]], detail: str) -> int:
        """Keep only the events that `choose` keeps; return how many events were dropped.

        `choose` gets the sequences and the keys (see `Opened`) of all events here, oldest first. It returns for each
        event whether the event is kept. If it raises, no event is dropped.
        """
        entries = self.drain()
        if not entries:
            return 0
        before = sum(entry.events for entry, _ in entries if isinstance(entry, Chunk))
        kept = entries
        try:
            parts = [entry if isinstance(entry, Gap) else opened(entry) for entry, _ in entries]
            events = [part for part in parts if isinstance(part, Opened)]
            sequences = [sequence for part in events for sequence in part.sequences]
            answers = choose(sequences, [key for part in events for key in part.keys])
            after, until = entries[0][0].first - 1, entries[-1][0].last
            chosen = packed(after, _chosen(parts, answers), until, _DROPPED, detail)
            kept = [(entry, entries[0][1]) for entry in chosen]
        finally:
            for entry, since in kept:
                self.append(entry, since)
        return before - sum(entry.events for entry, _ in kept if isinstance(entry, Chunk))

    def _unpack(self) -> None:
        if any(entry.kept if isinstance(entry, Chunk) else entry.runs for entry, _ in self._entries):
            since = self._entries[0][1]
            self._entries = deque((entry, since) for entry in unpacked([entry for entry, _ in self._entries]))

    def _pop(self) -> tuple[Piece, float]:
        entry, since = self._entries.popleft()
        self._count(entry, -1)
        return entry, since

    def _count(self, entry: Piece, sign: int) -> None:
        if isinstance(entry, Chunk):
            self.events += sign * entry.events
            self.bytes += sign * entry.batch_bytes


def _joined(left: Gap, right: Gap) -> Gap | None:
    """Return two neighbouring gaps as one gap, if their reason is the same and in `_COUNTED`; else None."""
    if left.reason != right.reason or left.reason not in _COUNTED or left.last + 1 != right.first:
        return None
    return None if left.runs or right.runs else replace(left, last=right.last, count=left.count + right.count)


def _add_dropped(gaps: list[tuple[Gap, float]], gap: Gap, since: float) -> None:
    """Add a gap for dropped events. It absorbs the previous gap for dropped events, and the gaps between the two."""
    count, first = gap.count, gap.first
    for index in range(len(gaps) - 1, -1, -1):
        before, _ = gaps[index]
        if not before.last or before.last + 1 != first:
            break
        first = before.first
        count += before.count if before.reason in _COUNTED else 0
        if before.reason == _DROPPED:
            gap, since = replace(gap, first=first, count=count), gaps[index][1]
            del gaps[index:]
            break
    gaps.append((gap, since))


def _chosen(parts: Iterable[Gap | Opened], answers: Iterable[bool]) -> Iterator[Kept]:
    """Yield the gaps among `parts`, and the events whose answer is true; there is one answer for each event."""
    rest = iter(answers)
    for part in parts:
        if isinstance(part, Gap):
            yield part
        else:
            events = zip(part.sequences, part.bodies, strict=True)
            kept = compress(events, islice(rest, len(part.bodies)))
            yield from ((sequence, record_of(body)) for sequence, body in kept)
