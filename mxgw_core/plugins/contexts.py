"""Enters, holds and leaves the contexts of plugins (hook `mxgw_gateway_context`), each in a task of its own.

A context of a plugin often holds a task group. When a task of such a group fails, asyncio cancels the task that has
entered the context. So this task belongs to the plugin alone: then only the plugin fails.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from mxgw_core.api.errors import SettingsError
from mxgw_core.exception_groups import only_error
from mxgw_core.plugins.calls import CallFailed, Owner
from mxgw_core.plugins.loading import describe, text_of
from mxgw_core.plugins.tasks import ContainedCoroutine, plugin_task

log = logging.getLogger(__name__)

# A context that could not be left in time is cancelled, and then has this time, or `stop_timeout_s` if that is shorter.
_CANCEL_S = 1.0


class ContextFailed(Exception):
    """A context could not be entered. The text says why."""


class _State(enum.Enum):
    ENTERING = 1
    HELD = 2
    LEAVING = 3
    # The context was not entered in time, or its task was cancelled, although the gateway did not ask for it.
    LOST = 4
    ENDED = 5


class _Held:
    """One context, and the task that enters, holds and leaves it."""

    def __init__(
        self, owner: Owner, manager: AbstractAsyncContextManager[object], on_loss: Callable[[_Held], None]
    ) -> None:
        self.owner = owner
        self._on_loss = on_loss
        self.state = _State.ENTERING
        self.error: BaseException | None = None
        self._manager = manager
        # Set by the task when the context is entered, or when the task ends.
        self.begun = asyncio.Event()
        # Set by `leave`.
        self._leave = asyncio.Event()
        self.task = plugin_task(owner, owner.hook, self._run(), name=f"plugin:{owner.plugin}")

    def leave(self) -> None:
        if self.state is _State.ENTERING:
            self.give_up()
        elif self.state is _State.HELD:
            self.state = _State.LEAVING
            self._leave.set()

    def give_up(self) -> None:
        """Cancel the entering. A context that completes it nevertheless is left at once."""
        self.state = _State.LOST
        self._leave.set()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            async with self._manager:
                if self.state is _State.ENTERING:
                    self.state = _State.HELD
                self.begun.set()
                await self._hold()
        except BaseException as error:  # a plugin can raise SystemExit too, and a CancelledError of its own
            self.error = error
        self.begun.set()

    async def _hold(self) -> None:
        try:
            await self._leave.wait()
        except asyncio.CancelledError:
            # The plugin has failed now. How long its context takes to end is not known.
            if self.state is _State.HELD:
                self.task.get_loop().call_soon(self._on_loss, self, context=contextvars.Context())
            raise

    async def ended(self, timeout_s: float) -> bool:
        """Wait until the task has ended, but not longer than `timeout_s`; return whether it has ended."""
        await asyncio.wait((self.task,), timeout=timeout_s)
        return self.task.done()


class PluginContexts:
    """The contexts of all plugins. Lives in the event loop.

    Args:
        start_timeout_s: how long entering a context may take.
        stop_timeout_s: how long leaving a context may take, and the clean-up of a context that was not entered in time.
        on_failure: called with a plugin and a text when its context ends while it is held, or its task is cancelled
            without the gateway having asked for it. Then it is called a second time when the cause is known.
    """

    def __init__(self, start_timeout_s: float, stop_timeout_s: float, on_failure: Callable[[str, str], None]) -> None:
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._on_failure = on_failure
        self._contexts: dict[str, _Held] = {}
        self._left_behind: list[str] = []
        # Key: a plugin whose context is lost. Value: waits until it has ended.
        self._endings: dict[str, asyncio.Task[None]] = {}

    @property
    def left_behind(self) -> tuple[str, ...]:
        """The plugins whose contexts could neither be left nor cancelled. Their tasks are still there."""
        return tuple(self._left_behind)

    async def enter(self, owner: Owner, manager: AbstractAsyncContextManager[object]) -> None:
        """Enter the context of a plugin, and hold it until `leave`.

        Raises:
            ContextFailed: the context could not be entered, or not in time.
            SettingsError: raised by the context.
        """
        held = self._contexts[owner.plugin] = _Held(owner, manager, self._lost)
        held.task.add_done_callback(lambda _: self._ended(held), context=contextvars.Context())
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await held.begun.wait()
        except TimeoutError:
            if held.state is _State.ENTERING and held.error is None:
                del self._contexts[owner.plugin]
                held.give_up()
                await self._cut_off(held, self._stop_timeout_s)
                raise ContextFailed(
                    f"its context was not entered within {self._start_timeout_s:g} s (plugins.start_timeout_s)"
                ) from None
        if held.state is _State.ENTERING:
            del self._contexts[owner.plugin]
            if issubclass(type(held.error), SettingsError):
                raise SettingsError(text_of(held.error) or describe(_cause_of(held.error))) from held.error
            raise ContextFailed(f"entering its context raised {describe(_cause_of(held.error))}") from held.error

    async def leave(self, plugin: str) -> None:
        """Leave the context of a plugin, if it has one. What goes wrong is logged."""
        held = self._contexts.pop(plugin, None)
        if held is None or held.task.done():
            return
        was_held = held.state is _State.HELD
        held.leave()
        if await self._ends_in_time(held) and was_held:
            _record(held)

    async def leave_all(self) -> None:
        """Leave all contexts, in the reverse of the order in which they were entered."""
        for plugin in reversed(list(self._contexts)):
            await self.leave(plugin)
        if self._endings:
            await asyncio.wait(self._endings.values())

    def _lost(self, held: _Held) -> None:
        """Report that the task of a held context was cancelled, and bound the time that its clean-up takes.

        A task group cancels it when one of its tasks fails, and then waits for the others.
        """
        if held.state is not _State.HELD or held.task.done():  # the end of the task is reported by `_ended`
            return
        held.state = _State.LOST
        plugin = held.owner.plugin
        self._contexts.pop(plugin, None)
        ending = self._endings[plugin] = asyncio.get_running_loop().create_task(
            self._end_lost(held), name=f"gateway:lost-{plugin}"
        )
        ending.add_done_callback(lambda _: self._endings.pop(plugin, None))
        self._on_failure(plugin, "its context was cancelled, because a task in it has failed or has cancelled it")

    async def _end_lost(self, held: _Held) -> None:
        await self._ends_in_time(held)
        if held.error is not None and not issubclass(type(held.error), asyncio.CancelledError):
            _record(held)
            self._on_failure(held.owner.plugin, f"its context raised {describe(_cause_of(held.error))}")

    async def _ends_in_time(self, held: _Held) -> bool:
        """Wait until a context that is being left has ended. If this takes too long, cancel it, and return false."""
        if await held.ended(self._stop_timeout_s):
            return True
        words = held.owner.calls.in_words(held.owner, held.owner.hook)
        log.warning(
            "%s was not left within %g s (plugins.stop_timeout_s); it is cancelled", words, self._stop_timeout_s
        )
        held.task.cancel()
        await self._cut_off(held, min(_CANCEL_S, self._stop_timeout_s))
        return False

    def _ended(self, held: _Held) -> None:
        if held.state is not _State.HELD:
            return
        held.state = _State.ENDED
        if held.error is None:
            self._on_failure(held.owner.plugin, "its context ended by itself")
            return
        _record(held)
        self._on_failure(held.owner.plugin, f"its context raised {describe(_cause_of(held.error))}")

    async def _cut_off(self, held: _Held, timeout_s: float) -> None:
        """Wait until a task that was cancelled has ended. If it does not end, leave it behind."""
        if await held.ended(timeout_s):
            return
        plugin = held.owner.plugin
        self._left_behind.append(plugin)
        log.error(
            "%s does not end when it is cancelled; it is left behind",
            held.owner.calls.in_words(held.owner, held.owner.hook),
        )
        # The event loop would wait for these tasks when it is closed.
        for task in asyncio.all_tasks():
            coroutine = task.get_coro()
            if isinstance(coroutine, ContainedCoroutine) and coroutine.owner.plugin == plugin:
                asyncio._unregister_task(task)
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # there is no public way


def _record(held: _Held) -> None:
    if held.error is not None and not issubclass(type(only_error(held.error)), CallFailed):  # it is recorded already
        held.owner.failed(held.owner.hook, _cause_of(held.error))


def _cause_of(error: BaseException | None) -> BaseException:
    assert error is not None
    error = only_error(error)
    return error.__cause__ if issubclass(type(error), CallFailed) and error.__cause__ is not None else error
