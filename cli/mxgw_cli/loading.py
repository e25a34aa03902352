"""Loads settings and plugins for a command in the same way as the gateway does, and reports problems as text."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

from mxgw_cli.commands import COMMANDS
from mxgw_cli.options import SettingsChoice
from mxgw_cli.shell import CliFailure
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.loader import LoadedSettings, load_settings
from mxgw_core.plugins import PluginHost, PluginState
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
    """

    commands: dict[str, click.Command]
    owners: dict[str, str]
    problems: tuple[str, ...]
    available: tuple[str, ...] = ()


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
    problems = [
        f"plugin {record.name} cannot be used: {printable(record.detail, 500)}"
        for record in host.records
        if record.state is PluginState.FAILED
    ]
    with quiet():
        answers = host.ask("mxgw_cli")
    for answer in reversed(answers):
        if answer.error is not None:
            problems.append(f"plugin {answer.plugin}: mxgw_cli raised {printable(repr(answer.error), 300)}")
            continue
        for command in answer.value:
            if not isinstance(command, click.Command) or not command.name:
                problems.append(f"plugin {answer.plugin}: mxgw_cli returned something that is no named click.Command")
            elif command.name in taken:
                problems.append(f"plugin {answer.plugin}: {command.name!r} is a command of {taken[command.name]}")
            else:
                commands[command.name] = command
                owners[command.name] = taken[command.name] = answer.plugin
    available = tuple(record.name for record in host.records if record.state is PluginState.AVAILABLE)
    return PluginCommands(commands, owners, tuple(problems), available)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep log lines of `mxgw_core` off the terminal while the block runs; the command itself shows the problems."""
    logger = logging.getLogger("mxgw_core")
    handler = logging.NullHandler()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
