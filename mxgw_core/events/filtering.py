"""What of a chunk a subscriber's filters let pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mxgw_core.api.events import EventFilter
from mxgw_core.events.log import Chunk, chunk_of
from mxgw_core.events.records import event_identity, record_bounds


@dataclass(frozen=True, slots=True)
class Judged:
    """A range with `events` events of which `parts` may pass.

    `undecided` is the sequence of the event behind the range that the filters cannot judge yet, None when all are.
    """

    first: int
    last: int
    events: int
    parts: Sequence[bytes]
    undecided: int | None = None

    def kept(self) -> Chunk | None:
        """Return what may pass as a chunk that covers the whole range; None when nothing may."""
        return chunk_of(self.first, self.last, b"".join(self.parts), len(self.parts)) if self.parts else None


def judge(chunk: Chunk, filters: Sequence[EventFilter], *, may_wait: bool = False) -> Judged:
    """Ask the filters for each event; with `may_wait`, stop before the first that they cannot judge yet.

    Without it such an event does not pass.
    """
    parts: list[bytes] = []
    for index, (start, body, end) in enumerate(record_bounds(chunk.frame, chunk.start)):
        sequence, server_handle, item_handle, kind = event_identity(chunk.frame, body, end)
        answer: bool | None = True
        for f in filters:
            answer = f.keep(server_handle, item_handle, kind, sequence) and answer
            if answer is False:
                break
        if answer:
            parts.append(chunk.frame[start:end])
        elif may_wait and answer is None:
            # The range before it, which may be empty: nothing of it is lost when it is handed over.
            return Judged(chunk.first, sequence - 1 if index else chunk.first - 1, index, parts, undecided=sequence)
    return Judged(chunk.first, chunk.last, chunk.events, parts)
