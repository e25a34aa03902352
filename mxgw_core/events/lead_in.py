"""Older events from an outside store, in front of what the log holds: one seam, no duplicate, no silent hole."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.events import History
from mxgw_core.events.log import Chunk, LogGap, chunk_of

log = logging.getLogger(__name__)

_NOT_STORED = "these events are older than the log holds, and the history store does not have them"


async def newest_of(history: History, epoch: bytes, after: int) -> int | None:
    """Return the newest sequence of a store that goes back to right behind `after`, None when it does not, or fails."""
    try:
        span = await history.span(epoch)
    except Exception:
        log.warning("the history store failed", exc_info=True)
        return None
    return span[1] if span is not None and span[0] <= after + 1 <= span[1] else None


async def lead_in(history: History, epoch: bytes, after: int, until: int) -> AsyncGenerator[Chunk | LogGap, None]:
    """Yield what the store has with `after < sequence <= until`, and a gap for whatever it has not."""
    done = after
    try:
        async for page in history.read(epoch, after, until):
            first, last = page.first_sequence, page.last_sequence
            if first <= done or last < first or last > until:
                log.warning("the history store gave events %d to %d after %d, until %d", first, last, done, until)
                break
            if first > done + 1:
                yield LogGap(done + 1, first - 1, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
            yield chunk_of(first, last, page.events)
            done = last
    except Exception:
        log.warning("the history store failed", exc_info=True)
    if done < until:
        yield LogGap(done + 1, until, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
