"""Where a stream begins: a client asks for a `Start` or a position, and the gateway decides on a `StartPlace`.

Source: docs/reference/streams.md#start-and-resume.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.types import Position
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Gap


class Start(enum.Enum):
    """Where a stream begins if the client names no position."""

    NOW = "now"
    OLDEST_RETAINED = "oldest_retained"


@dataclass(frozen=True, slots=True)
class StartPlace:
    """Begin after `cursor`. If there is a `gap`, the gap or older events of a history store come first.

    `recovered` is true only when everything from the position to the head of the log follows. It is false when events
    are missing in front of the log and no store has them, and when the worker has reported a gap within the log.
    """

    cursor: int
    was_resuming: bool
    recovered: bool
    gap: Gap | None = None

    @property
    def delivered(self) -> int:
        """The sequence after which the stream begins.

        If there is a gap, it lies right behind this sequence, so that a client that resumes here gets the gap again.
        """
        return self.gap.first - 1 if self.gap is not None and self.gap.first else self.cursor


def decide(log: EventLog, epoch: bytes, start: Start | Position, older_until: int | None = None) -> StartPlace:
    """Return where a subscriber begins. All missing events are in a gap, and no gap covers an event that the log holds.

    With `older_until`, a history store has everything behind `start` up to this sequence.
    """
    if isinstance(start, Position):
        return _resume(log, epoch, start, older_until or 0)
    cursor = log.head if start is Start.NOW else log.oldest - 1
    return StartPlace(cursor, was_resuming=False, recovered=False)


def _resume(log: EventLog, epoch: bytes, after: Position, older_until: int) -> StartPlace:
    oldest, head = log.oldest, log.head
    if after.epoch != epoch:
        gap = Gap(
            0,
            0,
            GapReason.GAP_REASON_EPOCH_CHANGED,
            "the position belongs to another worker's counting: re-read the items you need",
        )
        return StartPlace(oldest - 1, was_resuming=True, recovered=False, gap=gap)
    if after.sequence > head:
        gap = Gap(
            0,
            0,
            GapReason.GAP_REASON_CURSOR_AHEAD,
            f"the position is ahead of the newest event ({head}): it was not handed out for this session",
        )
        return StartPlace(head, was_resuming=True, recovered=False, gap=gap)
    if after.sequence < oldest - 1:
        gap = Gap(
            after.sequence + 1,
            oldest - 1,
            GapReason.GAP_REASON_RING_EVICTED,
            _too_old(log, after.sequence),
        )
        recovered = older_until >= gap.last >= log.unbroken_after
        return StartPlace(oldest - 1, was_resuming=True, recovered=recovered, gap=gap)
    return StartPlace(after.sequence, was_resuming=True, recovered=after.sequence >= log.unbroken_after)


def _too_old(log: EventLog, after: int) -> str:
    """Return a text that says why the log begins later, and which settings would have kept the missing events."""
    taken_back = "they had left the worker's outbox when the gateway took the session back"
    outbox = "raise workers.outbox_events and workers.outbox_bytes"
    if after >= log.begun_after:
        return "these events are older than the log holds: raise its retention, or resume sooner"
    if log.oldest - 1 <= log.begun_after:
        return f"these events are older than the log holds, because {taken_back}: {outbox}"
    return (
        f"these events are older than the log holds. Those up to {log.begun_after}, because {taken_back}: {outbox}; "
        "for the others raise the log's retention, or resume sooner"
    )
