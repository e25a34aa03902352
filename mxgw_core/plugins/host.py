"""Loads the enabled plugins in order, and calls each plugin separately, so that no plugin can disturb another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from mxgw_core.api.access import ACCESS_HOOKS
from mxgw_core.api.errors import PluginError, PluginFailed, SettingsError
from mxgw_core.api.hookspecs import PROJECT, Hooks
from mxgw_core.config.models import Settings
from mxgw_core.config.problems import nearest
from mxgw_core.plugins import discovery
from mxgw_core.plugins.call_times import LOADING
from mxgw_core.plugins.calls import Answer, PluginCalls
from mxgw_core.plugins.discovery import (
    ACCESS_GROUP,
    GROUP,
    AccessDeclarations,
    Installed,
    PluginRecord,
    PluginState,
)
from mxgw_core.plugins.loading import HOOKS, LoadFailure, access_hooks_of, describe, imported, made, register, text_of
from mxgw_core.plugins.section import apply_section
from mxgw_core.plugins.watching import CallWatch

log = logging.getLogger(__name__)


class PluginHost:
    """The loaded plugins. Make a host with `load`. All methods but `fail` can be called in any thread.

    Attributes:
        calls: calls the hooks of the loaded plugins; also for the objects that hooks have returned.
        unread: distributions that could not be read. Key: the directory of its metadata. Value: why.
    """

    def __init__(self) -> None:
        self._plugins = pluggy.PluginManager(PROJECT)
        self._plugins.add_hookspecs(Hooks)
        self._records: dict[str, PluginRecord] = {}
        self.calls = PluginCalls(self._records)
        self.unread: Mapping[str, str] = {}
        self._prepare()

    @classmethod
    def load(
        cls,
        settings: Settings,
        *,
        origins: Mapping[str, str] | None = None,
        keep_going: bool = False,
        end: Callable[[str], None] | None = None,
    ) -> PluginHost:
        """Import, register and configure the plugins that `plugins.enabled` names, in this order.

        `origins` are those of `LoadedSettings`; errors contain them. With `keep_going`, no error is raised: each plugin
        that cannot be used gets a `PluginRecord` with the state FAILED. This is used to list the plugins. When
        loading a plugin hangs, `end` ends the process (`CallWatch`).

        Raises:
            SettingsError: the section of a plugin is wrong. The text reports the problems of all plugins at once.
            PluginError: a plugin that is required or decides about access cannot be used, or no distribution or several
                have an enabled plugin.
        """
        host = cls()
        host.calls.slow_call_s = settings.plugins.slow_call_ms / 1000
        found = discovery.installed()
        installed, access = found.entries, found.access
        host.unread = found.broken
        for place, why in found.broken.items():
            log.warning("the distribution at %s cannot be read, so its plugins are not known: %s", place, why)
        settings_problems: list[str] = []
        fatal: list[str] = []
        for name in settings.plugins.enabled:
            entries = installed.get(name, ())
            # What is not installed, or not known for sure, can be what decides about access.
            required = name in settings.plugins.required or len(entries) != 1
            origin = discovery.origin_of(entries[0]) if len(entries) == 1 else ("", "")
            host._records[name] = PluginRecord(name, PluginState.LOADED, *origin, required=required)
            try:
                with host._loading(name, settings, end):
                    host._load_one(name, entries, found, settings, origins or {})
            except SettingsError as error:
                text = text_of(error) or "a SettingsError without a text"
                settings_problems.append(text)
                host._refuse(name, f"its settings are wrong: {text.splitlines()[0]}")
            except LoadFailure as error:
                log.debug("plugin %s failed to load", name, exc_info=error)
                host._refuse(name, str(error))
                if host._records[name].required:
                    fatal.append(sentence_of(host._records[name]))
            else:
                log.info("plugin %s loaded from %s", name, " ".join(origin))
        for name, entries in installed.items():
            host._records.setdefault(name, discovery.available(name, entries, access))
        _warn_about_orphaned_sections(settings, installed)
        host._prepare()
        if not keep_going:
            if settings_problems:
                raise SettingsError("\n".join(settings_problems + fatal))
            if fatal:
                raise PluginError("\n".join(fatal))
        return host

    def add(self, name: str, plugin: object) -> None:
        """Register a plugin of the program that runs the gateway, which no distribution needs to offer. It is required.

        Call this before the gateway is made.

        Raises:
            PluginError: it is not a plugin, or its name is taken.
        """
        if self._plugins.has_plugin(name):
            raise PluginError(f"a plugin {name!r} is loaded already")
        try:
            register(self._plugins, plugin, name)
        except LoadFailure as error:
            raise PluginError(f"plugin {name!r} cannot be used: {error}") from error
        access = bool(access_hooks_of(plugin))
        self._records[name] = PluginRecord(name, PluginState.LOADED, "", "", required=True, controls_access=access)
        self._prepare()

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """The enabled plugins in the order of the settings, then the other installed plugins, sorted by name."""
        return tuple(self._records.values())

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """Counts of exceptions. Key: a plugin and a hook. Value: how many exceptions this hook of this plugin raised.

        A `GatewayError` does not count, because plugins raise it on purpose.
        """
        return self.calls.failures

    @property
    def modules(self) -> Mapping[str, Set[str]]:
        """The modules in which the hooks of the loaded plugins are defined. Key: a plugin. Value: names of modules."""
        found: dict[str, set[str]] = {}
        for hook in HOOKS:
            for implementation in self.calls.implementations(hook):
                found.setdefault(implementation.plugin, set()).add(implementation.function.__module__)
        return found

    def source_of(self, plugin: str) -> str:
        """Return name and version of a plugin's distribution, for logs; the plugin's name when both are unknown."""
        record = self._records[plugin]
        return f"{record.distribution} {record.version}".strip() or plugin

    def implements(self, hook: str) -> bool:
        """Return whether any loaded plugin implements the hook."""
        return bool(self.calls.implementations(hook))

    def hooks_of(self, plugin: str) -> Sequence[str]:
        """Return the hooks that a plugin implements. The sequence is empty when the plugin is not loaded."""
        return [name for name in HOOKS if any(i.plugin == plugin for i in self.calls.implementations(name))]

    def plugin(self, name: str) -> object:
        """Return the plugin itself: the object whose hooks are called.

        Raises:
            LookupError: no plugin of this name is loaded.
        """
        found: object = self._plugins.get_plugin(name)
        if found is None:
            raise LookupError(f"no plugin {name!r} is loaded; loaded are {', '.join(self._loaded()) or 'none'}")
        return found

    def _loaded(self) -> list[str]:
        return sorted(name for name, record in self._records.items() if record.state is PluginState.LOADED)

    def ask(self, hook: str, /, **arguments: Any) -> list[Answer]:
        """Call the hook of each plugin, and return the answers. See `PluginCalls.ask`."""
        return self.calls.ask(hook, arguments)

    def fail(self, plugin: str, detail: str) -> None:
        """Mark a loaded plugin as FAILED. Its hooks are not called any more. Call this in the event loop only.

        Raises:
            PluginError: the plugin is required, so the gateway must not start.
        """
        self._refuse(plugin, detail)
        self._prepare()
        if self._records[plugin].required:
            raise PluginError(sentence_of(self._records[plugin]))

    def take_down(self, plugin: str, detail: str) -> PluginRecord:
        """Mark a plugin as FAILED that fails while the gateway serves. Its hooks are not called any more; but when the
        plugin decides about access, each access hook fails with an error, so that what it decides is denied.

        Return the record of the plugin. Call this in the event loop only.
        """
        record = self._records[plugin] = replace(self._records[plugin], state=PluginState.FAILED, detail=detail)
        if record.controls_access:
            for hook in ACCESS_HOOKS.intersection(self.hooks_of(plugin)):
                self.calls.closed[plugin, hook] = partial(self.failure, plugin)
            log.error(
                "%s. What it decides is denied from now on, and health checks are answered NOT_SERVING. Correct the "
                "cause, and restart the gateway",
                sentence_of(record),
            )
        else:
            self._plugins.unregister(name=plugin)
            log.warning("%s. Its hooks are not called any more until a restart of the gateway", sentence_of(record))
        self._prepare()
        return record

    def has_failed(self, plugin: str) -> bool:
        """Return whether a plugin has failed, at the start or while the gateway serves."""
        return self._records[plugin].state is PluginState.FAILED

    def explain(self, plugin: str, detail: str) -> None:
        """Replace the reason why a plugin has failed by one that became known later."""
        self._records[plugin] = replace(self._records[plugin], detail=detail)

    def failure(self, plugin: str) -> PluginFailed:
        """Return a new error for a call that needs a plugin that has failed."""
        text = f"the plugin {plugin!r} of the gateway has failed; it works again after a restart of the gateway"
        if self._records[plugin].controls_access:
            text += ", and until then all that it decides is denied"
        return PluginFailed(text, metadata={"plugin": plugin})

    def check(self, hook: str) -> None:
        """Make sure that no plugin has failed that decides by this access hook.

        Raises:
            PluginFailed: such a plugin has failed.
        """
        if (failure := self._closed(hook)) is not None:
            raise failure()

    def is_open(self, hook: str) -> bool:
        """Return whether no plugin has failed that decides by this access hook."""
        return self._closed(hook) is None

    def _closed(self, hook: str) -> Callable[[], PluginFailed] | None:
        return next((failure for (_, closed), failure in self.calls.closed.items() if closed == hook), None)

    @contextmanager
    def _loading(self, name: str, settings: Settings, end: Callable[[str], None] | None) -> Iterator[None]:
        """Name the plugin when the block, which loads it, hangs, and end the process if it is the gateway's own."""
        watch = CallWatch(self.calls, settings.plugins.start_timeout_s, end)
        with watch, self.calls.owner(name, LOADING).at_work(LOADING):
            yield

    def _load_one(
        self,
        name: str,
        entries: Sequence[EntryPoint],
        found: Installed,
        settings: Settings,
        origins: Mapping[str, str],
    ) -> None:
        if not entries:
            raise LoadFailure(_not_installed(name, found))
        if len(entries) > 1:
            raise LoadFailure(discovery.clash(name, entries))
        entry, access = entries[0], found.access
        mistake = access.mistake(entry)
        if mistake or access.has(entry):
            self._mark_access(name)
        if mistake:
            raise LoadFailure(mistake)
        try:
            self._register(name, entry, access)
        except (LoadFailure, KeyboardInterrupt):
            raise
        except BaseException as error:  # for example a property of the plugin that raises
            raise LoadFailure(f"registering it raised {describe(error)}") from error
        declared = None
        for implementation in self.calls.implementations("mxgw_settings"):
            if implementation.plugin == name:
                try:
                    declared = implementation.function()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    raise LoadFailure(f"mxgw_settings raised {describe(error)}") from error
        table = settings.plugin_sections.get(name, {})
        try:
            apply_section(name, declared, table, origins, settings.gateway.data_dir.absolute())
        except (SettingsError, LoadFailure, KeyboardInterrupt):
            raise
        except BaseException as error:  # for example a property of the section that raises
            raise LoadFailure(f"its mxgw_settings gave something that raised {describe(error)}") from error

    def _register(self, name: str, entry: EntryPoint, access: AccessDeclarations) -> None:
        found = imported(entry)
        # The hooks of the class are known also when the constructor fails.
        self._check_access(name, entry, found, access)
        plugin = made(found)
        self._check_access(name, entry, plugin, access)
        register(self._plugins, plugin, name)
        self._prepare()

    def _check_access(self, name: str, entry: EntryPoint, plugin: object, access: AccessDeclarations) -> None:
        """Refuse a plugin that decides about access, and whose distribution does not say so."""
        hooks = access_hooks_of(plugin)
        if hooks and not access.has(entry):
            self._mark_access(name)
            raise LoadFailure(
                f"it has {hooks[0]}, and its distribution does not say that it decides about access. Add to its "
                f"pyproject.toml, and install it again: {discovery.access_line(entry)}"
            )

    def _mark_access(self, name: str) -> None:
        self._records[name] = replace(self._records[name], required=True, controls_access=True)

    def _refuse(self, name: str, detail: str) -> None:
        if self._plugins.has_plugin(name):
            self._plugins.unregister(name=name)
        record = self._records[name] = replace(self._records[name], state=PluginState.FAILED, detail=detail)
        log.warning("%s", sentence_of(record))

    def _prepare(self) -> None:
        self.calls.prepare(self._plugins)


def sentence_of(record: PluginRecord) -> str:
    """Return the sentence that reports that a plugin has failed, with its distribution and the reason."""
    source = f" of {record.distribution} {record.version}" if record.distribution else ""
    if record.controls_access:
        return f"plugin {record.name!r}{source}, which decides about access, cannot be used: {record.detail}"
    need = "required plugin" if record.required else "plugin"
    return f"{need} {record.name!r}{source} cannot be used: {record.detail}"


def _not_installed(name: str, found: Installed) -> str:
    if found.broken:
        unread = " and ".join(f"{place} ({why})" for place, why in found.broken.items())
        return (
            f"no distribution that can be read offers it, and this one cannot be read: {unread}. Install it again, or "
            "remove it"
        )
    if distributions := found.access.without_plugin(name):
        return f"{distributions} has it in the entry points {ACCESS_GROUP!r} and not in {GROUP!r}: both need the line"
    match = nearest(name, found.entries)
    return (
        "is it installed? No distribution offers a plugin of this name"
        + (f"; did you mean {match!r}?" if match else "; `mxgw plugins` lists those that are there.")
        + " A gateway starts only when all enabled plugins are installed, because a missing one could decide about "
        "access: install it, or take it out of plugins.enabled"
    )


def _warn_about_orphaned_sections(settings: Settings, installed: Mapping[str, object]) -> None:
    for name in settings.plugin_sections:
        if name not in settings.plugins.enabled and name not in installed:
            match = nearest(name, (*settings.plugins.enabled, *installed))
            log.warning(
                "settings section [plugins.%s] belongs to no installed plugin%s",
                name,
                f"; did you mean {match!r}?" if match else "",
            )
