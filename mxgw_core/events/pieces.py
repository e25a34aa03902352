"""Pieces of a stream: a `Chunk` of consecutive encoded events, or a `Gap` where events are missing.

Where single events of a long run are kept, `packed` makes two pieces of the whole run: one gap that names every lost
range, and one chunk with the kept events. Otherwise each kept event and each range between would need a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.events.encoding import event_head, events_prefix, offset_after, record_bounds

# Events that are set aside come in pieces of about this size, far below any message limit.
PIECE_BYTES = 64 * 1024
_PIECE_RUNS = 4000


@dataclass(frozen=True, slots=True)
class Gap:
    """A range that no event will fill. `count` is 0 when the number of lost events cannot be known.

    With `runs`, only a part of the range is lost, and the rest follows in the next chunk: lengths of alternating runs
    from `first` on, lost ones first, lost ones last.
    """

    first: int
    last: int
    reason: GapReason.ValueType
    detail: str = ""
    count: int = 0
    runs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive events as read: `frame` is a whole encoded StreamEventsResponse, its batch begins at `start`.

    `kept` is the number of events when some of the range are not among them; 0 when all are.
    """

    first: int
    last: int
    frame: bytes
    start: int
    kept: int = 0
    # What subscribers with equal filters may see of this chunk, by a reference to their `ItemFilters`: the revisions of
    # the filters, how many events pass, and the chunk of those events unless it is the whole.
    cuts: dict[object, tuple[tuple[int, ...], int, Chunk | None]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def events(self) -> int:
        return self.kept or self.last - self.first + 1

    @property
    def batch_bytes(self) -> int:
        return len(self.frame) - self.start

    @property
    def batch(self) -> bytes:
        """The encoded EventBatch."""
        return self.frame[self.start :]

    def split(self, after: int) -> tuple[Chunk, Chunk]:
        """Return the events up to `after`, and those behind it; both must have some."""
        events = after - self.first + 1
        if self.kept:
            bounds = record_bounds(self.frame, self.start)
            events = sum(event_head(self.frame, body)[0] <= after for _, body, _ in bounds)
        offset = offset_after(self.frame, events, self.start)
        head, tail = self.frame[self.start : offset], self.frame[offset:]
        return chunk_of(self.first, after, head, events), chunk_of(after + 1, self.last, tail, self.events - events)


def chunk_of(first: int, last: int, batch: bytes, events: int = 0) -> Chunk:
    """Return the chunk of an encoded EventBatch; `events` says how many it has when they may not be consecutive."""
    prefix = events_prefix(len(batch))
    return Chunk(first, last, prefix + batch, len(prefix), 0 if events == last - first + 1 else events)


Piece: TypeAlias = Chunk | Gap
# A kept event (sequence, encoded record), or a gap passed on unchanged.
Kept: TypeAlias = tuple[int, bytes] | Gap


def packed(after: int, kept: Iterable[Kept], until: int, reason: GapReason.ValueType, detail: str) -> Iterator[Piece]:
    """Yield what is `kept` of everything behind `after` and up to `until`; gaps of `reason` stand for the rest."""
    piece = _Packing(reason, detail)
    at = after
    for entry in kept:
        is_gap = isinstance(entry, Gap)
        first = entry.first if isinstance(entry, Gap) else entry[0]
        if first > at + 1:
            # What comes before the first hole is no part of its gap, and a hole behind the last event is its own.
            if is_gap or (piece.records and not piece.runs):
                yield from piece.close()
            piece.lose(at + 1, first - 1)
        if isinstance(entry, Gap):
            yield from piece.close()
            yield entry
            at = entry.last
            continue
        at = first
        piece.keep(*entry)
        if piece.size >= PIECE_BYTES or len(piece.runs) >= _PIECE_RUNS:
            yield from piece.close()
    if until > at:
        yield from piece.close()
        piece.lose(at + 1, until)
    yield from piece.close()


class _Packing:
    """One gap and one batch in the making."""

    def __init__(self, reason: GapReason.ValueType, detail: str) -> None:
        self._reason = reason
        self._detail = detail
        self._begin()

    def _begin(self) -> None:
        self.records: list[bytes] = []
        # Alternating: lost, kept, lost, ... from the first lost sequence on.
        self.runs: list[int] = []
        self.size = 0
        self._first_lost = self._first = self._last = 0

    def lose(self, first: int, last: int) -> None:
        if not self.runs:
            self._first_lost = first
        self.runs.append(last - first + 1)

    def keep(self, sequence: int, record: bytes) -> None:
        if not self.records:
            self._first = sequence
        self._last = sequence
        self.records.append(record)
        self.size += len(record)
        if self.runs:
            if len(self.runs) % 2:
                self.runs.append(0)
            self.runs[-1] += 1

    def close(self) -> Iterator[Piece]:
        """Yield what there is, and begin anew."""
        runs = self.runs if len(self.runs) % 2 else self.runs[:-1]
        if runs:
            last = self._first_lost + sum(runs) - 1
            gap = Gap(self._first_lost, last, self._reason, self._detail, count=sum(runs[::2]))
            yield replace(gap, runs=tuple(runs)) if len(runs) > 1 else gap
        if self.records:
            yield chunk_of(self._first, self._last, b"".join(self.records), len(self.records))
        self._begin()


def unpacked(entries: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the same with every lost run, and every run of consecutive events, as an entry of its own."""
    gap: Gap | None = None
    for entry in entries:
        if isinstance(entry, Gap) and entry.runs:
            gap = entry
        elif isinstance(entry, Chunk) and gap is not None:
            runs: list[Piece] = [*_lost_runs(gap), *_runs_of(entry)]
            yield from sorted(runs, key=lambda run: run.first)
            gap = None
        else:
            yield entry


def _lost_runs(gap: Gap) -> Iterator[Gap]:
    first = gap.first
    for index, length in enumerate(gap.runs):
        if index % 2 == 0:
            yield Gap(first, first + length - 1, gap.reason, gap.detail, count=length)
        first += length


def _runs_of(chunk: Chunk) -> Iterator[Chunk]:
    """Yield the runs of consecutive events of a chunk."""
    frame, begin, first, last = chunk.frame, chunk.start, 0, 0
    for start, body, _ in record_bounds(frame, chunk.start):
        sequence = event_head(frame, body)[0]
        if first and sequence != last + 1:
            yield chunk_of(first, last, frame[begin:start])
            first, begin = 0, start
        first, last = first or sequence, sequence
    yield chunk_of(first, last, frame[begin:])
