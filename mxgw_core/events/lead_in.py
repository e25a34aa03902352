"""Older events from an outside store, in front of what the log holds: one seam, no duplicate, no silent hole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from mxgw.v1.events_pb2 import EventBatch, GapReason
from mxgw_core.api.errors import HistoryUnavailable
from mxgw_core.api.events import HistoryPage
from mxgw_core.api.types import Position
from mxgw_core.events.log import Chunk, EventLog, LogGap, chunk_of
from mxgw_core.events.records import MalformedBatch
from mxgw_core.events.stores import Store, StoreFailed

_log = logging.getLogger(__name__)

_NOT_STORED = "these events are older than the log holds, and the history store does not have them"
_RETRY_AFTER_S = 1.0


class Doubts:
    """Where a session's stores stopped although they had promised more.

    Nobody is promised what comes there until it was given after all: else whoever comes back to a store that cannot be
    read, and does not know it, would be promised the same and sent away for ever.

    Attributes:
        left: calls of stores that did not end when they were cancelled, see `Store`.
    """

    def __init__(self) -> None:
        self.left: set[asyncio.Task[object]] = set()
        self._after: int | None = None

    def broken(self, done: int) -> None:
        """A store promised more, and gave nothing behind `done`."""
        self._after = done if self._after is None else max(self._after, done)

    def given(self, first: int, last: int) -> None:
        """A store gave these events."""
        if self._after is not None and first <= self._after + 1 <= last:
            self._after = None

    def reach(self, after: int, reach: int) -> int:
        """Return up to where somebody at `after` may count on a store that says it has everything up to `reach`."""
        return reach if self._after is None or self._after < after else min(self._after, reach)


@dataclass(frozen=True, slots=True)
class Older:
    """A store of events behind a client's position; `reach`: up to there it has all of them."""

    store: Store
    reach: int
    doubts: Doubts

    def in_place_of(
        self, gap: LogGap, epoch: bytes, *, is_whole: bool, is_ending: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[Chunk | LogGap | None, None]:
        """Yield what the store has of what the log no longer holds, see `lead_in`."""
        after, until = gap.first - 1, gap.last
        return lead_in(self.store, epoch, after, until, self.doubts, is_whole=is_whole, is_ending=is_ending)


async def find_older(
    ask: Callable[[], Store | None], log: EventLog, epoch: bytes, after: Position, doubts: Doubts
) -> Older | None:
    """Ask for a store when the log begins behind a position; return it when it has events behind that.

    Meanwhile the log goes on, so the verdict is due afterwards.
    """
    if after.epoch != epoch or after.sequence >= log.oldest - 1 or (store := ask()) is None:
        return None
    if store.left:
        _log.warning("the history store of %s was not asked: an earlier call has not ended", store.source)
        return None
    reach = await reach_of(store, epoch, after.sequence)
    return None if reach is None else Older(store, doubts.reach(after.sequence, reach), doubts)


async def reach_of(store: Store, epoch: bytes, after: int) -> int | None:
    """Return up to where a store has everything behind `after`: `after` itself when it begins later, or has a hole.

    None when it has nothing behind `after`, or fails.
    """
    try:
        span = await store.span(epoch)
        if span is None:
            return None
        oldest, newest = span
        if newest <= after:
            return None
        return newest if oldest <= after + 1 else after
    except Exception as error:
        _failed(store, error)
        return None


async def lead_in(
    store: Store,
    epoch: bytes,
    after: int,
    until: int,
    doubts: Doubts,
    *,
    is_whole: bool,
    is_ending: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Chunk | LogGap | None, None]:
    """Yield what the store has with `after < sequence <= until`, and a gap for whatever it has not.

    None now and then while the store is waited for. `is_whole`: the reader was told that it misses nothing, because
    the store said so. `is_ending`: whether the reader's stream is about to end, so that there is little time.

    Raises:
        HistoryUnavailable: something of what `is_whole` promised is missing.
    """
    done = after
    try:
        async with aclosing(store.read(epoch, after, until, is_ending)) as pages:
            async for page in pages:
                if page is None:
                    yield None
                    continue
                first, last = page.first_sequence, page.last_sequence
                if first <= done or last < first or last > until:
                    _log.warning(
                        "the history store of %s gave events %d to %d after %d, until %d",
                        *(store.source, first, last, done, until),
                    )
                    break
                chunk = _checked(page)
                if first > done + 1:
                    if is_whole:
                        break
                    yield LogGap(done + 1, first - 1, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
                doubts.given(first, last)
                yield chunk
                done = last
    except Exception as error:
        _failed(store, error)
    if done < until and is_whole:
        doubts.broken(done)
        raise HistoryUnavailable(
            f"the history store said that it has the events {after + 1} to {until}, and gave none behind {done}: "
            "resume after your last position, what is missing is then a gap",
            metadata={"last_sequence": str(done)},
            retry_after_s=_RETRY_AFTER_S,
        )
    if done < until:
        yield LogGap(done + 1, until, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)


def _failed(store: Store, error: Exception) -> None:
    if isinstance(error, StoreFailed):
        _log.warning("the history store of %s %s", store.source, error)
    else:
        _log.warning("the history store of %s failed", store.source, exc_info=error)


def _checked(page: HistoryPage) -> Chunk:
    """Return the events of a page.

    Raises:
        DecodeError: they are not encoded as a batch.
        MalformedBatch: they are not those that the page says, one after another.
    """
    first, last = page.first_sequence, page.last_sequence
    found = [event.sequence for event in EventBatch.FromString(page.events).events]
    if found != list(range(first, last + 1)):
        raise MalformedBatch(f"the page of the events {first} to {last} has others")
    return chunk_of(first, last, page.events)
