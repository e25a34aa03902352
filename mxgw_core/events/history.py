"""Older events from a plugin's history store, sent in front of what the log holds.

The events of the store and of the log join without duplicates, and a gap reports every event that is missing. Each call
of a store runs in a task of its own, so that a fault of the store does not reach a reader's stream: the store may hang,
raise a CancelledError by itself, or ignore its cancellation.

The module has more than 400 lines, because what a store may answer, and what becomes of a wrong answer, stand together.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError

from mxgw.v1.events_pb2 import EventBatch, GapReason
from mxgw_core.api.errors import HistoryUnavailable
from mxgw_core.api.events import History, HistoryPage
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Chunk, Gap, Piece, chunk_of
from mxgw_core.events.stored_items import StoredItems
from mxgw_core.plugins.calls import CallFailed, Owner
from mxgw_core.plugins.tasks import plugin_task
from mxgw_core.printable import printable

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# A stream sends nothing before `span` has returned, and clients give a stream about 10 s to open.
_SPAN_S = 5.0
# How long a cancelled call of a store is waited for, so that it can close its files and connections.
_CLOSE_S = 1.0
# While a page has not come, the gateway checks this often whether the reader's stream is about to end.
_LOOK_S = 0.25
_NOT_STORED = "these events are older than the log holds, and the history store does not have them"
_FAILED = "these events are older than the log holds, and the history store failed: the gateway's log says how"
_RETRY_AFTER_S = 1.0


# The next classes and functions decide which events of a history store a client that resumes is promised.


class BrokenPromises:
    """The place at which a session's history stores stopped, although they had said that they have more events.

    No resume is promised the events behind this place until a store has delivered them after all. Otherwise a client
    that resumes there would be promised these events again and again, and each of its streams would fail.

    Attributes:
        left: calls of stores that did not end when they were cancelled, see `Store`.
    """

    def __init__(self, left: set[asyncio.Task[object]] | None = None) -> None:
        self.left: set[asyncio.Task[object]] = set() if left is None else left
        self._after: int | None = None

    def broken(self, done: int) -> None:
        """Record that a store had said that it has events behind `done`, but has delivered none of them."""
        self._after = done if self._after is None else max(self._after, done)

    def given(self, first: int, last: int) -> None:
        """Record that a store delivered the events from `first` to `last`."""
        if self._after is not None and first <= self._after + 1 <= last:
            self._after = None

    def reach(self, after: int, reach: int) -> int:
        """Return the sequence up to which a client that resumes after `after` is promised a store's events.

        The store says that it has all events from `after` up to `reach`. The result is smaller than `reach` if a store
        has said so before and has not delivered these events.
        """
        return reach if self._after is None or self._after < after else min(self._after, reach)


@dataclass(frozen=True, slots=True)
class Older:
    """A store that has events behind a client's position. Up to the sequence `reach` it has all of them.

    With `has_failed`, the store did not say what it has, and is not asked for events.
    """

    store: Store
    reach: int
    broken_promises: BrokenPromises
    has_failed: bool = False

    async def in_place_of(
        self,
        gap: Gap,
        epoch: bytes,
        *,
        is_whole: bool,
        is_ending: Callable[[], bool] = lambda: False,
        items: StoredItems | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Yield the store's events in the range of `gap`, and a gap for each part of the range that the store lacks.

        Args:
            items: the known items, if the reader's filters decide about the events. Then an event of an item that
                neither the session nor the page of the event knows is missing.
            is_whole: whether the stream's opening has announced that no event is missing, because the store had said
                so.
            is_ending: returns True once the reader's stream is about to end, so that little time is left.

        Raises:
            HistoryUnavailable: events are missing, although the stream's opening has announced that none is.
        """
        after, until = gap.first - 1, gap.last
        done = after
        if self.has_failed:
            yield Gap(gap.first, until, GapReason.GAP_REASON_RING_EVICTED, _FAILED)
            return
        missing = _NOT_STORED
        try:
            async with aclosing(self.store.read(epoch, after, until, is_ending)) as pages:
                async for page in pages:
                    chunk = _checked(page, done, until)
                    if chunk.first > done + 1:
                        if is_whole:
                            break
                        yield Gap(done + 1, chunk.first - 1, GapReason.GAP_REASON_RING_EVICTED, _NOT_STORED)
                    for piece in (chunk,) if items is None else items.known(chunk, page.items):
                        if isinstance(piece, Gap):
                            if items is not None and not items.is_reported:
                                items.is_reported = True
                                _log.warning(
                                    "the history store of %s gave event %d without the record of its item: callers "
                                    "with an event filter get a gap",
                                    *(self.store.source, piece.first),
                                )
                            if is_whole:
                                break
                        else:
                            self.broken_promises.given(piece.first, piece.last)
                        yield piece
                        done = piece.last
                    if done < chunk.last:
                        break
        except Exception as error:
            missing = _FAILED
            _failed(self.store, error)
        if done < until and is_whole:
            if missing is _NOT_STORED and (items is None or not items.is_reported):
                promised = f"said that it has the events {after + 1} to {until}, and gave none behind {done}"
                _failed(self.store, StoreFailed(promised))
            self.broken_promises.broken(done)
            raise HistoryUnavailable(
                f"the history store said that it has the events {after + 1} to {until}, and gave none behind {done}: "
                "resume after your last position, what is missing is then a gap",
                metadata={"last_sequence": str(done)},
                retry_after_s=_RETRY_AFTER_S,
            )
        if done < until:
            yield Gap(done + 1, until, GapReason.GAP_REASON_RING_EVICTED, missing)


def is_older(log: EventLog, epoch: bytes, after: Position) -> bool:
    """Whether the log does not have all events behind a position of its epoch, so that a store may have them."""
    return after.epoch == epoch and after.sequence < log.oldest - 1


async def find_older(
    ask: Callable[[], Store | None], log: EventLog, epoch: bytes, after: Position, broken_promises: BrokenPromises
) -> Older | None:
    """Return a history store that has events behind a position, if the log does not have all of them; else None.

    A store that fails is returned too, so that the client's gap can say so. `ask` finds the store. The log changes
    while the store is asked for its events, so the caller must decide afterwards where the stream begins.
    """
    if not is_older(log, epoch, after) or (store := ask()) is None:
        return None
    if store.left:
        _log.warning("the history store of %s was not asked: an earlier call has not ended", store.source)
        return Older(store, after.sequence, broken_promises, has_failed=True)
    try:
        reach = await reach_of(store, epoch, after.sequence)
    except Exception as error:
        _failed(store, error)
        return Older(store, after.sequence, broken_promises, has_failed=True)
    return None if reach is None else Older(store, broken_promises.reach(after.sequence, reach), broken_promises)


async def reach_of(store: Store, epoch: bytes, after: int) -> int | None:
    """Return the last sequence up to which a store has every event behind `after`, or None.

    The result is `after` itself when the store has later events, but not the event right behind `after`. None means
    that the store has no events behind `after`.

    Raises:
        StoreFailed: the store did not answer in time, or with something else than a span.
        Exception: whatever the store raised.
    """
    span = await store.span(epoch)
    if span is None:
        return None
    oldest, newest = _checked_span(span)
    if newest <= after:
        return None
    return newest if oldest <= after + 1 else after


def _failed(store: Store, error: Exception) -> None:
    """Log and count a failure. Each one is logged, because each costs a client events that the store perhaps has."""
    if isinstance(error, CallFailed):
        return  # logged and counted already
    if isinstance(error, StoreFailed):
        _log.warning("the history store of %s %s", store.source, error)
    else:
        _log.warning("the history store of %s failed", store.source, exc_info=error)
    if store.owner is not None:
        store.owner.failed("History", error, is_logged=True)


def _checked_span(span: object) -> tuple[int, int]:
    """Return a store's answer to `span`.

    Raises:
        StoreFailed: it is no pair of sequences.
    """
    if isinstance(span, tuple) and len(span) == 2 and all(type(number) is int for number in span):
        oldest, newest = span
        if 1 <= oldest <= newest:
            return oldest, newest
        wrong = f"({oldest}, {newest})"
    elif isinstance(span, tuple):
        wrong = f"a tuple of {', '.join(map(_type, span[:3])) or 'nothing'}{', ...' if len(span) > 3 else ''}"
    else:
        wrong = f"a value of type {_type(span)}"
    raise StoreFailed(
        f"answered span with {wrong}: it must be None, or the first and the last sequence of a run of events"
    )


_NO_MISTAKE = object()


def _type(value: object) -> str:
    """Return the type of a wrong answer. The answer itself is not logged, because it can hold values of tags."""
    return printable(type(value).__qualname__, 80)


def _checked(page: object, done: int, until: int) -> Chunk:
    """Return the events of a page that must lie behind `done` and not behind `until`.

    Raises:
        StoreFailed: the answer is no page, or not exactly the consecutive events that it announces.
    """
    if not isinstance(page, HistoryPage):
        raise StoreFailed(f"gave a value of type {_type(page)} instead of a HistoryPage")
    first, last, items = page.first_sequence, page.last_sequence, page.items
    for name, number in (("first_sequence", first), ("last_sequence", last)):
        if type(number) is not int:
            raise StoreFailed(f"gave a page whose {name} is of type {_type(number)}: it must be an int")
    if not done < first <= last <= until:
        raise StoreFailed(f"gave events {first} to {last} after {done}, until {until}")
    if not isinstance(page.events, bytes):
        raise StoreFailed(
            f"gave a page whose events are of type {_type(page.events)}: they must be bytes, an encoded EventBatch"
        )
    if not isinstance(items, Sequence):
        raise StoreFailed(f"gave a page whose items are of type {_type(items)}: they must be a sequence of ItemRecord")
    if (wrong := next((item for item in items if not isinstance(item, ItemRecord)), _NO_MISTAKE)) is not _NO_MISTAKE:
        raise StoreFailed(f"gave a page with an item of type {_type(wrong)}: it must be an ItemRecord")
    try:
        found = [event.sequence for event in EventBatch.FromString(page.events).events]
    except DecodeError as error:
        raise StoreFailed(f"gave events {first} to {last} as bytes that are no encoded EventBatch") from error
    if found != list(range(first, last + 1)):
        raise StoreFailed(f"gave a page of the events {first} to {last} that has others")
    return chunk_of(first, last, page.events)


# The rest of the module calls the store.


class StoreFailed(Exception):
    """A store did not answer in time, its call was cancelled, or its answer is wrong.

    The text of the error has no subject: in the log the store's name stands before it.
    """


@dataclass(frozen=True, slots=True)
class Store:
    """A plugin's history store, with limits on the time that its calls may take.

    Attributes:
        source: names the plugin in log lines.
        page_s: how long the store may take for a page.
        last_page_s: how long the store may take for a page once the reader's stream is about to end.
        left: the calls that did not end when they were cancelled. While there are any, the store must not be asked.
        owner: the plugin; None in tests only.
    """

    history: History
    source: str
    page_s: float
    last_page_s: float
    left: set[asyncio.Task[object]] = field(default_factory=set)
    owner: Owner | None = None

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        """See `History.span`.

        Raises:
            StoreFailed: the store did not answer in time, or its call was cancelled by something else than the gateway.
            Exception: whatever the store raised.
        """

        async def span() -> tuple[int, int] | None:
            answer = self.history.span(epoch)
            if not inspect.isawaitable(answer):
                raise StoreFailed(f"returned a value of type {_type(answer)} from span: span must be async")
            return await answer

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
        """See `History.read`. The store is asked for the next page after the reader has taken the page before.

        Raises:
            StoreFailed: a page did not come in time, or the call was cancelled by something else than the gateway.
            Exception: whatever the store raised.
        """
        loop = asyncio.get_running_loop()
        # The task that reads the store completes this future, and then waits until another page is wanted.
        page: asyncio.Future[HistoryPage] = loop.create_future()
        wanted = asyncio.Event()

        async def read() -> None:
            answer = self.history.read(epoch, after, until)
            if not hasattr(answer, "__aiter__"):
                if inspect.iscoroutine(answer):
                    answer.close()
                raise StoreFailed(
                    f"returned a value of type {_type(answer)} from read: read must be an async generator, with `yield`"
                )
            async for given in answer:
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
        name = f"history:{self.source}"
        if self.owner is not None:
            return plugin_task(self.owner, "History", call, name=name)
        return asyncio.get_running_loop().create_task(call, name=name)

    async def _close(self, task: asyncio.Task[_T]) -> None:
        """Cancel a call that has not ended, and wait up to `_CLOSE_S` for its end. Then leave the call running."""
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
            task.exception()  # if nobody read the exception, asyncio would log that it was never retrieved


def _result(task: asyncio.Task[_T]) -> _T:
    """Return the result of a call.

    Raises:
        StoreFailed: the call was cancelled, but not by the gateway. (A CancelledError would end the reader's stream.)
        Exception: whatever the call raised.
    """
    if task.cancelled():
        raise StoreFailed("was cancelled, and not by the gateway")
    return task.result()
