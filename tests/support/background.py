"""An asyncio event loop in a thread, for tests that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_LONGEST_S = 60


class Run(Protocol):
    """Runs a coroutine in the loop of the thread, and returns its result."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


@contextmanager
def in_background(manager: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, Run]]:
    """Enter an asynchronous context manager in the loop of a thread during the block. Tasks left over are cancelled."""
    held: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def hold() -> None:
        try:
            async with manager() as value:
                done = asyncio.Event()
                held.set_result((value, asyncio.get_running_loop(), done))
                await done.wait()
        except BaseException as error:
            if held.done():
                raise
            held.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        value, loop, done = held.result(_LONGEST_S)

        def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_LONGEST_S)

        try:
            yield value, run
        finally:
            loop.call_soon_threadsafe(done.set)
    finally:
        thread.join()
