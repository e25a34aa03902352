"""`mxgw drain`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, NumberRange, json_option

EXAMPLES = [
    ("mxgw drain --settings /etc/mxgw/settings.toml", "before the next one is started"),
    ("mxgw drain --end-sessions", "end it for good, with every session"),
]


@click.command(
    cls=Command, short_help="End the gateway here in order; workers can wait for the next.", examples=EXAMPLES
)
@settings_options
@click.option(
    "--end-sessions", is_flag=True, help="Also end the sessions whose workers would wait for the next gateway."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=NumberRange(min=0.1),
    metavar="SECONDS",
    help="How long to wait for its end; by default the gateway's drain_timeout_s and a little more.",
)
@json_option("Print one JSON object: pid, seconds.")
def drain(settings: SettingsChoice, end_sessions: bool, timeout_s: float | None, as_json: bool) -> None:
    """Tell the gateway that uses gateway.data_dir to drain, and wait until it has ended.

    Clients are asked to come back, calls under way may finish. With the plugin reattach, workers keep running and the
    next gateway takes their sessions back. Exit code 3 when no gateway runs there, 1 when it does not end in time.
    """
    from mxgw_cli.drain.run import drain_gateway
    from mxgw_cli.loading import loaded

    drain_gateway(loaded(settings).settings, end_sessions=end_sessions, timeout_s=timeout_s, as_json=as_json)
