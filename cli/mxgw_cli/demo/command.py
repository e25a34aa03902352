"""`mxgw demo`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, NumberRange

EXAMPLES = [
    ("mxgw demo", "recorded data of a steel plant, live, until Ctrl-C"),
    ("mxgw demo --backend plant", "a simulated plant: tanks, pumps, a boiler"),
    ("mxgw demo --backend load --items 500 --rate 5000", "500 tags, 5000 events per second"),
    ("mxgw demo --backend opcua", "the same recording through a real OPC UA server, which it starts"),
    ("mxgw demo --backend mxaccess --object Tank_001", "MXAccess on this machine: an object's attributes"),
    ("mxgw demo --dashboard", "the same in the operator's dashboard, until q"),
    ("mxgw demo --seconds 5 --json", "one JSON line at the end, for a script"),
]

BACKENDS = ("sim", "recording", "plant", "load", "opcua", "mxaccess")


@click.command(cls=Command, short_help="See it work: a gateway, a session and live values.", examples=EXAMPLES)
@click.option("--seconds", type=NumberRange(min=0.5), metavar="N", help="End by itself after N seconds.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="sim",
    show_default=True,
    help="Where values come from; sim plays the recording.",
)
@click.option("--speed", type=NumberRange(min=1, max=1e6), metavar="X", help="How much faster the recording runs.")
@click.option("--items", type=click.IntRange(1, 20_000), metavar="N", help="Tags of the load backend.")
@click.option("--rate", type=NumberRange(min=1, max=1e6), metavar="R", help="Its events per second, all together.")
@click.option(
    "--object", "objects", multiple=True, metavar="OBJECT", help="Show the attributes of this object of MXAccess."
)
@click.option("--tag", "tags", multiple=True, metavar="REFERENCE", help="Show this tag of MXAccess.")
@settings_options
@click.option("--dashboard", is_flag=True, help="Show it in the operator's dashboard (plugin dashboard_tui).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line at the end, and nothing else on stdout.")
def demo(
    seconds: float | None,
    backend: str,
    speed: float | None,
    items: int | None,
    rate: float | None,
    objects: tuple[str, ...],
    tags: tuple[str, ...],
    settings: SettingsChoice,
    dashboard: bool,
    as_json: bool,
) -> None:
    """See it work: starts a gateway of its own, opens a session, and shows live values.

    It needs no settings and leaves nothing behind. Without --seconds it goes on until Ctrl-C, which is its normal
    end. Exit code 1 when an event was lost or came twice, or when none came at all.

    With --backend mxaccess, --object or --tag names what to show, because MXAccess lists no objects, and workers.python
    is read from your settings.
    """
    if backend != "load" and (items is not None or rate is not None):
        raise click.UsageError("--items and --rate are for --backend load.")
    if backend != "mxaccess" and (objects or tags):
        raise click.UsageError("--object and --tag are for --backend mxaccess.")
    if backend in ("plant", "load", "mxaccess") and speed is not None:
        raise click.UsageError("--speed is for recorded data: --backend sim, recording or opcua.")
    if dashboard and (as_json or seconds is not None):
        raise click.UsageError("--dashboard goes on until q: it takes neither --seconds nor --json.")
    from mxgw_cli.demo.options import DemoOptions
    from mxgw_cli.demo.run import run_demo

    run_demo(DemoOptions(backend, seconds, speed, items, rate, as_json, dashboard, objects, tags), settings)
