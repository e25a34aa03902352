"""`mxgw config`: are the settings right, and where does each come from."""

from __future__ import annotations

import click

from mxgw_core.cli.failures import SilentFailure
from mxgw_core.cli.options import Group, SettingsChoice, json_option, settings_options

CHECK_EXAMPLES = [
    ("mxgw config check", "check what `mxgw serve` would read here"),
    ("mxgw config check --settings /etc/mxgw/settings.toml", "check a file before it is used"),
    ("mxgw config check --json | jq -r '.problems[]'", "the problems for a script"),
]
SHOW_EXAMPLES = [
    ("mxgw config show", "every setting with its value and its source; secrets are masked"),
    ("mxgw config show limits events", "only these sections"),
    ("mxgw config show --changed", "only what differs from the defaults"),
]


@click.group(
    cls=Group,
    short_help="Check the settings, or show where each comes from.",
    examples=[CHECK_EXAMPLES[0], SHOW_EXAMPLES[0]],
)
def config() -> None:
    """Check the settings, or show where each comes from.

    Settings come from, later ones first: --set, MXGW_ environment variables, .secrets.toml, the file of --settings,
    settings.toml in the working directory, the defaults.
    """


@config.command(short_help="Print every problem of the settings.", examples=CHECK_EXAMPLES)
@settings_options
@json_option()
def check(settings: SettingsChoice, as_json: bool) -> None:
    """Print every problem of the settings; exit with 1 when there is one.

    Whatever `mxgw serve` would refuse before it starts anything is refused here: the sections of the enabled plugins,
    what does not fit together, and files that cannot be read. `mxgw doctor` also tries whether ports, directories and
    backends work.
    """
    from mxgw_core.api.errors import SettingsError
    from mxgw_core.checking import settings_problems
    from mxgw_core.cli.plugin_commands import quiet
    from mxgw_core.cli.terminal import write_json
    from mxgw_core.config.loader import load_settings
    from mxgw_core.plugins import PluginHost, PluginState

    problems: list[str] = []
    files: list[str] = []
    try:
        result = load_settings(settings.file, overrides=settings.overrides)
        files = [str(path) for path in result.files]
        with quiet():
            host = PluginHost.load(result.settings, origins=result.origins, keep_going=True)
            problems = [
                f"plugins.{record.name}: {record.detail}"
                for record in host.records
                if record.state is PluginState.FAILED
            ]
            if not problems:  # without a plugin, others would seem to lack what it brings
                problems = settings_problems(result.settings, host)
    except SettingsError as error:
        problems = str(error).splitlines()
    if as_json:
        write_json({"valid": not problems, "files": files, "problems": problems})
    elif problems:
        for problem in problems:
            click.echo(problem)
    else:
        click.echo(f"The settings are valid ({', '.join(files) or 'no file, defaults only'}).")
    if problems:
        raise SilentFailure


@config.command(short_help="Show every setting, its value and where it comes from.", examples=SHOW_EXAMPLES)
@click.argument("sections", nargs=-1, metavar="[SECTION]...")
@click.option("--changed", is_flag=True, help="Only settings that differ from their default's source.")
@settings_options
@json_option()
def show(sections: tuple[str, ...], changed: bool, settings: SettingsChoice, as_json: bool) -> None:
    """Show every setting, its value and where it comes from. Secrets are masked."""
    from mxgw_core.cli.configuration import loaded
    from mxgw_core.cli.terminal import console, write_json
    from mxgw_core.config.effective import effective_settings

    result = loaded(settings)
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
        return
    from mxgw_core.cli.settings_table import settings_table

    out = console()
    if rows:
        out.print(settings_table(rows))
    else:
        out.print("Everything is at its default." if changed else "There is nothing to show.")
