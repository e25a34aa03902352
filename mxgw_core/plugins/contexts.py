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
from mxgw_core.plugins.loading import describe
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
    ENDED = 4


class _Held:
    """One context, and the task that enters, holds and leaves it."""

    def __init__(self, owner: Owner, manager: AbstractAsyncContextManager[object]) -> None:
        self.owner = owner
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
            self.task.cancel()
        elif self.state is _State.HELD:
            self.state = _State.LEAVING
            self._leave.set()

    async def _run(self) -> None:
        try:
            async with self._manager:
                self.state = _State.HELD
                self.begun.set()
                await self._leave.wait()
        except BaseException as error:  # a plugin can raise SystemExit too, and a CancelledError of its own
            self.error = error
        self.begun.set()

    async def ended(self, timeout_s: float) -> bool:
        """Wait until the task has ended, but not longer than `timeout_s`; return whether it has ended."""
        await asyncio.wait((self.task,), timeout=timeout_s)
        return self.task.done()


class PluginContexts:
    """The contexts of all plugins. Lives in the event loop.

    Args:
        start_timeout_s: how long entering a context may take.
        stop_timeout_s: how long leaving a context may take, and the clean-up of a context that was not entered in time.
        on_failure: called with a plugin and a text when its context ends while it is held.
    """

    def __init__(self, start_timeout_s: float, stop_timeout_s: float, on_failure: Callable[[str, str], None]) -> None:
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._on_failure = on_failure
        self._contexts: dict[str, _Held] = {}
        self._left_behind: list[str] = []

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
        held = self._contexts[owner.plugin] = _Held(owner, manager)
        held.task.add_done_callback(lambda _: self._ended(held), context=contextvars.Context())
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await held.begun.wait()
        except TimeoutError:
            if held.state is _State.ENTERING and held.error is None:
                del self._contexts[owner.plugin]
                held.task.cancel()
                await self._cut_off(held, self._stop_timeout_s)
                raise ContextFailed(
                    f"its context was not entered within {self._start_timeout_s:g} s (plugins.start_timeout_s)"
                ) from None
        if held.state is _State.ENTERING:
            del self._contexts[owner.plugin]
            if isinstance(held.error, SettingsError):
                raise held.error
            raise ContextFailed(f"entering its context raised {describe(_cause_of(held.error))}") from held.error

    async def leave(self, plugin: str) -> None:
        """Leave the context of a plugin, if it has one. What goes wrong is logged."""
        held = self._contexts.pop(plugin, None)
        if held is None or held.task.done():
            return
        was_held = held.state is _State.HELD
        held.leave()
        if not await held.ended(self._stop_timeout_s):
            words = held.owner.calls.in_words(held.owner, held.owner.hook)
            log.warning(
                "%s was not left within %g s (plugins.stop_timeout_s); it is cancelled", words, self._stop_timeout_s
            )
            held.task.cancel()
            await self._cut_off(held, min(_CANCEL_S, self._stop_timeout_s))
        elif was_held:
            _record(held)

    async def leave_all(self) -> None:
        """Leave all contexts, in the reverse of the order in which they were entered."""
        for plugin in reversed(list(self._contexts)):
            await self.leave(plugin)

    def _ended(self, held: _Held) -> None:
        state, held.state = held.state, _State.ENDED if held.state is not _State.ENTERING else held.state
        if state is not _State.HELD:
            return
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
    if held.error is not None and not isinstance(only_error(held.error), CallFailed):  # the latter is recorded already
        held.owner.failed(held.owner.hook, _cause_of(held.error))


def _cause_of(error: BaseException | None) -> BaseException:
    assert error is not None
    error = only_error(error)
    return error.__cause__ if isinstance(error, CallFailed) and error.__cause__ is not None else error
