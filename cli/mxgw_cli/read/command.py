"""`mxgw read`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import GatewayTarget, gateway_options
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw read Tank_001.Level Pump_001.Speed", "two values with quality and time"),
    ("mxgw read Tank_001.Level --json | jq '.[0].value'", "the bare value for a script"),
    ("mxgw read 'Batch_001.Recipe[]'", "a whole array: the brackets belong to the reference"),
]


@click.command(cls=Command, short_help="Read the current values of tags.", examples=EXAMPLES)
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
@click.option("--backend", default="", metavar="NAME", help="Backend of the session to open; default: the gateway's.")
@click.option("--session", "session_id", default="", metavar="ID", help="Use this session instead of opening one.")
@gateway_options
@json_option()
def read(tags: tuple[str, ...], backend: str, session_id: str, gateway: GatewayTarget, as_json: bool) -> None:
    """Read the current values of tags, in the order in which they are named.

    MXAccess has no read: each tag is advised, its first real value awaited (up to --timeout), and released. A bad
    quality is a result; a tag that gives no value is a failure (exit code 1), and the others are still shown.
    """
    from mxgw_cli.read.run import read_tags

    run(lambda: read_tags(gateway, tags, backend=backend, session_id=session_id, as_json=as_json))
