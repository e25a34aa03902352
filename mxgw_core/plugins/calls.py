"""Every call into the code of a plugin goes through this module: hooks, and the objects that hooks have returned.

A call is counted and timed. Whatever it raises is a failure of its plugin, also `SystemExit` and `CancelledError`,
which would otherwise end the gateway or a session; only a `GatewayError`, which plugins raise on purpose, stays what it
is. An answer of the wrong type is a failure too (`mxgw_core.plugins.answers`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, cast

import pluggy

from mxgw_core.api.errors import GatewayError, PluginFailed
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.plugins.answers import ANSWERS, Check, WrongAnswer
from mxgw_core.plugins.arguments import copied
from mxgw_core.plugins.call_times import CallTimes, Tally
from mxgw_core.plugins.discovery import PluginRecord
from mxgw_core.plugins.loading import HOOKS, describe, text_of
from mxgw_core.plugins.refusals import REPORTS, plain_refusal

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Texts of exceptions from these hooks are not logged, because they can contain credentials.
_CREDENTIAL_HOOKS = frozenset({"mxgw_authenticate", "mxgw_authenticate_operator", "mxgw_renew_operator"})


class CallFailed(Exception):
    """A plugin failed. The failure is already counted and logged. The text names the plugin, and can be shown to
    callers.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__(f"plugin {owner.plugin!r} failed")
        self.owner = owner


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one plugin to one hook: a value that is not None, or the exception that the hook raised.

    `owner` calls the methods of `value`, if it is an object with methods.
    """

    plugin: str
    value: Any = None
    error: BaseException | None = None
    owner: Owner = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # `ask` always sets it


@dataclass(frozen=True, slots=True)
class Implementation:
    """The function with which a plugin implements a hook. `arguments` are those that it takes, in order."""

    plugin: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    owner: Owner


@dataclass(frozen=True, slots=True)
class _Hook:
    arguments: frozenset[str]
    firstresult: bool
    implementations: tuple[Implementation, ...]


# The plugin whose code runs now; None while the gateway's own code runs. Tasks that a plugin creates inherit it.
running: ContextVar[Owner | None] = ContextVar("mxgw_running_plugin", default=None)


@dataclass(frozen=True, slots=True)
class Owner:
    """A plugin, and the hook with which its code came into the gateway. Calls that code, and records what fails."""

    calls: PluginCalls = field(repr=False, compare=False)
    plugin: str
    hook: str
    tally: Tally = field(repr=False, compare=False)

    @contextmanager
    def at_work(self, what: str) -> Iterator[None]:
        """Count and time the block as one call of the plugin. `what` names it in the log.

        Exceptions pass through unchanged, and are not recorded.
        """
        token = running.set(self)
        span = self.calls.begin(self, what)
        try:
            yield
        finally:
            self.calls.end(span)
            running.reset(token)

    @contextmanager
    def contained(self, what: str, *, is_counted: bool = True) -> Iterator[None]:
        """Like `at_work`; and whatever the block raises is recorded as a failure of the plugin.

        Without `is_counted` the block is not counted and timed: this is done by its steps (`ContainedCoroutine`).

        Raises:
            GatewayError: raised by the block on purpose.
            PluginFailed: the plugin decides about access, and has failed.
            CallFailed: the block raised anything else.
            CancelledError: the block waits (not `is_counted`), and its task is being cancelled.
        """
        self._require_open()
        try:
            if is_counted:
                with self.at_work(what):
                    yield
            else:
                yield
        except CallFailed:
            raise
        except GatewayError as error:
            raise self._refusal(what, error) from error.__cause__
        except BaseException as error:
            # A block that waits is ended with one of these exceptions. A GeneratorExit of its own does not come here
            # (`ContainedCoroutine`).
            kind = type(error)
            if not is_counted and (
                issubclass(kind, GeneratorExit) or (issubclass(kind, asyncio.CancelledError) and _is_cancelling())
            ):
                raise
            self.failed(what, error)
            raise CallFailed(self) from error

    def call(
        self, what: str, check: Check | None, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Call a method of an object that the hook returned, and check its answer.

        Raises:
            GatewayError: raised by the method on purpose.
            PluginFailed: the plugin decides about access, and has failed.
            CallFailed: the method raised anything else, or gave a wrong answer.
        """
        self._require_open()
        # This does the same as `contained`, which takes longer.
        token = running.set(self)
        span = self.calls.begin(self, what)
        try:
            answer = function(*args, **kwargs)
            if check is not None:
                answer = check(answer)
            return answer
        except CallFailed:
            raise
        except GatewayError as error:
            raise self._refusal(what, error) from error.__cause__
        except BaseException as error:
            self.failed(what, error)
            raise CallFailed(self) from error
        finally:
            self.calls.end(span)
            running.reset(token)

    def _require_open(self) -> None:
        if self.calls.closed and (failure := self.calls.closed.get((self.plugin, self.hook))) is not None:
            raise failure()

    def _refusal(self, what: str, error: GatewayError) -> GatewayError | CallFailed:
        """Return the error for a `GatewayError` that the plugin raised: the same, unless it cannot be sent."""
        try:
            return plain_refusal(error)
        except BaseException as wrong:  # the error can be of a class of the plugin's own, with properties
            self.failed(what, wrong)
            return CallFailed(self)

    def failed(self, what: str, error: BaseException, *, is_logged: bool = False) -> None:
        """Record that `what`, a part of the plugin, raised an exception. With `is_logged`, only count it."""
        self.calls.failed(self, what, error, is_logged=is_logged)


class PluginCalls(CallTimes):
    """Calls plugins, and counts what they do. All methods but `prepare` can be called in any thread.

    `records` are the records of the plugins; they can change at any time.

    Attributes:
        closed: hooks that are not called any more, but fail. Key: a plugin and a hook. Value: makes the error.
    """

    def __init__(self, records: Mapping[str, PluginRecord]) -> None:
        super().__init__(records)
        self._failures: dict[tuple[str, str], int] = {}
        self._hooks: Mapping[str, _Hook] = {}
        self.closed: dict[tuple[str, str], Callable[[], PluginFailed]] = {}

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """Counts of failures. Key: a plugin and a hook. Value: how often this hook of this plugin failed, or an object
        that it returned.

        A `GatewayError` does not count, because plugins raise it on purpose.
        """
        return MappingProxyType(self._failures)

    def prepare(self, plugins: pluggy.PluginManager) -> None:
        """Store for each hook the functions of the plugins in the order of the calls, so that `ask` is quick."""
        prepared = {}
        for name in HOOKS:
            options = plugins.parse_hookspec_opts(Hooks, name)
            parameters = inspect.signature(getattr(Hooks, name)).parameters
            # pluggy's list is in the reverse of the order in which the functions must be called.
            found = reversed(getattr(plugins.hook, name).get_hookimpls())
            closed = {plugin for plugin, _ in self.closed}
            implementations = [i for i in found if i.plugin_name not in closed or (i.plugin_name, name) in self.closed]
            prepared[name] = _Hook(
                frozenset(parameters) - {"self"},
                bool(options and options["firstresult"]),
                tuple(
                    Implementation(i.plugin_name, i.function, tuple(i.argnames), self.owner(i.plugin_name, name))
                    for i in implementations
                ),
            )
        self._hooks = prepared

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """Return the functions that implement a hook, in the order of the calls.

        Raises:
            KeyError: there is no such hook.
        """
        return self._hooks[hook].implementations

    def owner(self, plugin: str, hook: str) -> Owner:
        """Return the owner of code that came from a hook of a plugin."""
        return Owner(self, plugin, hook, self.tally_of(plugin, hook))

    def ask(self, hook: str, arguments: Mapping[str, Any]) -> list[Answer]:
        """Call the hook of each plugin, beginning with the plugin that was loaded last. Return the answers in this
        order.

        When a hook returns None, there is no answer. When it raises an exception, or returns something else than its
        annotation says, the answer has an `error`. Such failures are counted, and the first one of each hook is logged
        as a warning; but a `GatewayError`, which plugins raise on purpose, is neither counted nor logged, unless
        the hook only reports what has happened. For a hook
        with `firstresult`, no further plugin is called after the first value or `GatewayError`.

        Each plugin gets its own copies of the arguments, so that no plugin can change what another one sees.

        Raises:
            KeyError: there is no such hook.
            TypeError: the arguments are not those of the hook.
        """
        prepared = self._hooks[hook]
        if arguments.keys() != prepared.arguments:
            raise TypeError(f"{hook} takes {sorted(prepared.arguments)}, not {sorted(arguments)}")
        answers: list[Answer] = []
        for implementation in prepared.implementations:
            answer = self._asked(hook, implementation, arguments)
            if answer is None:
                continue
            answers.append(answer)
            if prepared.firstresult and (answer.error is None or isinstance(answer.error, GatewayError)):
                break
        return answers

    def _asked(self, hook: str, implementation: Implementation, arguments: Mapping[str, Any]) -> Answer | None:
        owner = implementation.owner
        if (failure := self.closed.get((owner.plugin, hook))) is not None:
            return Answer(owner.plugin, error=failure(), owner=owner)
        own = [copied(arguments[name], owner.plugin) for name in implementation.arguments]
        token = running.set(owner)
        span = self.begin(owner, hook)
        try:
            value = implementation.function(*own)
            if value is None:
                return None
            value = ANSWERS[hook](value, arguments)
        except BaseException as error:
            if issubclass(type(error), GatewayError) and hook not in REPORTS:
                try:
                    return Answer(owner.plugin, error=plain_refusal(cast("GatewayError", error)), owner=owner)
                except BaseException as wrong:  # the error can be of a class of the plugin's own, with properties
                    error = wrong
            self.failed(owner, hook, error)
            if not _is_harmless(error):
                return Answer(owner.plugin, error=CallFailed(owner), owner=owner)
            return Answer(owner.plugin, error=error, owner=owner)
        finally:
            self.end(span)
            running.reset(token)
        return Answer(owner.plugin, value, owner=owner)

    def failed(self, owner: Owner, what: str, error: BaseException, *, is_logged: bool = False) -> None:
        """Count a failure of a plugin. If it is the first of this hook, log it as a warning, unless it `is_logged`."""
        with self._counting:
            key = owner.plugin, owner.hook
            count = self._failures[key] = self._failures.get(key, 0) + 1
        if is_logged:
            return
        text = f"{self.in_words(owner, what)} {words_of(error, with_text=owner.hook not in _CREDENTIAL_HOOKS)}"
        if count == 1:
            log.warning("%s; later ones are only counted", text)
        else:
            log.debug("%s, %d times now", text, count)


def words_of(error: BaseException, *, with_text: bool = True) -> str:
    """Return what a plugin did wrong, for example "raised ValueError: x (file:line)" or "returned a str, not int".

    With `with_text` false, the text of an exception that the plugin raised is left out (see `describe`).
    """
    is_wrong_answer = issubclass(type(error), WrongAnswer)
    return text_of(error) if is_wrong_answer else f"raised {describe(error, with_text=with_text)}"


def _is_harmless(error: BaseException) -> bool:
    """Return whether an exception can be looked at and shown, whatever its class is."""
    try:
        return error.__class__ is type(error) and isinstance(str(error), str) and bool(type(error).__name__)
    except BaseException:
        return False


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
