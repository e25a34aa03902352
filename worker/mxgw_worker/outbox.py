"""Numbers events, and keeps them until the gateway has them. While there is room, they are kept longer. This module
does no I/O.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import cast

from mxgw.v1.events_pb2 import (
    GAP_REASON_EVENT_TOO_LARGE,
    GAP_REASON_WORKER_OUTBOX_OVERRUN,
    GapReason,
)
from mxgw.worker.v1.worker_pb2 import WorkerGap
from mxgw_worker.ipc.handshake import EPOCH_BYTES

# The largest number of bytes that an envelope and its EventBlock add to the records in a frame.
BLOCK_OVERHEAD_BYTES = 64
# The number of bytes that a kept gap adds to the size of the outbox.
_GAP_BYTES = 128


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive events, each as a record (encoded_events.py). The records joined are an encoded EventBatch."""

    first_sequence: int
    last_sequence: int
    records: list[bytes]


class Outbox:
    """The numbered events of a worker, limited in number and bytes. The outbox never blocks, and every loss becomes a
    gap.

    Every event and every gap of the source gets the next sequence, from 1 within the epoch. `take` returns events and
    gaps in this order. When the outbox is full, its oldest event or gap is dropped. If the dropped one had not been
    taken, `take` later returns a gap that names its sequence. Events that the gateway has acknowledged are kept while
    there is room, so that a restarted gateway can get them again (`resume`).
    """

    def __init__(self, *, limit_events: int, limit_bytes: int, maximum_frame_bytes: int) -> None:
        self.epoch = secrets.token_bytes(EPOCH_BYTES)
        self.head_sequence = 0
        self.acknowledged = 0
        # The number of events that the gateway cannot get from this outbox: they were dropped before the gateway had
        # them, or were too large for a frame.
        self.events_lost = 0
        self.size_bytes = 0
        self._limit_events = limit_events
        self._limit_bytes = limit_bytes
        self._maximum_record_bytes = maximum_frame_bytes - BLOCK_OVERHEAD_BYTES
        # Two queues, each oldest first: what was taken, and what waits to be taken. An entry is an event (bytes) or a
        # gap. Both queues together have every sequence from the oldest to the newest, without holes.
        self._taken: deque[bytes | WorkerGap] = deque()
        self._waiting: deque[bytes | WorkerGap] = deque()
        self._waiting_gaps = 0
        self._taken_sequence = 0
        # `_lost_through` is the highest sequence that is counted in `events_lost`. `_overwritten_gap` is the highest
        # sequence of a gap that was dropped.
        self._lost_through = 0
        self._overwritten_gap = 0

    @property
    def oldest_sequence(self) -> int:
        """The lowest sequence that is kept; when nothing is kept, the sequence of the next event."""
        return self.head_sequence - len(self._taken) - len(self._waiting) + 1

    @property
    def depth(self) -> int:
        """The number of events and gaps that are kept."""
        return len(self._taken) + len(self._waiting)

    def append(self, record: bytes) -> bool:
        """Keep the next event. `record` is the encoded event. The caller has encoded the sequence `head_sequence + 1`
        into the record.

        Return False when the record is larger than a frame. A gap is then kept instead of the event, with the event's
        sequence.
        """
        size = len(record)
        if size > self._maximum_record_bytes:
            detail = f"an event of {size} bytes does not fit a frame; raise workers.frame_bytes"
            self._append_gap(GAP_REASON_EVENT_TOO_LARGE, detail, 1)
            self.events_lost += 1
            return False
        self.head_sequence += 1
        waiting = self._waiting
        waiting.append(record)
        self.size_bytes = size = self.size_bytes + size
        taken = self._taken
        if size > self._limit_bytes or len(taken) + len(waiting) > self._limit_events:
            # The usual case, handled here without a call: the outbox is full, and its oldest entry is an event that was
            # taken. This event is dropped.
            oldest = taken[0] if taken else None
            if type(oldest) is bytes:
                taken.popleft()
                self.size_bytes = size = size - len(oldest)
                if size <= self._limit_bytes:
                    return True
            self._overwrite()
        return True

    def append_gap(self, reason: GapReason.ValueType, detail: str, count: int) -> None:
        """Keep a gap for events that were lost before they were numbered. The gap gets the next sequence."""
        self._append_gap(reason, detail, count)

    def acknowledge(self, sequence: int) -> None:
        """Remember that the gateway has everything up to `sequence` in its log."""
        self.acknowledged = max(self.acknowledged, min(sequence, self.head_sequence))

    def resume(self, after: int) -> None:
        """Let `take` start again after the sequence `after`, for a new connection. When `after` is higher than the
        newest sequence, `take` returns only events that come later.
        """
        after = min(after, self.head_sequence)
        first_lost = max(after, self.acknowledged, self._lost_through) + 1
        self._count_lost(first_lost, self.oldest_sequence - 1)
        while self._taken and self.head_sequence - len(self._waiting) > after:
            self._put_back(self._taken.pop())
        while self._waiting and self.head_sequence - len(self._waiting) < after:
            self._take_one()
        self._taken_sequence = after

    def take(self, maximum_bytes: int) -> Block | WorkerGap | None:
        """Return the next gap, or a block of the next events; None when everything was taken. A block has at least one
        event, and no more than `maximum_bytes` if it has several.
        """
        first = self.head_sequence - len(self._waiting) + 1
        if first > self._taken_sequence + 1:
            return self._take_overrun(first)
        if not self._waiting:
            return None
        records: list[bytes]
        if not self._waiting_gaps and sum(map(len, cast("deque[bytes]", self._waiting))) <= maximum_bytes:
            records = list(cast("deque[bytes]", self._waiting))
            self._taken.extend(records)
            self._waiting.clear()
        else:
            head = self._waiting[0]
            if isinstance(head, WorkerGap):
                self._take_one()
                self._taken_sequence = first
                return head
            records = []
            total = 0
            while self._waiting:
                record = self._waiting[0]
                if isinstance(record, WorkerGap) or (records and total + len(record) > maximum_bytes):
                    break
                total += len(record)
                records.append(record)
                self._take_one()
        self._taken_sequence = first + len(records) - 1
        return Block(first, self._taken_sequence, records)

    def statistics(self) -> dict[str, int]:
        """Return counts and limits of the outbox."""
        return {
            "head_sequence": self.head_sequence,
            "oldest_sequence": self.oldest_sequence,
            "acknowledged": self.acknowledged,
            "depth": self.depth,
            "waiting": len(self._waiting),
            "size_bytes": self.size_bytes,
            "limit_events": self._limit_events,
            "limit_bytes": self._limit_bytes,
            "events_lost": self.events_lost,
        }

    def _append_gap(self, reason: GapReason.ValueType, detail: str, count: int) -> None:
        self.head_sequence += 1
        self._waiting.append(
            WorkerGap(
                first_lost=self.head_sequence,
                last_lost=self.head_sequence,
                reason=reason,
                detail=detail,
                count=count,
            )
        )
        self._waiting_gaps += 1
        self.size_bytes += _GAP_BYTES
        self._overwrite()

    def _overwrite(self) -> None:
        """Drop the oldest events and gaps until the outbox is within its limits. The newest one is always kept."""
        while self.depth > 1 and (self.depth > self._limit_events or self.size_bytes > self._limit_bytes):
            sequence = self.oldest_sequence
            if self._taken:
                entry = self._taken.popleft()
            else:
                entry = self._waiting.popleft()
                self._waiting_gaps -= isinstance(entry, WorkerGap)
                self._count_lost(sequence, sequence)
            self.size_bytes -= _size(entry)
            if isinstance(entry, WorkerGap):
                self._overwritten_gap = sequence

    def _take_overrun(self, first_held: int) -> WorkerGap:
        first_lost, last_lost = self._taken_sequence + 1, first_held - 1
        self._taken_sequence = last_lost
        # A gap that was dropped can itself stand for any number of events. When a gap was dropped here, the number of
        # lost events is therefore not known.
        count = 0 if self._overwritten_gap >= first_lost else last_lost - first_lost + 1
        return WorkerGap(
            first_lost=first_lost,
            last_lost=last_lost,
            reason=GAP_REASON_WORKER_OUTBOX_OVERRUN,
            detail="the worker's outbox was full before the gateway took these; raise workers.outbox_events or "
            "workers.outbox_bytes",
            count=count,
        )

    def _count_lost(self, first: int, last: int) -> None:
        if last >= first:
            self.events_lost += last - first + 1
            self._lost_through = last

    def _take_one(self) -> None:
        entry = self._waiting.popleft()
        self._waiting_gaps -= isinstance(entry, WorkerGap)
        self._taken.append(entry)

    def _put_back(self, entry: bytes | WorkerGap) -> None:
        self._waiting.appendleft(entry)
        self._waiting_gaps += isinstance(entry, WorkerGap)


def _size(entry: bytes | WorkerGap) -> int:
    return _GAP_BYTES if isinstance(entry, WorkerGap) else len(entry)
