"""`mxgw config`: prints the problems of the settings, or every setting with its value and its source."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich import box
from rich.table import Table
from rich.text import Text

from mxgw_cli.loading import loaded, quiet
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import SilentFailure, console
from mxgw_core.api.errors import SettingsError
from mxgw_core.checking import settings_problems, worker_problems
from mxgw_core.config.effective import EffectiveSetting, effective_settings
from mxgw_core.config.loader import load_settings
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.printable import printable


def check_settings(choice: SettingsChoice, *, as_json: bool) -> None:
    """Print every problem of the settings.

    Raises:
        SilentFailure: there is a problem.
    """
    problems: list[str] = []
    files: list[str] = []
    access: list[str] = []
    try:
        result = load_settings(choice.file, overrides=choice.overrides)
        files = [str(path) for path in result.files]
        with quiet():
            host = PluginHost.load(result.settings, origins=result.origins, keep_going=True)
            problems = [
                f"plugins.{record.name}: {record.detail}"
                for record in host.records
                if record.state is PluginState.FAILED
            ]
            access = [record.name for record in host.records if record.controls_access and record.required]
            # When a plugin failed, further problems are not looked for, because the plugin would be the cause of some.
            if not problems:
                problems = settings_problems(result.settings, host) + worker_problems(result.settings)
    except SettingsError as error:
        problems = str(error).splitlines()
    if as_json:
        write_json({"valid": not problems, "files": files, "problems": problems, "access": access})
    elif problems:
        for problem in problems:
            click.echo(problem)
    else:
        click.echo(f"The settings are valid ({', '.join(files) or 'no file, defaults only'}).")
        if access:
            decide, them = ("decides", "it") if len(access) == 1 else ("decide", "them")
            click.echo(f"{', '.join(access)} {decide} about access: the gateway does not start without {them}.")
    if problems:
        raise SilentFailure


def show_settings(choice: SettingsChoice, sections: Sequence[str], *, changed: bool, as_json: bool) -> None:
    """Print the settings of `sections`, or all settings when no section is named.

    With `changed`, settings that nothing sets (their source is "default") are left out.

    Raises:
        click.UsageError: a section does not exist.
    """
    result = loaded(choice)
    rows = effective_settings(result.settings, result.origins)
    known = list(dict.fromkeys(row.key.split(".")[0] for row in rows))
    for section in sections:
        if section.split(".")[0] not in known:
            raise click.UsageError(f"No section {section!r}; there are {', '.join(known)}.")
    rows = [
        row
        for row in rows
        if (not sections or any(row.key == s or row.key.startswith(s + ".") for s in sections))
        and not (changed and row.origin == "default")
    ]
    if as_json:
        write_json([row._asdict() for row in rows])
    elif rows:
        console().print(settings_table(rows))
    else:
        console().print("Everything is at its default." if changed else "There is nothing to show.")


def settings_table(rows: Sequence[EffectiveSetting]) -> Table:
    """Return a table with one line per setting, and a rule between sections.

    The names of settings that something sets are bold.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    section = ""
    for row in rows:
        first = row.key.split(".")[0]
        if section and first != section:
            table.add_section()
        section = first
        is_default = row.origin == "default"
        table.add_row(
            Text(printable(row.key, 200), style="" if is_default else "bold"),
            Text(printable(_value(row.value), 400)),
            Text(printable(row.origin, 200), style="dim" if is_default else "cyan"),
        )
    return table


def _value(value: object) -> str:
    # The value is written as in TOML, so that a user can copy it into a settings file.
    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False, default=str)
