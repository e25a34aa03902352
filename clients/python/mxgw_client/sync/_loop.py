"""The event loop of the client without `await`, which runs in a separate thread.

All connections of `mxgw_client.sync` in a process use one loop, because grpc.aio raises false errors in a second event
loop of the same process (grpc issue 25364). The thread starts when the first connection opens, and ends when the last
one closes.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# How many seconds `run` waits, after Ctrl-C, for the cancelled coroutine to end.
CANCEL_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 5.0
# On Windows, Ctrl-C does not interrupt a thread that waits for another one. It is noticed between waits of this time.
_WAIT_S = 0.2 if os.name == "nt" else None


class LoopThread:
    """A thread that runs an event loop. Every thread except this one is allowed to call `run`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon thread, so that a script can end even if it has not closed its connection.
        self._thread = threading.Thread(target=self._serve, name="mxgw-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start the coroutine in the loop, and return a future for its result.

        Raises:
            RuntimeError: the loop has ended, or the caller runs in the thread of the loop and would wait for itself.
        """
        self._check(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _check(self, coroutine: Coroutine[Any, Any, T]) -> None:
        if threading.current_thread() is self._thread or self._loop.is_closed():
            coroutine.close()
            raise RuntimeError(
                "the synchronous client cannot be used here: its event loop is this thread, or has ended"
            )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the loop, and return its result.

        Ctrl-C cancels the coroutine. KeyboardInterrupt is raised when the coroutine has ended, or after
        `CANCEL_TIMEOUT_S`.
        """
        self._check(coroutine)
        finished = threading.Event()
        future = self.submit(_then(coroutine, finished))
        try:
            return _result_of(future)
        except KeyboardInterrupt:
            future.cancel()
            finished.wait(CANCEL_TIMEOUT_S)
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an async iterator yields. Each step of the iterator is made only when the caller needs it."""
        while True:
            try:
                item = self.run(_step(items))
            except StopAsyncIteration:
                return
            yield item

    def stop(self) -> None:
        """End the loop, and wait some seconds for the end of its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)


def _result_of(future: Future[T], timeout_s: float | None = None) -> T:
    """Return the result of a future. Wait for it at most `timeout_s` seconds, or without limit when it is None.

    Raises:
        TimeoutError: there is no result yet.
    """
    if _WAIT_S is None:
        return future.result(timeout_s)
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while not future.done():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        wait((future,), min(left_s, _WAIT_S))
    return future.result()


async def _then(coroutine: Coroutine[Any, Any, T], finished: threading.Event) -> T:
    try:
        return await coroutine
    finally:
        finished.set()


async def _step(items: AsyncIterator[T]) -> T:
    return await anext(items)


class Waiter(Generic[T]):
    """Runs a coroutine function again and again in the loop, for a thread that needs the results one by one.

    When `next` times out or is interrupted, the coroutine runs on, and the following call of `next` returns its result.
    """

    def __init__(self, loop: LoopThread, step: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._loop = loop
        self._step = step
        # The future of the coroutine that runs at present, which the loop completes; None when none runs.
        self._pending: Future[T] | None = None

    def next(self, timeout_s: float | None) -> T:
        """Return the next result. Wait for it at most `timeout_s` seconds, or without limit when it is None.

        Raises:
            TimeoutError: the coroutine has no result yet.
            StopIteration: the coroutine raised StopAsyncIteration or was cancelled.
            Exception: any other error that the coroutine raised.
        """
        if self._pending is None:
            self._pending = self._loop.submit(self._step())
        pending = self._pending
        try:
            result = _result_of(pending, timeout_s)
        except (StopAsyncIteration, CancelledError):
            self._pending = None
            raise StopIteration from None
        except BaseException as error:
            # When the coroutine did not raise this error, the wait was interrupted or timed out. The coroutine then
            # still runs, so it is kept for the next call.
            if pending.done() and pending.exception() is error:
                self._pending = None
            raise
        self._pending = None
        return result


class _Shared:
    """The only LoopThread of the process, and the number of connections that use it."""

    lock = threading.Lock()
    thread: LoopThread | None = None
    users = 0


def acquire() -> LoopThread:
    """Return the LoopThread of the process, and start it if there is none. Each caller must call `release` later."""
    with _Shared.lock:
        if _Shared.thread is None:
            _Shared.thread = LoopThread()
        _Shared.users += 1
        return _Shared.thread


def release() -> None:
    """Report that a caller of `acquire` no longer needs the LoopThread. It ends when nobody needs it any more."""
    with _Shared.lock:
        _Shared.users -= 1
        if _Shared.users == 0 and _Shared.thread is not None:
            thread, _Shared.thread = _Shared.thread, None
            thread.stop()
