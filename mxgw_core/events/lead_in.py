"""Older events from an outside store, in front of what the log holds: one seam, no duplicate, no silent hole."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.events import History
from mxgw_core.events.log import Chunk, LogGap, chunk_of

log = logging.getLogger(__name__)

_NOT_STORED = "these events are older than the log holds, and the history store does not have them"


async def reaches(history: History, epoch: bytes, after: int) -> bool:
    """Return whether the store has everything behind `after`; a store that fails has nothing."""
    try:
        oldest = await history.oldest_sequence(epoch)
    except Exception:
        log.warning("the history store failed", exc_info=True)
        return False
    return oldest is not None and oldest <= after + 1


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
