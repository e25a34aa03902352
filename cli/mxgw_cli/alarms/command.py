"""`mxgw alarms`: its options, help and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mxgw_cli.options import GatewayTarget, gateway_options, was_set_before
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, Group, json_option

if TYPE_CHECKING:
    import mxgw_client

EXAMPLES = [
    ("mxgw alarms", "what is active now, the most severe first"),
    ("mxgw alarms --watch --to-priority 200", "the severe ones, kept up to date"),
    ("mxgw alarms --watch --json", "every change as a line of JSON, after what is active"),
    ("mxgw alarms ack Tank_001.Level --comment seen", "acknowledge one"),
]
ACK_EXAMPLES = [
    ("mxgw alarms ack Tank_001.Level --comment 'valve stuck'", "one alarm"),
    ("mxgw alarms ack Tank_001.Level Boiler_001.Pressure --operator 'Anna Keller'", "several, for somebody"),
]
_PRIORITY = click.IntRange(1, 999)


@click.group(
    cls=Group,
    invoke_without_command=True,
    short_help="List, follow or acknowledge the plant's alarms.",
    examples=EXAMPLES,
)
@click.option("--area", "areas", multiple=True, metavar="AREA", help="Only alarms of this area; may be repeated.")
@click.option("--prefix", "prefixes", multiple=True, metavar="TEXT", help="Only references that begin so; repeatable.")
@click.option("--from-priority", type=_PRIORITY, default=1, show_default=True, help="Leave out what is more severe.")
@click.option("--to-priority", type=_PRIORITY, default=999, show_default=True, help="Leave out what is less severe.")
@click.option(
    "--watch", is_flag=True, help="Continue until Ctrl-C: a live list in a terminal, else one line per change."
)
@gateway_options
@json_option("Print one JSON list (with --watch: one document per line and change).")
@click.pass_context
def alarms(
    context: click.Context,
    areas: tuple[str, ...],
    prefixes: tuple[str, ...],
    from_priority: int,
    to_priority: int,
    watch: bool,
    gateway: GatewayTarget,
    as_json: bool,
) -> None:
    """List the active alarms that you may see; watch or acknowledge them.

    The gateway needs the plugin alarms enabled. Priority 1 is the most severe, 999 the least.
    """
    if context.invoked_subcommand is not None:
        return
    if from_priority > to_priority:
        raise click.UsageError("--from-priority must not be greater than --to-priority.")
    from mxgw_cli.alarms.run import list_alarms, watch_alarms
    from mxgw_client import AlarmFilter

    wanted: mxgw_client.AlarmFilter = AlarmFilter(areas, prefixes, from_priority, to_priority)
    show = watch_alarms if watch else list_alarms
    run(lambda: show(gateway, wanted, as_json=as_json))


@alarms.command(cls=Command, short_help="Acknowledge alarms.", examples=ACK_EXAMPLES)
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@click.option("--comment", default="", metavar="TEXT", help="Goes to the source with the acknowledgement.")
@click.option("--operator", default="", metavar="NAME", help="Who acknowledges, when that is not the key's own name.")
@gateway_options
@json_option()
def ack(references: tuple[str, ...], comment: str, operator: str, gateway: GatewayTarget, as_json: bool) -> None:
    """Acknowledge alarms by their references, and say what became of each. Exit code 1 when one was not accepted."""
    from mxgw_cli.alarms.run import acknowledge

    as_json = as_json or was_set_before("as_json")
    run(lambda: acknowledge(gateway, references, comment, operator, as_json=as_json))
