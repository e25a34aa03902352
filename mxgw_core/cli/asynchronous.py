"""Running a coroutine as the body of a command: Ctrl-C and SIGTERM cancel it, clean-up runs, no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mxgw_core.cli.failures import ExitCode, SilentFailure

T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` in a new event loop and return what it returns.

    The first Ctrl-C or SIGTERM cancels it, so its `finally` blocks run; a second Ctrl-C ends at once.

    Raises:
        KeyboardInterrupt: after Ctrl-C (the command line makes 130 of it).
        SilentFailure: after SIGTERM, with 143.
    """
    terminated = False

    async def body() -> T:
        task = asyncio.current_task()
        assert task is not None

        def on_sigterm() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers in the loop
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)
        return await main()

    try:
        return asyncio.run(body())
    except asyncio.CancelledError:
        if terminated:
            raise SilentFailure(ExitCode.TERMINATED) from None
        raise
    except BaseExceptionGroup as group:
        # A task group wraps what ended it; the command line knows the single failure, not the wrapping.
        raise innermost(group) from None


def innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single failure inside a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
