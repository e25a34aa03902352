"""Contains what plugins do asynchronously: in the methods of their services, in their contexts, and in their own tasks.

asyncio ends the event loop, and the gateway with it, when a task raises SystemExit or KeyboardInterrupt. So a coroutine
of a plugin runs inside a `ContainedCoroutine`, which turns them into ordinary exceptions. It also times each step of
the coroutine: nothing else runs during a step, just as during the call of a hook.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from mxgw_core.plugins.answers import Check, WrongAnswer
from mxgw_core.plugins.calls import CallFailed, Owner, running
from mxgw_core.plugins.loading import describe

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# How long after the end of a task somebody can still fetch its exception, before it is reported.
_FETCH_S = 1.0


class ContainedCoroutine(Coroutine[Any, Any, _T]):
    """A coroutine of a plugin, as a coroutine that raises exceptions of the class `Exception` only, or CancelledError.

    `what` names the coroutine in the log.

    Raises:
        CallFailed: the coroutine raised SystemExit or the like. This is recorded as a failure of the plugin.
        CancelledError: the task was cancelled, or the coroutine raised it by itself: whoever awaits it can see which.
        Exception: what the coroutine raised. This is not recorded here.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, _T], owner: Owner, what: str) -> None:
        self._coroutine = coroutine
        self.owner = owner
        self.what = what

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        del val, tb  # asyncio passes an exception only
        return self._step(self._coroutine.throw, typ)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, _T]:
        return self  # it has all methods of a generator that `await` uses

    def __iter__(self) -> ContainedCoroutine[_T]:
        return self

    def __next__(self) -> Any:
        return self._step(self._coroutine.send, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # for debuggers: `cr_frame` and the like

    def _step(self, function: Callable[[Any], Any], argument: Any) -> Any:
        owner = self.owner
        token = running.set(owner)
        span = owner.calls.begin(owner, self.what)
        try:
            return function(argument)
        except (Exception, asyncio.CancelledError):  # StopIteration too: this is how a coroutine returns
            raise
        except BaseException as error:
            owner.failed(self.what, error)
            raise CallFailed(owner) from error
        finally:
            owner.calls.end(span)
            running.reset(token)


def plugin_task(owner: Owner, what: str, coroutine: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
    """Return a new task that runs a coroutine of a plugin. See `ContainedCoroutine` for what it raises."""
    context = contextvars.copy_context()
    context.run(running.set, owner)
    contained = ContainedCoroutine(coroutine, owner, what)
    return asyncio.get_running_loop().create_task(contained, name=name, context=context)


async def called(owner: Owner, what: str, check: Check, function: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
    """Call a coroutine method of an object of a plugin in this task, check its result, and return it.

    Raises:
        GatewayError: raised by the method on purpose.
        CallFailed: the method raised anything else, or returned something wrong; or it raised a CancelledError,
            although this task was not cancelled.
        CancelledError: this task was cancelled.
    """
    with owner.contained(what, is_counted=False):
        with owner.at_work(what):
            waiting = function(*arguments)
        if not inspect.isawaitable(waiting):
            raise WrongAnswer(f"returned a {type(waiting).__qualname__}; it must be a coroutine method")
        del arguments  # the method alone decides how long it holds a large request
        coroutine = waiting if inspect.iscoroutine(waiting) else _awaited(waiting)
        del waiting
        contained = ContainedCoroutine(coroutine, owner, what)
        del coroutine
        result: _T = check(await contained)
        return result


async def _awaited(waiting: Awaitable[_T]) -> _T:
    return await waiting


def contain_tasks(loop: asyncio.AbstractEventLoop, fetch_s: float = _FETCH_S) -> None:
    """Make an event loop contain the tasks that plugins create by themselves, from now on.

    When nobody fetches the exception of such a task within `fetch_s` seconds after its end, or before the task is
    deleted, the exception is recorded as a failure of the plugin, once.
    """
    before = loop.get_task_factory()
    if isinstance(before, _TaskFactory):
        return
    loop.set_task_factory(_TaskFactory(before, fetch_s))
    report = loop.get_exception_handler()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not _recorded(context):
            if report is None:
                loop.default_exception_handler(context)
            else:
                report(loop, context)

    loop.set_exception_handler(handler)


class _TaskFactory:
    """Makes tasks; the coroutine of a task that a plugin creates becomes a `ContainedCoroutine`."""

    def __init__(self, before: Callable[..., Any] | None, fetch_s: float) -> None:
        self._before = before
        self._fetch_s = fetch_s

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        context = options.get("context")
        owner = running.get() if context is None else context.get(running)
        of_plugin = owner is not None and not isinstance(coroutine, ContainedCoroutine)
        if of_plugin:
            assert owner is not None
            coroutine = ContainedCoroutine(coroutine, owner, f"a task ({_name_of(coroutine)})")
        if self._before is None:
            task = asyncio.Task(coroutine, loop=loop, **options)
        else:
            task = self._before(loop, coroutine, **options)
        if of_plugin:
            task.add_done_callback(self._ended, context=contextvars.Context())
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        # asyncio itself reports the exception only when the task is deleted, and plugins often keep their tasks.
        if _is_unfetched(task):
            reference = weakref.ref(task)
            task.get_loop().call_later(self._fetch_s, _report, reference, context=contextvars.Context())


def _is_unfetched(task: asyncio.Task[Any]) -> bool:
    """Return whether a task has an exception that nobody has fetched yet."""
    # There is no public way to ask this. Where asyncio lacks the attribute, the exception is reported later.
    return bool(getattr(task, "_log_traceback", False))


def _report(reference: weakref.ref[asyncio.Task[Any]]) -> None:
    task = reference()
    if task is not None and _is_unfetched(task):
        _recorded({"task": task, "exception": task.exception()})


def _name_of(coroutine: Any) -> str:
    return str(getattr(coroutine, "__qualname__", type(coroutine).__qualname__))


def _recorded(context: dict[str, Any]) -> bool:
    """Record an exception that asyncio reports, if it belongs to a plugin. Return whether it does."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return False
    if issubclass(type(error), CallFailed):
        return True  # recorded already
    if (generator := context.get("asyncgen")) is not None:
        # The loop closes all of them at its end. One of a context that was left behind still runs.
        log.warning("an asynchronous generator, %s, did not end: %s", _name_of(generator), describe(error))
        return True
    coroutine = getattr(context.get("task") or context.get("future"), "get_coro", lambda: None)()
    if isinstance(coroutine, ContainedCoroutine):
        coroutine.owner.failed(coroutine.what, error)
        return True
    origin = getattr(context.get("handle"), "_context", None)
    owner = origin.get(running) if isinstance(origin, contextvars.Context) else None
    if owner is None:
        return False
    owner.failed("a callback in the event loop", error)
    return True
