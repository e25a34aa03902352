"""The event loop behind the synchronous facade, in a thread of its own.

All synchronous gateways of a process share one loop, because grpc.aio raises spurious errors in a second event loop of
the same process (grpc issue 25364). The thread starts with the first gateway and ends with the last.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# How long an interrupted call may take to end, and to release what it holds.
CANCEL_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 5.0


class LoopThread:
    """A running event loop. `run` may be called from any thread but its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a script ends even if it never closed its gateway.
        self._thread = threading.Thread(target=self._serve, name="mxgw-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start the coroutine in the loop.

        Raises:
            RuntimeError: called in the loop's own thread, which would wait for itself, or after the loop has ended.
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
        """Run the coroutine and return its result. An interrupt (Ctrl-C) cancels the coroutine and is then raised."""
        self._check(coroutine)
        finished = threading.Event()
        future = self.submit(_then(coroutine, finished))
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            finished.wait(CANCEL_TIMEOUT_S)
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an async iterator yields, one step at a time."""
        while True:
            try:
                item = self.run(_step(items))
            except StopAsyncIteration:
                return
            yield item

    def stop(self) -> None:
        """End loop and thread, within a few seconds."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_TIMEOUT_S)


async def _then(coroutine: Coroutine[Any, Any, T], finished: threading.Event) -> T:
    try:
        return await coroutine
    finally:
        finished.set()


async def _step(items: AsyncIterator[T]) -> T:
    return await anext(items)


class Waiter(Generic[T]):
    """Runs a step again and again, one at a time, and returns the results.

    When a wait is given up, the step under way goes on, and the next wait returns its result.
    """

    def __init__(self, loop: LoopThread, step: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._loop = loop
        self._step = step
        # The step under way; the loop thread completes it.
        self._pending: Future[T] | None = None

    def next(self, timeout_s: float | None) -> T:
        """Return the result of the next step, waiting for at most `timeout_s`.

        Raises:
            TimeoutError: it is not there yet.
            StopIteration: the step raised StopAsyncIteration or was cancelled.
            Exception: whatever else the step raised.
        """
        if self._pending is None:
            self._pending = self._loop.submit(self._step())
        pending = self._pending
        try:
            result = pending.result(timeout_s)
        except (StopAsyncIteration, CancelledError):
            self._pending = None
            raise StopIteration from None
        except BaseException as error:
            # Unless the step itself raised it, this is a timeout or an interrupt of the wait.
            if pending.done() and pending.exception() is error:
                self._pending = None
            raise
        self._pending = None
        return result


class _Shared:
    """The one loop thread of the process, and how many gateways use it."""

    lock = threading.Lock()
    thread: LoopThread | None = None
    users = 0


def acquire() -> LoopThread:
    """Return the process's loop thread, which the first caller starts. Every call needs one `release`."""
    with _Shared.lock:
        if _Shared.thread is None:
            _Shared.thread = LoopThread()
        _Shared.users += 1
        return _Shared.thread


def release() -> None:
    """Give the loop thread back; the last `release` ends it."""
    with _Shared.lock:
        _Shared.users -= 1
        if _Shared.users == 0 and _Shared.thread is not None:
            thread, _Shared.thread = _Shared.thread, None
            thread.stop()
