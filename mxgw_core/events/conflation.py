"""Gathers the newest value of every item, for a reader that does not read every event.

Each event is gathered when it comes, at the same small cost. To go through the whole backlog of a stalled reader at
once would delay all other readers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeAlias

from mxgw.v1.events_pb2 import EventKind, GapReason
from mxgw_core.events.encoding import MalformedBatch, event_head, record_bounds
from mxgw_core.events.pieces import Chunk, Gap, Kept, Piece, packed

_DATA_CHANGE = int(EventKind.EVENT_KIND_DATA_CHANGE)
# How many bytes of memory an event uses beside its encoded form, for its dictionary entry and objects: 135 bytes were
# measured on CPython 3.11.
_OVERHEAD_BYTES = 150

# The key of a data change is the serial of its item, so that a newer data change of the item replaces it. The key of
# another event, or of a gap, has its own sequences, so that nothing replaces it.
_Key: TypeAlias = int | tuple[int, ...]


class Conflation:
    """Gathers events and gaps in order, and returns them in order.

    A data change that a newer one of the same item has replaced is not returned: a gap reports it.

    `release` makes everything gathered so far readable together. Without this step, an item that changes faster than it
    is read would move to the end of the queue again and again, and would never be read.
    """

    def __init__(self, detail: str) -> None:
        self._detail = detail
        # What was gathered, ordered by sequence: an older data change of an item is removed, and the newer one is added
        # at the end.
        self._slots: dict[_Key, bytes | Gap] = {}
        self._after = self._until = 0
        self._others = 0
        self._since = 0.0
        self._released: Iterator[Piece] | None = None
        self._released_others = 0
        self._released_since = 0.0
        self.events = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._slots) or self._released is not None

    @property
    def others(self) -> int:
        """How many gaps, and events other than data changes, are held.

        They need a limit, because they are never replaced.
        """
        return self._others + self._released_others

    @property
    def since(self) -> float:
        """The time at which the oldest events and gaps held here came, on the caller's clock."""
        return self._since if self._released is None else self._released_since

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the gathered events use."""
        return self.bytes + self.events * _OVERHEAD_BYTES

    def absorb(self, item: Piece, now: float) -> None:
        """Add the piece that follows all pieces added so far.

        Raises:
            MalformedBatch: the events are not encoded, or not numbered, as the contract says.
        """
        if not self._slots:
            self._after, self._since = item.first - 1, now
        self._until = item.last
        if isinstance(item, Gap):
            self._slots[item.first, item.last] = item
            self._others += 1
        else:
            self._absorb_events(item)

    def _absorb_events(self, chunk: Chunk) -> None:
        frame, slots = chunk.frame, self._slots
        expected, is_consecutive = chunk.first, not chunk.kept
        for start, body, end in record_bounds(frame, chunk.start):
            sequence, serial, kind = event_head(frame, body)
            if sequence != expected and (is_consecutive or sequence < expected):
                raise MalformedBatch(f"event {sequence} came in the place of {expected}")
            expected = sequence + 1
            key: _Key
            if kind == _DATA_CHANGE:
                key = serial  # a serial, because a handle can belong to another item later
            else:
                key = (sequence,)
                self._others += 1
            if isinstance(replaced := slots.pop(key, None), bytes):
                self.bytes -= len(replaced)
            else:
                self.events += 1
            slots[key] = frame[start:end]
            self.bytes += end - start

    def release(self) -> None:
        """Make everything gathered readable. The caller must have taken all pieces that were readable before."""
        if self._slots:
            kept = map(_as_kept, self._slots.values())
            reason = GapReason.GAP_REASON_CONFLATED
            self._released = packed(self._after, kept, self._until, reason, self._detail)
            self._released_others, self._released_since = self._others, self._since
            self._slots, self._others = {}, 0

    def take(self) -> list[Piece]:
        """Remove and return the next readable piece; an empty list if there is none.

        The chunk that belongs to a gap with `runs` is returned together with the gap.
        """
        entries = list(itertools.islice(self._released, 1)) if self._released is not None else []
        if entries and isinstance(entries[0], Gap) and entries[0].runs and self._released is not None:
            entries += itertools.islice(self._released, 1)
        if not entries:
            self._released, self._released_others = None, 0
        for entry in entries:
            if isinstance(entry, Chunk):
                self.events -= entry.events
                self.bytes -= entry.batch_bytes
        return entries

    def drain(self) -> Iterator[Piece]:
        """Remove and yield all pieces: the readable ones, and then everything else that was gathered."""
        while entries := self.take():
            yield from entries
        self.release()
        while entries := self.take():
            yield from entries


def _as_kept(entry: bytes | Gap) -> Kept:
    if isinstance(entry, Gap):
        return entry
    _, body, _ = next(record_bounds(entry))
    return event_head(entry, body)[0], entry
