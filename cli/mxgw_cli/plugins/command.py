"""`mxgw plugins`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.options import GatewayTarget, SettingsChoice, gateway_options, settings_options
from mxgw_cli.plugins.kinds import PluginKind
from mxgw_core.command_line import Command, Group, json_option

EXAMPLES = [
    ("mxgw plugins", "what is installed, and what the settings here enable"),
    ("mxgw plugins --json | jq '.plugins[] | select(.state==\"failed\")'", "what is broken"),
    ("mxgw plugins --set plugins.enabled=replay,acl", "try a set of plugins without editing a file"),
    ("mxgw plugins --gateway plant:50051", "what the plugins of a running gateway do, too"),
    ("mxgw plugins new keep_alarms", "begin a plugin of your own"),
]
NEW_EXAMPLES = [
    ("mxgw plugins new keep_alarms", "an overflow policy, in mxgw-plugin-keep-alarms here"),
    ("mxgw plugins new door_man --kind auth --directory ~/src", "access control, in a directory there"),
    ("mxgw plugins new modbus --kind backend", "a source of values, in mxgw-backend-modbus"),
]


@click.group(
    cls=Group,
    invoke_without_command=True,
    short_help="List installed, enabled and failed plugins.",
    examples=EXAMPLES,
    subcommand_metavar="[COMMAND [ARGS]...]",
)
@settings_options
@gateway_options
@json_option()
@click.pass_context
def plugins(context: click.Context, settings: SettingsChoice, gateway: GatewayTarget, as_json: bool) -> None:
    """List the plugins that are installed, with what the settings make of each.

    Enabled ones are loaded, so that a broken one shows its cause; the commands they add to `mxgw` are named. When a
    gateway runs at --gateway, or else where the settings say, its plugins are shown too: one can have failed since it
    started. Only administrators see why. Exit code 1 when an enabled plugin failed, here or there, or when its own
    check of the settings found a problem that stops the start.
    """
    if context.invoked_subcommand is not None:
        return
    from mxgw_cli.plugins.run import show_plugins

    show_plugins(settings, gateway, source=context.get_parameter_source("target"), as_json=as_json)


@plugins.command(cls=Command, short_help="Write a new plugin to begin with.", examples=NEW_EXAMPLES)
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in PluginKind]),
    default="policy",
    show_default=True,
    help="What it does: see above.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where its directory goes; the working directory when not given.",
)
@json_option()
def new(name: str, kind: str, directory: Path, as_json: bool) -> None:
    """Write a distribution with a plugin to begin with: its code, its settings and its tests.

    It installs with pip, passes its own tests, and works when it is enabled. NAME is what sites write in their
    settings: small letters, digits and underscores. Nothing is overwritten.

    \b
    policy   what happens to a reader that falls behind
    auth     who may come in with which token, and use which items
    history  a store of events, for clients that come back late
    service  a gRPC service of its own, beside those of mxgw
    backend  what sessions talk to; it runs in the worker
    """
    from mxgw_cli.plugins.scaffold import new_plugin

    new_plugin(name, PluginKind(kind), directory, as_json=as_json)
