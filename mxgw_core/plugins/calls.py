"""Every call into the code of a plugin goes through this module, which counts, logs and attributes its failures."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pluggy

from mxgw_core.api.errors import GatewayError
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.plugins.discovery import PluginRecord
from mxgw_core.plugins.loading import HOOKS, describe

log = logging.getLogger(__name__)

# Texts of exceptions from these hooks are not logged, because they can contain credentials.
_CREDENTIAL_HOOKS = frozenset({"mxgw_authenticate", "mxgw_authenticate_operator", "mxgw_renew_operator"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one plugin to one hook: a value that is not None, or the exception that the hook raised."""

    plugin: str
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Implementation:
    """The function with which a plugin implements a hook. `arguments` are those that it takes, in order."""

    plugin: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Hook:
    arguments: frozenset[str]
    firstresult: bool
    implementations: tuple[Implementation, ...]


class PluginCalls:
    """Calls plugins, and counts what fails. All methods but `prepare` can be called in any thread.

    `records` are the records of the plugins; they can change at any time.
    """

    def __init__(self, records: Mapping[str, PluginRecord]) -> None:
        self._records = records
        self._failures: dict[tuple[str, str], int] = {}
        self._counting = threading.Lock()
        self._hooks: Mapping[str, _Hook] = {}

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """Counts of exceptions. Key: a plugin and a hook. Value: how many exceptions this hook of this plugin raised.

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
            implementations = reversed(getattr(plugins.hook, name).get_hookimpls())
            prepared[name] = _Hook(
                frozenset(parameters) - {"self"},
                bool(options and options["firstresult"]),
                tuple(Implementation(i.plugin_name, i.function, tuple(i.argnames)) for i in implementations),
            )
        self._hooks = prepared

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """Return the functions that implement a hook, in the order of the calls.

        Raises:
            KeyError: there is no such hook.
        """
        return self._hooks[hook].implementations

    def ask(self, hook: str, arguments: Mapping[str, Any]) -> list[Answer]:
        """Call the hook of each plugin, beginning with the plugin that was loaded last. Return the answers in this
        order.

        When a hook returns None, there is no answer. When it raises an exception, the answer has it as `error`.
        Exceptions are counted, and the first exception of each hook is logged as a warning; but a `GatewayError`, which
        plugins raise on purpose, is neither counted nor logged. For a hook with `firstresult`, no further plugin is
        called after the first value or `GatewayError`.

        Raises:
            KeyError: there is no such hook.
            TypeError: the arguments are not those of the hook.
        """
        prepared = self._hooks[hook]
        if arguments.keys() != prepared.arguments:
            raise TypeError(f"{hook} takes {sorted(prepared.arguments)}, not {sorted(arguments)}")
        answers: list[Answer] = []
        for implementation in prepared.implementations:
            try:
                value = implementation.function(*[arguments[name] for name in implementation.arguments])
            except GatewayError as error:
                answers.append(Answer(implementation.plugin, error=error))
                if prepared.firstresult:
                    break
            except Exception as error:
                self.failed(implementation.plugin, hook, error)
                answers.append(Answer(implementation.plugin, error=error))
            else:
                if value is not None:
                    answers.append(Answer(implementation.plugin, value))
                    if prepared.firstresult:
                        break
        return answers

    def failed(self, plugin: str, hook: str, error: Exception) -> None:
        """Count an exception of a plugin, and log it as a warning if it is the first of this hook."""
        with self._counting:
            count = self._failures[plugin, hook] = self._failures.get((plugin, hook), 0) + 1
        distribution = self._records[plugin].distribution
        what = describe(error, with_text=hook not in _CREDENTIAL_HOOKS)
        if count == 1:
            log.warning("plugin %s (%s): %s raised %s; later ones are only counted", plugin, distribution, hook, what)
        else:
            log.debug("plugin %s (%s): %s raised %s, %d times now", plugin, distribution, hook, what, count)
