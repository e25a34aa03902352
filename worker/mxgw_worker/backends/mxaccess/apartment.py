"""The thread of a COM object: it runs the commands of the event loop in their order, and delivers events between them.

A COM call cannot be interrupted. The thread says what it is doing since when, so that a call that hangs is seen
(`watch.py`); the only end of such a call is that of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from mxgw_worker.backends.mxaccess.com import Pump

log = logging.getLogger(__name__)

T = TypeVar("T")

# Per turn at most so many messages and then so many commands, so that neither keeps the other waiting for long.
_MESSAGES_PER_TURN = 200
_COMMANDS_PER_TURN = 50
_DELIVERING = "the delivery of an event"


class Busy(NamedTuple):
    """What an apartment is doing: the name of the call, and since when, on the clock `time.perf_counter`."""

    what: str
    since: float


class _Command(NamedTuple):
    what: str
    function: Callable[[], Any]
    future: asyncio.Future[Any]


class Apartment:
    """One thread with its pump. Make it and use it in the event loop; only `busy` can be read anywhere."""

    def __init__(self, pump: Pump, name: str) -> None:
        """`name` is that of the thread."""
        self.busy: Busy | None = None
        self._pump = pump
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._commands: deque[_Command] = deque()
        self._is_over = False
        self._ended = asyncio.Event()
        # Not joined when the process ends: a call that hangs would keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self, first: Callable[[], T], what: str) -> T:
        """Start the thread, run `first` in it, and return its result or raise its exception.

        Raises:
            OSError: the thread cannot be an apartment.
        """
        # In this order, so that the thread that fails to be an apartment fails this call too.
        result = self.call(what, first)
        self._thread.start()
        return await result

    def call(self, what: str, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function in the apartment, after all functions before it; return its future result.

        `what` names the call for people. When the caller no longer waits, the function is run nevertheless.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._is_over:
            future.set_exception(RuntimeError(f"the apartment {self._name} has ended"))
            return future
        self._commands.append(_Command(what, function, future))
        self._pump.wake()
        return future

    def post(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop. Call this in the apartment."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and nobody wants this any more
            self._loop.call_soon_threadsafe(callback)

    def let_end(self) -> None:
        """Let the thread end after the commands that were given. It can take as long as a call of the object does."""
        if not self._is_over:
            self._is_over = True
            self._pump.wake()

    async def end(self) -> None:
        """Let the thread end, and wait until it has."""
        self.let_end()
        await self._ended.wait()

    def _run(self) -> None:
        try:
            self._pump.enter()
        except OSError as error:
            self._refuse(error)
        else:
            try:
                while not self._is_over or self._commands:
                    self._turn()
            finally:
                self._pump.leave()
        self.post(self._ended.set)

    def _turn(self) -> None:
        self._pump.wait()
        self.busy = Busy(_DELIVERING, time.perf_counter())
        more = self._pump.dispatch(_MESSAGES_PER_TURN)
        for _ in range(_COMMANDS_PER_TURN):
            if not self._commands:
                break
            self._execute(self._commands.popleft())
        self.busy = None
        if more or self._commands:
            self._pump.wake()

    def _execute(self, command: _Command) -> None:
        self.busy = Busy(command.what, time.perf_counter())
        try:
            result = command.function()
        except Exception as error:
            # Its frames hold references to COM objects, which may only be released in this thread.
            settled = error.with_traceback(None)
            self.post(lambda: _fail(command.future, settled))
        else:
            self.post(lambda: _finish(command.future, result))

    def _refuse(self, error: OSError) -> None:
        """Fail every command, because there is no apartment."""
        self._is_over = True
        while self._commands:
            command = self._commands.popleft()
            self.post(lambda future=command.future: _fail(future, error))  # type: ignore[misc]


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
