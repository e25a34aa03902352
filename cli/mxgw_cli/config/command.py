"""`mxgw config`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Group, json_option

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
    from mxgw_cli.config.run import check_settings

    check_settings(settings, as_json=as_json)


@config.command(short_help="Show every setting, its value and where it comes from.", examples=SHOW_EXAMPLES)
@click.argument("sections", nargs=-1, metavar="[SECTION]...")
@click.option("--changed", is_flag=True, help="Only settings that differ from their default's source.")
@settings_options
@json_option()
def show(sections: tuple[str, ...], changed: bool, settings: SettingsChoice, as_json: bool) -> None:
    """Show every setting, its value and where it comes from. Secrets are masked."""
    from mxgw_cli.config.run import show_settings

    show_settings(settings, sections, changed=changed, as_json=as_json)
