"""Older events from an outside store, in front of what the log holds: one seam, no duplicate, no silent hole."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.events import History, PartialHistory
from mxgw_core.api.types import Position
from mxgw_core.events.log import Chunk, EventLog, LogGap, chunk_of

_log = logging.getLogger(__name__)

_NOT_STORED = "these events are older than the log holds, and the history store does not have them"


@dataclass(frozen=True, slots=True)
class Older:
    """A store of events behind a client's position, and up to where it has all of them."""

    history: History
    until: int

    def in_place_of(self, gap: LogGap, epoch: bytes) -> AsyncGenerator[Chunk | LogGap, None]:
        """Yield what the store has of what the log no longer holds."""
        return lead_in(self.history, epoch, gap.first - 1, gap.last)


async def find_older(ask: Callable[[], History | None], log: EventLog, epoch: bytes, after: Position) -> Older | None:
    """Ask for a store when the log begins behind a position; return it when it has events behind that.

    Meanwhile the log goes on, so the verdict is due afterwards.
    """
    if after.epoch != epoch or after.sequence >= log.oldest - 1 or (history := ask()) is None:
        return None
    until = await unbroken_until(history, epoch, after.sequence)
    return None if until is None else Older(history, until)


async def unbroken_until(history: History, epoch: bytes, after: int) -> int | None:
    """Return up to where a store has everything behind `after`: `after` itself when it lacks the very next event.

    None when it has nothing behind `after`, or fails.
    """
    try:
        span = await history.span(epoch)
        if span is None or span[1] <= after:
            return None
        if span[0] > after + 1:
            return after
        if isinstance(history, PartialHistory):
            return max(after, min(span[1], await history.unbroken_until(epoch, after)))
        return span[1]
    except Exception:
        _log.warning("the history store failed", exc_info=True)
        return None


async def lead_in(history: History, epoch: bytes, after: int, until: int) -> AsyncGenerator[Chunk | LogGap, None]:
    """Yield what the store has with `after < sequence <= until`, and a gap for whatever it has not."""
    done = after
    try:
        async for page in history.read(epoch, after, until):
            first, last = page.first_sequence, page.last_sequence
            if first <= done or last < first or last > until:
                _log.warning("the history store gave events %d to %d after %d, until %d", first, last, done, until)
                break
            if first > done + 1:
                yield LogGap(done + 1, first - 1, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
            yield chunk_of(first, last, page.events)
            done = last
    except Exception:
        _log.warning("the history store failed", exc_info=True)
    if done < until:
        yield LogGap(done + 1, until, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
