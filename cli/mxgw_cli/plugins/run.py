"""`mxgw plugins`: prints a table of the installed plugins, their states here and in the running gateway, and the
commands that they add.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from click.core import ParameterSource
from rich import box
from rich.table import Table
from rich.text import Text

from mxgw.v1.gateway_service_pb2 import (
    PLUGIN_STATE_AVAILABLE,
    PLUGIN_STATE_FAILED,
    PLUGIN_STATE_LOADED,
    PluginInfo,
)
from mxgw.v1.gateway_service_pb2 import PluginState as PluginStateMessage
from mxgw_cli.gateway import connected
from mxgw_cli.loading import commands_of, loaded, quiet
from mxgw_cli.options import GatewayTarget, SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, SilentFailure, console, run
from mxgw_core.checking import problems_by_plugin
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState
from mxgw_core.printable import printable
from mxgw_worker.platform import unix_socket_answers

_WORDS = {
    PluginState.LOADED: Text("enabled", style="green"),
    PluginState.FAILED: Text("failed", style="bold red"),
    PluginState.AVAILABLE: Text("installed", style="dim"),
}
# The state of a plugin that is loaded, and whose own check of the settings has found a problem.
_STOPS_START = Text("stops the start", style="bold red")
_WORDS_OF_GATEWAY = {
    PLUGIN_STATE_LOADED: Text("works", style="green"),
    PLUGIN_STATE_FAILED: Text("failed", style="bold red"),
    PLUGIN_STATE_AVAILABLE: Text("installed", style="dim"),
}


@dataclass(frozen=True, slots=True)
class RunningPlugins:
    """What a running gateway says about its plugins. `problem` says why it says nothing; "" when it answered.

    Key of `plugins`: the name of a plugin.
    """

    target: str
    problem: str = ""
    plugins: Mapping[str, PluginInfo] = field(default_factory=dict)


def show_plugins(
    choice: SettingsChoice, gateway: GatewayTarget, *, source: ParameterSource | None, as_json: bool
) -> None:
    """Load the enabled plugins, and print the state of each installed plugin, here and in the running gateway.

    `source` says where the address of the gateway comes from. By default it is the first one in the settings.

    Raises:
        SilentFailure: a plugin failed, or its own check of the settings found a problem; the reason is in the output.
        CliFailure: the gateway of the command line does not answer.
    """
    result = loaded(choice)
    if source is ParameterSource.DEFAULT and result.settings.gateway.listen:
        gateway = replace(gateway, target=result.settings.gateway.listen[0])
    running = run(lambda: ask_gateway(gateway, must_answer=source is ParameterSource.COMMANDLINE))
    with quiet():
        host = PluginHost.load(result.settings, origins=result.origins, keep_going=True)
        found = problems_by_plugin(result.settings, host)
    extra = commands_of(host)
    commands = {
        record.name: sorted(name for name, owner in extra.owners.items() if owner == record.name)
        for record in host.records
    }
    problems = [problem for problem in extra.problems if "cannot be used" not in problem]
    if as_json:
        write_json(
            {
                "plugins": [_document(record, commands, running, found) for record in host.records],
                "problems": problems,
                "gateway": {"target": running.target, "problem": running.problem},
            }
        )
    else:
        out = console()
        if host.records:
            out.print(plugins_table(host.records, commands, running.plugins, found))
        else:
            out.print("No plugin is installed: the core alone is a working gateway for one subscriber per session.")
        for record in host.records:
            if record.detail:
                out.print(Text(f"{record.name}: {printable(record.detail, 500)}", style="red"))
            for problem in found.get(record.name, ()):
                out.print(Text(f"{record.name}: {printable(problem, 500)}", style="red"))
        for name, plugin in running.plugins.items():
            if plugin.state == PLUGIN_STATE_FAILED:
                reason = printable(plugin.detail, 500) or "only an administrator of the gateway sees why"
                out.print(Text(f"{printable(name, 64)} has failed in the gateway at {running.target}: {reason}", "red"))
        for problem in problems:
            out.print(Text(problem, style="red"))
        if not result.settings.plugins.enabled and host.records:
            out.print("None is enabled; plugins.enabled in the settings names those to load, in their order.")
        for place, why in host.unread.items():
            out.print(
                Text(f"The distribution at {place} cannot be read, so its plugins are not known: {why}", "yellow")
            )
        if running.problem:
            out.print(Text(running.problem, "dim"))
    is_broken = any(plugin.state == PLUGIN_STATE_FAILED for plugin in running.plugins.values())
    if problems or found or is_broken or any(record.state is PluginState.FAILED for record in host.records):
        raise SilentFailure


async def ask_gateway(where: GatewayTarget, *, must_answer: bool) -> RunningPlugins:
    """Return what the running gateway says about its plugins.

    Raises:
        CliFailure: it does not answer, and `must_answer`.
    """
    if not must_answer and not await _listens(where.target):
        return RunningPlugins(where.target, f"No gateway runs at {where.target}: this is what a gateway would load.")
    try:
        async with connected(where) as gateway:
            info = await gateway.info()
    except CliFailure as failure:
        if must_answer:
            raise
        return RunningPlugins(where.target, f"The gateway at {where.target} says nothing about its plugins: {failure}")
    return RunningPlugins(where.target, plugins={plugin.name: plugin for plugin in info.raw.plugins})


async def _listens(target: str) -> bool:
    """Return whether something listens at an address, without waiting long."""
    try:
        async with asyncio.timeout(1.0):
            if target.startswith("unix:"):
                return await asyncio.to_thread(unix_socket_answers, Path(target.removeprefix("unix:")))
            host, _, port = target.rpartition(":")
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError):
        return False
    writer.close()
    return True


def plugins_table(
    records: Sequence[PluginRecord],
    commands: Mapping[str, Sequence[str]],
    running: Mapping[str, PluginInfo],
    problems: Mapping[str, Sequence[str]],
) -> Table:
    """Return a table with one line per plugin, in the order of `records`.

    `running` has the plugins of the running gateway; the column about it is there when it is not empty. `problems` has
    what the plugins' own checks of the settings found.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Plugin", no_wrap=True)
    table.add_column("State", no_wrap=True)
    if running:
        table.add_column("In the gateway", no_wrap=True)
    table.add_column("Required", no_wrap=True)
    table.add_column("Distribution", overflow="fold")
    table.add_column("Version", no_wrap=True)
    table.add_column("Commands", overflow="fold")
    for record in records:
        table.add_row(
            printable(record.name, 64),
            _STOPS_START if record.name in problems else _WORDS[record.state],
            *([_state_of(running.get(record.name))] if running else []),
            "access" if record.required and record.controls_access else "yes" if record.required else "",
            printable(record.distribution, 64),
            printable(record.version, 32),
            ", ".join(commands.get(record.name, ())),
        )
    return table


def _state_of(plugin: PluginInfo | None) -> Text:
    if plugin is None:
        return Text("")
    return _WORDS_OF_GATEWAY.get(plugin.state, Text(""))


def _document(
    record: PluginRecord,
    commands: Mapping[str, Sequence[str]],
    running: RunningPlugins,
    problems: Mapping[str, Sequence[str]],
) -> dict[str, object]:
    there = running.plugins.get(record.name)
    state = PluginStateMessage.Name(there.state).removeprefix("PLUGIN_STATE_").lower() if there is not None else None
    return {
        "name": record.name,
        "state": record.state.value,
        "required": record.required,
        "controls_access": record.controls_access,
        "distribution": record.distribution,
        "version": record.version,
        "detail": record.detail,
        "problems": list(problems.get(record.name, ())),
        "commands": list(commands.get(record.name, ())),
        "in_gateway": None if there is None else {"state": state, "detail": there.detail},
    }
