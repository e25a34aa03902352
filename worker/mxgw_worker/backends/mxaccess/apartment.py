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

from mxgw_worker.backends.base import BackendUnavailable, MxError
from mxgw_worker.backends.mxaccess.com import Pump

log = logging.getLogger(__name__)

T = TypeVar("T")

# Messages are delivered for so long, and then commands are run for so long, so that neither keeps the other waiting.
# The time counts, not their number: a single message can bring thousands of events.
_SHARE_S = 0.01
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

    def __init__(self, pump: Pump, name: str, failed: Callable[[str], None] = log.error) -> None:
        """`name` is that of the thread. `failed` is called in the event loop when the pump fails: the apartment is over
        then, and so is its object, which another thread can neither call nor release.
        """
        self.busy: Busy | None = None
        self._pump = pump
        self._name = name
        self._failed = failed
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
        self.begin()
        return await result

    def begin(self) -> None:
        """Start the thread. Calls fail with OSError when it cannot be an apartment."""
        self._thread.start()

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

    def end_with(self, what: str, function: Callable[[], None]) -> None:
        """Run `function` as the last one, and let the thread end. The functions before it that have not begun are not
        run; whoever waits for them is cancelled. Nothing happens when the apartment is over already.
        """
        if self._is_over:
            return
        while (command := self._next()) is not None:
            command.future.cancel()
        self.call(what, function).add_done_callback(_log_failure)
        self.let_end()

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
            except Exception as error:
                log.exception("the pump of the apartment %s has failed", self._name)
                self.busy = None
                told = f"the thread of MXAccess can no longer receive messages: {error}"
                self._refuse(OSError(told))
                self.post(lambda: self._failed(told))
            else:
                self._pump.leave()
        self.post(self._ended.set)

    def _turn(self) -> None:
        self._pump.wait()
        more = True
        until = time.perf_counter() + _SHARE_S
        while more and (now := time.perf_counter()) < until:
            # Anew for each message: many events are no call that hangs.
            self.busy = Busy(_DELIVERING, now)
            more = self._pump.dispatch()
        until = time.perf_counter() + _SHARE_S
        while time.perf_counter() < until and (command := self._next()) is not None:
            self._execute(command)
        self.busy = None
        if more or self._commands:
            self._pump.wake()

    def _next(self) -> _Command | None:
        """Take the next command. The thread and the event loop both do so, and either can find none left."""
        try:
            return self._commands.popleft()
        except IndexError:
            return None

    def _execute(self, command: _Command) -> None:
        self.busy = Busy(command.what, time.perf_counter())
        try:
            result = command.function()
        except Exception as error:
            if not isinstance(error, MxError | BackendUnavailable):
                log.exception("%s failed in a way that this worker does not know", command.what)
            settled = _without_frames(error)
            self.post(lambda: _fail(command.future, settled))
        else:
            self.post(lambda: _finish(command.future, result))

    def _refuse(self, error: OSError) -> None:
        """Fail every command, because there is no apartment."""
        self._is_over = True
        while (command := self._next()) is not None:
            self.post(lambda future=command.future: _fail(future, error))  # type: ignore[misc]


def _without_frames(error: Exception) -> Exception:
    """Return the error without the frames that it passed. They hold references to COM objects, which may only be
    released in the thread of the apartment.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _log_failure(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        log.error("the end of an apartment failed: %s", future.exception())


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
