"""Pieces of a stream: a `Chunk` of consecutive encoded events, or a `Gap` where events are missing.

When only some events of a long range are kept, `packed` makes pairs of pieces: one gap that names many lost runs, and
one chunk with the kept events between these runs. Otherwise each lost run and each kept event would need its own frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.events.encoding import event_head, events_prefix, offset_after, record_bounds

# Events that are set aside are packed into pieces of about this size, which is far below any limit on messages.
PIECE_BYTES = 64 * 1024
_PIECE_RUNS = 4000


@dataclass(frozen=True, slots=True)
class Gap:
    """A range that no event will fill. `count` is the number of lost events; 0 where it was not counted.

    With `runs`, only a part of the range is lost, and the next chunk has the rest. `runs` are the lengths of
    alternating runs from `first` on: lost, kept, lost and so on. The last run is a lost one.
    """

    first: int
    last: int
    reason: GapReason.ValueType
    detail: str = ""
    count: int = 0
    runs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded events of a range. `frame` is a whole encoded StreamEventsResponse, whose batch begins at offset `start`.

    `kept` is 0 when the chunk has every event of the range; otherwise it is the number of events that the chunk has.
    """

    first: int
    last: int
    frame: bytes
    start: int
    kept: int = 0
    # What filters let pass of this chunk. Key: a weak reference to the `ItemFilters`, which subscribers with equal
    # filters share. Value: the revisions of the filters, how many events pass, and the chunk of the passing events
    # (None when all or none pass).
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
        """Return a chunk of the events up to `after`, and a chunk of the events behind it. Both must have events."""
        events = after - self.first + 1
        if self.kept:
            bounds = record_bounds(self.frame, self.start)
            events = sum(event_head(self.frame, body)[0] <= after for _, body, _ in bounds)
        offset = offset_after(self.frame, events, self.start)
        head, tail = self.frame[self.start : offset], self.frame[offset:]
        return chunk_of(self.first, after, head, events), chunk_of(after + 1, self.last, tail, self.events - events)


def chunk_of(first: int, last: int, batch: bytes, events: int = 0) -> Chunk:
    """Return the chunk of an encoded EventBatch. `events` is its number of events; 0 means every event of the range."""
    prefix = events_prefix(len(batch))
    return Chunk(first, last, prefix + batch, len(prefix), 0 if events == last - first + 1 else events)


Piece: TypeAlias = Chunk | Gap
# An entry for `packed`: a kept event (its sequence and its encoded record), or a gap that is yielded unchanged.
Kept: TypeAlias = tuple[int, bytes] | Gap


def packed(after: int, kept: Iterable[Kept], until: int, reason: GapReason.ValueType, detail: str) -> Iterator[Piece]:
    """Yield pieces for the range behind `after` up to `until`: the entries in `kept`, and gaps for the rest.

    The gaps have `reason` and `detail`.
    """
    piece = _Packing(reason, detail)
    at = after
    for entry in kept:
        is_gap = isinstance(entry, Gap)
        first = entry.first if isinstance(entry, Gap) else entry[0]
        if first > at + 1:
            # Kept events that come before the first lost run become a piece of their own. A lost run right before a gap
            # becomes a piece of its own too.
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
    """Collects the lost runs and kept events that become one gap and one chunk."""

    def __init__(self, reason: GapReason.ValueType, detail: str) -> None:
        self._reason = reason
        self._detail = detail
        self._begin()

    def _begin(self) -> None:
        self.records: list[bytes] = []
        # Lengths of alternating runs from the first lost sequence on: lost, kept, lost and so on.
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
        """Yield the gap and the chunk that were collected, and begin to collect the next ones."""
        runs = self.runs if len(self.runs) % 2 else self.runs[:-1]
        if runs:
            last = self._first_lost + sum(runs) - 1
            gap = Gap(self._first_lost, last, self._reason, self._detail, count=sum(runs[::2]))
            yield replace(gap, runs=tuple(runs)) if len(runs) > 1 else gap
        if self.records:
            yield chunk_of(self._first, self._last, b"".join(self.records), len(self.records))
        self._begin()


def unpacked(entries: Iterable[Piece]) -> Iterator[Piece]:
    """Split the given pieces: yield every lost run, and every run of consecutive events, as a piece of its own."""
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
    """Yield every run of consecutive events in a chunk, as a chunk of its own."""
    frame, begin, first, last = chunk.frame, chunk.start, 0, 0
    for start, body, _ in record_bounds(frame, chunk.start):
        sequence = event_head(frame, body)[0]
        if first and sequence != last + 1:
            yield chunk_of(first, last, frame[begin:start])
            first, begin = 0, start
        first, last = first or sequence, sequence
    yield chunk_of(first, last, frame[begin:])
