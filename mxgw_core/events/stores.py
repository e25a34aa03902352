"""A plugin's history store, asked in tasks of its own: whatever becomes of them is not done to a reader's stream.

A store may hang, let a cancellation of its own out, or swallow one that is meant for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from mxgw_core.api.events import History, HistoryPage

_T = TypeVar("_T")

# Nothing can be sent before `span` has answered, and clients give a stream about 10 s to open.
_SPAN_S = 5.0
# How long a cancelled call may take to close what it has open, before it is left to itself.
_CLOSE_S = 1.0
# While a page is waited for, its reader's stream has a turn this often: it may end, or owe a heartbeat.
_TURN_S = 0.25


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
    ) -> AsyncGenerator[HistoryPage | None, None]:
        """See `History.read`; None now and then while a page is waited for. The next is asked for as one was taken.

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
                    await asyncio.wait((task, page), timeout=min(left_s, _TURN_S), return_when=asyncio.FIRST_COMPLETED)
                    if not page.done() and not task.done():
                        yield None
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
