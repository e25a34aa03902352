"""What was set aside for one subscriber once its policy had to act: bounded, its own, and exact about what it lost.

Entries are runs of events and gaps, oldest first. Every operation that drops events puts a gap exactly in their place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from mxgw.v1.events_pb2 import EventKind, GapReason
from mxgw_core.events.log import Chunk, LogGap, chunk_of
from mxgw_core.events.records import event_item, record_bounds

_DATA_CHANGE = int(EventKind.EVENT_KIND_DATA_CHANGE)

Entry: TypeAlias = Chunk | LogGap
ItemKey: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Record:
    sequence: int
    key: ItemKey
    kind: int
    start: int
    end: int


def _records(chunk: Chunk) -> Iterator[_Record]:
    for sequence, (start, body, end) in enumerate(record_bounds(chunk.frame, chunk.start), chunk.first):
        server_handle, item_handle, kind = event_item(chunk.frame, body, end)
        yield _Record(sequence, (server_handle, item_handle), kind, start, end)


class Backlog:
    """Runs of events and gaps that one subscriber has yet to read."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.events = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def append(self, entry: Entry) -> None:
        """Add the newest entry; a gap that goes on with the gap before it becomes one with it."""
        last = self._entries[-1] if self._entries else None
        if isinstance(entry, LogGap) and isinstance(last, LogGap) and (joined := _joined(last, entry)):
            self._entries[-1] = joined
        else:
            self._entries.append(entry)
            self._count(entry, 1)

    def put_first(self, entry: Entry) -> None:
        """Let reading begin with `entry`."""
        self._entries.appendleft(entry)
        self._count(entry, 1)

    def pop(self) -> Entry:
        """Take the oldest entry."""
        entry = self._entries.popleft()
        self._count(entry, -1)
        return entry

    def drop_oldest(self, excess_events: int, detail: str) -> int:
        """Drop `excess_events` events from the old end; return how many were there to drop."""
        dropped = 0
        gaps: list[LogGap] = []
        while self._entries and dropped < excess_events:
            entry = self.pop()
            if isinstance(entry, LogGap):
                gaps.append(entry)
                continue
            take = min(entry.events, excess_events - dropped)
            gaps.append(_gap(entry.first, entry.first + take - 1, GapReason.GAP_REASON_QUEUE_DROPPED, detail))
            dropped += take
            if take < entry.events:
                self.put_first(entry.split(entry.first + take - 1)[1])
        self._put_first_all(gaps)
        return dropped

    def conflate(self, detail: str) -> int:
        """Keep the newest data change of every item and every event of another kind; return how many of the latter."""
        newest: dict[ItemKey, int] = {}
        others = 0
        for entry in self._entries:
            if isinstance(entry, Chunk):
                for record in _records(entry):
                    if record.kind == _DATA_CHANGE:
                        newest[record.key] = record.sequence
                    else:
                        others += 1
        if len(newest) + others < self.events:
            self._rewrite(
                lambda record: record.kind != _DATA_CHANGE or newest[record.key] == record.sequence,
                GapReason.GAP_REASON_CONFLATED,
                detail,
            )
        return others

    def select(self, keep: Callable[[int, int, int], bool], detail: str) -> int:
        """Keep the events that `keep(server_handle, item_handle, kind)` wants; return how many were dropped."""
        return self._rewrite(lambda record: keep(*record.key, record.kind), GapReason.GAP_REASON_QUEUE_DROPPED, detail)

    def _rewrite(self, keep: Callable[[_Record], bool], reason: GapReason.ValueType, detail: str) -> int:
        before = self.events
        entries, self._entries = self._entries, deque()
        self.events = self.bytes = 0
        for entry in entries:
            if isinstance(entry, LogGap):
                self.append(entry)
            else:
                for piece in _pieces(entry, keep, reason, detail):
                    self.append(piece)
        return before - self.events

    def _put_first_all(self, gaps: Iterable[LogGap]) -> None:
        for gap in reversed(list(gaps)):
            if self._entries and isinstance(first := self._entries[0], LogGap) and (joined := _joined(gap, first)):
                self._entries[0] = joined
            else:
                self._entries.appendleft(gap)

    def _count(self, entry: Entry, sign: int) -> None:
        if isinstance(entry, Chunk):
            self.events += sign * entry.events
            self.bytes += sign * entry.batch_bytes


def _gap(first: int, last: int, reason: GapReason.ValueType, detail: str) -> LogGap:
    return LogGap(first, last, reason, detail, count=last - first + 1)


def _joined(left: LogGap, right: LogGap) -> LogGap | None:
    """Return both as one gap when they are neighbours of one reason and their count is that of their range."""
    if left.reason != right.reason or left.last + 1 != right.first or not left.last:
        return None
    if left.count != left.last - left.first + 1 or right.count != right.last - right.first + 1:
        return None
    return replace(left, last=right.last, count=left.count + right.count)


def _pieces(chunk: Chunk, keep: Callable[[_Record], bool], reason: GapReason.ValueType, detail: str) -> Iterator[Entry]:
    """Yield the runs of a chunk that are kept, and exact gaps for those that are not."""
    run: list[_Record] = []
    kept = True
    for record in _records(chunk):
        if run and keep(record) is not kept:
            yield _piece(chunk, run, kept, reason, detail)
            run = []
        if not run:
            kept = keep(record)
        run.append(record)
    if run:
        yield _piece(chunk, run, kept, reason, detail)


def _piece(chunk: Chunk, run: list[_Record], kept: bool, reason: GapReason.ValueType, detail: str) -> Entry:
    first, last = run[0], run[-1]
    if not kept:
        return _gap(first.sequence, last.sequence, reason, detail)
    return chunk_of(first.sequence, last.sequence, chunk.frame[first.start : last.end])
