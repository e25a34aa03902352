"""`mxgw write`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import GatewayTarget, gateway_options
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw write Valve_001.PositionSP=40", "the type is the one the tag has"),
    ("mxgw write Pump_001.Cmd=true Pump_001.SpeedSP=900", "several, in order"),
    ("mxgw write --type string Tank_001.Product=0042", "as text, although it looks like a number"),
    ("mxgw write 'Batch_001.Amounts[]=[1, 2.5, 3]'", "a whole array, as JSON"),
]

TYPES = ("auto", "boolean", "integer", "float", "double", "string", "time", "elapsed_time")


@click.command(cls=Command, short_help="Write values and say what became of each.", examples=EXAMPLES)
@click.argument("assignments", nargs=-1, required=True, metavar="TAG=VALUE...")
@click.option(
    "--type",
    "type_name",
    type=click.Choice(TYPES),
    default="auto",
    show_default=True,
    help="Type of the values; auto takes the type that the tag's current value has.",
)
@click.option("--user-id", type=int, default=0, show_default=True, metavar="ID", help="MXAccess user id; 0 is no user.")
@click.option("--backend", default="", metavar="NAME", help="Backend of the session to open; default: the gateway's.")
@click.option("--session", "session_id", default="", metavar="ID", help="Use this session instead of opening one.")
@gateway_options
@json_option()
def write(
    assignments: tuple[str, ...],
    type_name: str,
    user_id: int,
    backend: str,
    session_id: str,
    gateway: GatewayTarget,
    as_json: bool,
) -> None:
    """Write values and say what became of each, in words.

    MXAccess wants a tag advised, and its type known, before it is written: each tag is advised, its first value
    awaited, then the value is written and the write's completion awaited. Exit code 1 when a write failed or its
    outcome is unknown.
    """
    pairs = []
    for text in assignments:
        tag, sign, value = text.partition("=")
        if not sign or not tag:
            raise click.UsageError(f"{text!r} is not TAG=VALUE.")
        pairs.append((tag, value))
    from mxgw_cli.write.run import write_tags

    run(
        lambda: write_tags(
            gateway,
            pairs,
            type_name=type_name,
            user_id=user_id,
            backend=backend,
            session_id=session_id,
            as_json=as_json,
        )
    )
