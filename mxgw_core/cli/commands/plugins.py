"""`mxgw plugins`: what is installed, enabled, failed."""

from __future__ import annotations

import click

from mxgw_core.cli.options import Command, SettingsChoice, json_option, settings_options

EXAMPLES = [
    ("mxgw plugins", "what is installed, and what the settings here enable"),
    ("mxgw plugins --json | jq '.plugins[] | select(.state==\"failed\")'", "what is broken"),
    ("mxgw plugins --set plugins.enabled=replay,acl", "try a set of plugins without editing a file"),
]


@click.command(cls=Command, short_help="List installed, enabled and failed plugins.", examples=EXAMPLES)
@settings_options
@json_option()
def plugins(settings: SettingsChoice, as_json: bool) -> None:
    """List the plugins that are installed, with what the settings make of each.

    Enabled ones are loaded, so that a broken one shows its cause; the commands they add to `mxgw` are named. Exit
    code 1 when an enabled plugin failed.
    """
    from mxgw_core.cli.plugin_views import show_plugins

    show_plugins(settings, as_json=as_json)
