"""Loads settings and plugins for a command in the same way as the gateway does, and reports problems as text."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import click

from mxgw_cli.commands import COMMANDS
from mxgw_cli.options import SettingsChoice
from mxgw_cli.shell import CliFailure
from mxgw_core.api.errors import MxgwError, SettingsError
from mxgw_core.config.loader import LoadedSettings, load_settings
from mxgw_core.plugins import PluginHost, PluginState, watching
from mxgw_core.plugins.calls import words_of
from mxgw_core.printable import printable


def loaded(choice: SettingsChoice, overrides: Mapping[str, object] | None = None) -> LoadedSettings:
    """Return the settings of `choice`. `overrides` replace values of files, but not values of the command line.

    Raises:
        CliFailure: the settings have problems; the text has one line per problem.
    """
    try:
        return load_settings(choice.file, overrides={**(overrides or {}), **choice.overrides})
    except SettingsError as error:
        problems = str(error).splitlines()
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CliFailure(
            f"the settings have {count}:\n  " + "\n  ".join(problems),
            hint="`mxgw config show` lists settings that can be loaded, with where each comes from; the names and "
            "ranges of all are in docs/configuration.md.",
        ) from None


@dataclass(frozen=True, slots=True)
class PluginCommands:
    """The commands that plugins add to `mxgw`.

    Attributes:
        commands: Key: name of the command. Value: the command.
        owners: Key: name of the command. Value: the plugin that adds the command.
        problems: one sentence per problem.
        available: installed plugins that the settings do not enable.
        sources: Key: name of the command. Value: the command in words, with its plugin and the plugin's distribution.
    """

    commands: dict[str, click.Command]
    owners: dict[str, str]
    problems: tuple[str, ...]
    available: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


def plugin_commands(choice: SettingsChoice) -> PluginCommands:
    """Return the commands of the plugins that the settings enable.

    Problems of settings and plugins do not raise exceptions; the result lists them.
    """
    try:
        result = load_settings(choice.file, overrides=choice.overrides)
        with quiet():
            host = PluginHost.load(result.settings, origins=result.origins, keep_going=True)
    except SettingsError as error:
        return PluginCommands({}, {}, tuple(str(error).splitlines()))
    return commands_of(host)


def commands_of(host: PluginHost) -> PluginCommands:
    """Ask every loaded plugin for its commands.

    A plugin cannot replace a command of mxgw. When two plugins add commands of the same name, the first plugin wins.
    """
    taken = {name: "mxgw" for section in COMMANDS.values() for name in section}
    commands: dict[str, click.Command] = {}
    owners: dict[str, str] = {}
    sources: dict[str, str] = {}
    problems = [
        f"plugin {record.name} cannot be used: {printable(record.detail, 500)}"
        for record in host.records
        if record.state is PluginState.FAILED
    ]
    with quiet():
        answers = host.ask("mxgw_cli")
    for answer in reversed(answers):
        if answer.error is not None:
            problems.append(f"plugin {answer.plugin}: {failure_of('mxgw_cli', answer.error)}")
            continue
        for command in answer.value:
            name = command.name or ""  # it has one: this was checked
            if name in taken:
                problems.append(f"plugin {answer.plugin}: {name!r} is a command of {taken[name]}")
            else:
                commands[name] = command
                owners[name] = taken[name] = answer.plugin
                sources[name] = host.calls.in_words(answer.owner, f"the command {name!r}")
    available = tuple(record.name for record in host.records if record.state is PluginState.AVAILABLE)
    return PluginCommands(commands, owners, tuple(problems), available, sources)


def failure_of(what: str, error: BaseException) -> str:
    """Return what went wrong in a part of a plugin, for a person at a terminal. `what` names the part."""
    text = str(error) if isinstance(error, MxgwError) else f"{what} {words_of(error)}"
    return printable(text, 500)


class _Hangs(logging.Handler):
    """Shows which plugin a command waits for. Made in the thread of the command; used in the watching thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        context = click.get_current_context(silent=True)
        self._command = context.command_path if context is not None else "mxgw"
        self.addFilter(logging.Filter(watching.__name__))

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{self._command} waits: {record.getMessage()}. Ctrl-C ends the command.", err=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep log lines of `mxgw_core` off the terminal while the block runs; the command itself shows the problems.

    Only a call of a plugin that does not return is shown, because the command waits for it.
    """
    logger = logging.getLogger("mxgw_core")
    handler = _Hangs()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
