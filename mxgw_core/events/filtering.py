"""What of a chunk a subscriber's filters let pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mxgw_core.api.events import EventFilter
from mxgw_core.events.log import Chunk
from mxgw_core.events.records import event_item, events_prefix, record_bounds


@dataclass(frozen=True, slots=True)
class Judged:
    """Consecutive events of which `parts` may pass; with `is_undecided`, the filters cannot judge the one behind."""

    first: int
    last: int
    parts: Sequence[bytes]
    is_undecided: bool = False

    @property
    def events(self) -> int:
        return self.last - self.first + 1

    def kept(self) -> Chunk | None:
        """Return what may pass as a chunk that covers the whole range; None when nothing may."""
        if not self.parts:
            return None
        prefix = events_prefix(sum(map(len, self.parts)))
        return Chunk(self.first, self.last, b"".join((prefix, *self.parts)), len(prefix))


def judge(chunk: Chunk, filters: Sequence[EventFilter], *, may_wait: bool = False) -> Judged:
    """Ask the filters for each event; with `may_wait`, stop before the first that they cannot judge yet.

    Without it such an event does not pass.
    """
    parts: list[bytes] = []
    for sequence, (start, body, end) in enumerate(record_bounds(chunk.frame, chunk.start), chunk.first):
        item = event_item(chunk.frame, body, end)
        answers = [f.keep(*item, sequence) for f in filters]
        if all(answers):
            parts.append(chunk.frame[start:end])
        elif may_wait and None in answers and False not in answers:
            return Judged(chunk.first, sequence - 1, parts, is_undecided=True)
    return Judged(chunk.first, chunk.last, parts)
