"""What is left of a run of events, in few frames: one gap that names every lost run, and one batch behind it.

Events that are kept here and there would otherwise need a frame for each of them and one for each hole between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.events import EventFilter
from mxgw_core.events.log import Chunk, LogGap, chunk_of
from mxgw_core.events.records import event_head, event_item, record_bounds

# What is set aside comes in pieces of about this size, far below any message limit.
PIECE_BYTES = 64 * 1024
_PIECE_RUNS = 4000

Entry: TypeAlias = Chunk | LogGap
# An event that is kept, as its encoded record; or a gap that stays what it is.
Kept: TypeAlias = tuple[int, bytes] | LogGap


def packed(
    after: int, kept: Iterable[Kept], until: int, reason: GapReason.ValueType, detail: str
) -> Iterator[Chunk | LogGap]:
    """Yield what is `kept` of everything behind `after` and up to `until`; gaps of `reason` stand for the rest."""
    piece = _Piece(reason, detail)
    at = after
    for entry in kept:
        is_gap = isinstance(entry, LogGap)
        first = entry.first if isinstance(entry, LogGap) else entry[0]
        if first > at + 1:
            # What comes before the first hole is no part of its gap, and a hole behind the last event is its own.
            if is_gap or (piece.records and not piece.runs):
                yield from piece.close()
            piece.lose(at + 1, first - 1)
        if isinstance(entry, LogGap):
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


class _Piece:
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

    def close(self) -> Iterator[Entry]:
        """Yield what there is, and begin anew."""
        runs = self.runs if len(self.runs) % 2 else self.runs[:-1]
        if runs:
            last = self._first_lost + sum(runs) - 1
            gap = LogGap(self._first_lost, last, self._reason, self._detail, count=sum(runs[::2]))
            yield replace(gap, runs=tuple(runs)) if len(runs) > 1 else gap
        if self.records:
            yield chunk_of(self._first, self._last, b"".join(self.records), len(self.records))
        self._begin()


def unpacked(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the same with every lost run, and every run of consecutive events, as an entry of its own."""
    gap: LogGap | None = None
    for entry in entries:
        if isinstance(entry, LogGap) and entry.runs:
            gap = entry
        elif isinstance(entry, Chunk) and gap is not None:
            runs: list[Entry] = [*_lost_runs(gap), *_runs_of(entry)]
            yield from sorted(runs, key=lambda run: run.first)
            gap = None
        else:
            yield entry


def _lost_runs(gap: LogGap) -> Iterator[LogGap]:
    first = gap.first
    for index, length in enumerate(gap.runs):
        if index % 2 == 0:
            yield LogGap(first, first + length - 1, gap.reason, gap.detail, count=length)
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


def filtered(chunk: Chunk, filters: Sequence[EventFilter]) -> Chunk | None:
    """Return the events of a chunk that every filter lets pass, with the range of all; None when there are none."""
    parts: list[bytes] = []
    for start, body, end in record_bounds(chunk.frame, chunk.start):
        item = event_item(chunk.frame, body, end)
        if all(f.keep(*item) for f in filters):
            parts.append(chunk.frame[start:end])
    return chunk_of(chunk.first, chunk.last, b"".join(parts), len(parts)) if parts else None
