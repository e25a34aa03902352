"""Older events from a plugin's history store, in front of what the log holds: one seam, no duplicate, no silent hole.

A store is asked in tasks of its own, so that whatever becomes of them is not done to a reader's stream: it may hang,
let a cancellation of its own out, or swallow one that is meant for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from mxgw.v1.events_pb2 import EventBatch, GapReason
from mxgw_core.api.errors import HistoryUnavailable
from mxgw_core.api.events import History, HistoryPage
from mxgw_core.api.types import Position
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Chunk, Gap, Piece, chunk_of

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Nothing can be sent before `span` has answered, and clients give a stream about 10 s to open.
_SPAN_S = 5.0
# How long a cancelled call may take to close what it has open, before it is left to itself.
_CLOSE_S = 1.0
# While a page is waited for, it is looked at this often whether the reader's stream is about to end.
_LOOK_S = 0.25
_NOT_STORED = "these events are older than the log holds, and the history store does not have them"
_RETRY_AFTER_S = 1.0


# What is promised of a store


class BrokenPromises:
    """Where a session's stores stopped although they had said that they have more.

    Nobody is promised what comes there until it was given after all. Otherwise a client that resumes from a store which
    cannot be read, and does not know that, would be promised the same and turned away for ever.

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
    """A store that has events behind a client's position, and all of them up to `reach`."""

    store: Store
    reach: int
    broken_promises: BrokenPromises

    def in_place_of(
        self, gap: Gap, epoch: bytes, *, is_whole: bool, is_ending: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[Piece, None]:
        """Yield the store's events in the place of `gap`, see `lead_in`."""
        after, until = gap.first - 1, gap.last
        return lead_in(self.store, epoch, after, until, self.broken_promises, is_whole=is_whole, is_ending=is_ending)


async def find_older(
    ask: Callable[[], Store | None], log: EventLog, epoch: bytes, after: Position, broken_promises: BrokenPromises
) -> Older | None:
    """Ask for a store when the log begins behind a position; return it when it has events behind that position.

    Events are appended to the log meanwhile, so that where the stream begins must be decided afterwards.
    """
    if after.epoch != epoch or after.sequence >= log.oldest - 1 or (store := ask()) is None:
        return None
    if store.left:
        _log.warning("the history store of %s was not asked: an earlier call has not ended", store.source)
        return None
    reach = await reach_of(store, epoch, after.sequence)
    return None if reach is None else Older(store, broken_promises.reach(after.sequence, reach), broken_promises)


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
    broken_promises: BrokenPromises,
    *,
    is_whole: bool,
    is_ending: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Piece, None]:
    """Yield what the store has with `after < sequence <= until`, and a gap for whatever it has not.

    `is_whole`: the reader was told that it misses nothing, because
    the store said so. `is_ending`: whether the reader's stream is about to end, so that there is little time.

    Raises:
        HistoryUnavailable: something of what `is_whole` promised is missing.
    """
    done = after
    try:
        async with aclosing(store.read(epoch, after, until, is_ending)) as pages:
            async for page in pages:
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
                    yield Gap(done + 1, first - 1, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
                broken_promises.given(first, last)
                yield chunk
                done = last
    except Exception as error:
        _failed(store, error)
    if done < until and is_whole:
        broken_promises.broken(done)
        raise HistoryUnavailable(
            f"the history store said that it has the events {after + 1} to {until}, and gave none behind {done}: "
            "resume after your last position, what is missing is then a gap",
            metadata={"last_sequence": str(done)},
            retry_after_s=_RETRY_AFTER_S,
        )
    if done < until:
        yield Gap(done + 1, until, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)


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


# The store itself


class StoreFailed(Exception):
    """A store did not answer; the text goes on behind its name."""


@dataclass(frozen=True, slots=True)
class Store:
    """`source` names its plugin in the log.

    `page_s`: how long it may take for a page; `last_page_s`: the same once the reader's stream is ending.
    `left`: the calls that did not end when they were cancelled. While there are any, the store is not to be asked.
    """

    history: History
    source: str
    page_s: float
    last_page_s: float
    left: set[asyncio.Task[object]] = field(default_factory=set)

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        """See `History.span`.

        Raises:
            StoreFailed: it did not answer in time, or was cancelled.
            Exception: what it raised.
        """

        async def span() -> tuple[int, int] | None:
            return await self.history.span(epoch)

        task, span_s = self._begun(span()), min(self.page_s, _SPAN_S)
        try:
            await asyncio.wait((task,), timeout=span_s)
            if not task.done():
                raise StoreFailed(f"did not say within {span_s:g} s what it has")
            return _result(task)
        finally:
            await self._close(task)

    async def read(
        self, epoch: bytes, after: int, until: int, is_ending: Callable[[], bool]
    ) -> AsyncGenerator[HistoryPage, None]:
        """See `History.read`. The next page is asked for as one was taken.

        Raises:
            StoreFailed: a page did not come in time, or the store was cancelled.
            Exception: what it raised.
        """
        loop = asyncio.get_running_loop()
        # Completed by the store's task, which then waits until another page is wanted.
        page: asyncio.Future[HistoryPage] = loop.create_future()
        wanted = asyncio.Event()

        async def read() -> None:
            async for given in self.history.read(epoch, after, until):
                wanted.clear()
                page.set_result(given)
                await wanted.wait()

        task = self._begun(read())
        try:
            while True:
                asked_at = loop.time()
                while not page.done() and not task.done():
                    limit_s = self.last_page_s if is_ending() else self.page_s
                    left_s = asked_at + limit_s - loop.time()
                    if left_s <= 0:
                        raise StoreFailed(f"gave no page within {limit_s:g} s")
                    await asyncio.wait((task, page), timeout=min(left_s, _LOOK_S), return_when=asyncio.FIRST_COMPLETED)
                if not page.done():
                    _result(task)
                    return
                yield page.result()
                page = loop.create_future()
                wanted.set()
        finally:
            await self._close(task)

    def _begun(self, call: Coroutine[object, object, _T]) -> asyncio.Task[_T]:
        return asyncio.get_running_loop().create_task(call, name=f"history:{self.source}")

    async def _close(self, task: asyncio.Task[_T]) -> None:
        """Cancel a call that has not ended, and give it a moment; one that goes on all the same is left to itself."""
        if task.done():
            return
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=_CLOSE_S)
        finally:
            if task.done():
                self._ended(task)
            else:
                self.left.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self.left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more


def _result(task: asyncio.Task[_T]) -> _T:
    """Return what a call returned.

    Raises:
        StoreFailed: it was cancelled, and not by the gateway: that is no cancellation of the stream.
        Exception: what it raised.
    """
    if task.cancelled():
        raise StoreFailed("was cancelled, and not by the gateway")
    return task.result()
