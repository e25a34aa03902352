"""`mxgw bench`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import GatewayTarget, gateway_options
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, NumberRange, json_option

EXAMPLES = [
    ("mxgw bench --private", "a gateway of its own, with simulated load: what this machine can do"),
    ("mxgw bench Tank_001.Level Pump_001.Running", "the running gateway, with values of these tags"),
    ("mxgw bench --seconds 30 --json", "opening sessions only, as no tags are named; one JSON line"),
]


@click.command(cls=Command, short_help="Measure a gateway: how fast here, and is that well?", examples=EXAMPLES)
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@click.option("--private", is_flag=True, help="A gateway of its own with simulated load; nothing else is touched.")
@click.option(
    "--seconds",
    type=NumberRange(1, 600),
    default=5.0,
    show_default=True,
    metavar="N",
    help="How long each stream is followed.",
)
@click.option("--backend", default="", metavar="NAME", help="Backend of the sessions to open; default: the gateway's.")
@gateway_options
@json_option("Print one JSON object and nothing else on stdout.")
def bench(
    tags: tuple[str, ...], private: bool, seconds: float, backend: str, gateway: GatewayTarget, as_json: bool
) -> None:
    """Measure how long a session takes to open, how late events are, and how many a second one client gets.

    Sessions of its own are opened and closed; nothing is written, and other sessions are left alone. With TAGs their
    values are followed as they come. Delays count from the worker's clock to this one, so run it where the gateway
    runs, or keep both clocks in step. Exit code 1 when an event was lost.
    """
    if private and (tags or backend):
        raise click.UsageError("--private brings its own load: it takes neither TAGs nor --backend.")
    from mxgw_cli.bench.run import BenchRequest, measure

    run(lambda: measure(gateway, BenchRequest(tags, private, seconds, backend, as_json)))
