"""`mxgw plugins`: prints a table of the installed plugins, their states, and the commands that they add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mxgw_cli.loading import commands_of, loaded, quiet
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import SilentFailure, console
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState
from mxgw_core.printable import printable

_WORDS = {
    PluginState.LOADED: Text("enabled", style="green"),
    PluginState.FAILED: Text("failed", style="bold red"),
    PluginState.AVAILABLE: Text("installed", style="dim"),
}


def show_plugins(choice: SettingsChoice, *, as_json: bool) -> None:
    """Load the enabled plugins, and print the state of each installed plugin.

    Raises:
        SilentFailure: a plugin failed; the reason is in the output.
    """
    result = loaded(choice)
    with quiet():
        host = PluginHost.load(result.settings, origins=result.origins, keep_going=True)
    extra = commands_of(host)
    commands = {
        record.name: sorted(name for name, owner in extra.owners.items() if owner == record.name)
        for record in host.records
    }
    problems = [problem for problem in extra.problems if "cannot be used" not in problem]
    if as_json:
        write_json({"plugins": [_document(record, commands) for record in host.records], "problems": problems})
    else:
        out = console()
        if host.records:
            out.print(plugins_table(host.records, commands))
        else:
            out.print("No plugin is installed: the core alone is a working gateway for one subscriber per session.")
        for record in host.records:
            if record.detail:
                out.print(Text(f"{record.name}: {printable(record.detail, 500)}", style="red"))
        for problem in problems:
            out.print(Text(problem, style="red"))
        if not result.settings.plugins.enabled and host.records:
            out.print("None is enabled; plugins.enabled in the settings names those to load, in their order.")
    if problems or any(record.state is PluginState.FAILED for record in host.records):
        raise SilentFailure


def plugins_table(records: Sequence[PluginRecord], commands: Mapping[str, Sequence[str]]) -> Table:
    """Return a table with one line per plugin, in the order of `records`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Plugin", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Required", no_wrap=True)
    table.add_column("Distribution", overflow="fold")
    table.add_column("Version", no_wrap=True)
    table.add_column("Commands", overflow="fold")
    for record in records:
        table.add_row(
            printable(record.name, 64),
            _WORDS[record.state],
            "yes" if record.required else "",
            printable(record.distribution, 64),
            printable(record.version, 32),
            ", ".join(commands.get(record.name, ())),
        )
    return table


def _document(record: PluginRecord, commands: Mapping[str, Sequence[str]]) -> dict[str, object]:
    return {
        "name": record.name,
        "state": record.state.value,
        "required": record.required,
        "distribution": record.distribution,
        "version": record.version,
        "detail": record.detail,
        "commands": list(commands.get(record.name, ())),
    }
