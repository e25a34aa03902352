"""`mxgw serve`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, address_help, check_address, json_option

EXAMPLES = [
    ("mxgw serve", "on 127.0.0.1:50051 with the simulated plant"),
    ("mxgw serve --listen unix:/run/mxgw/gateway.sock", "on a Unix socket only"),
    ("mxgw serve --settings /etc/mxgw/settings.toml --set gateway.log_level=DEBUG", "from a file, one value changed"),
]


@click.command(cls=Command, short_help="Run a gateway.", examples=EXAMPLES)
@settings_options
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    callback=check_address,
    help=address_help("instead of gateway.listen; may be given several times. Port 0 takes a free one."),
)
@click.option("--one-key", is_flag=True, hidden=True, help="Accept only calls with a new key, which is printed.")
@click.option(
    "--uvloop/--no-uvloop", default=True, show_default=True, help="Use the faster event loop where there is one."
)
@json_option("Print one JSON line when ready: ready, addresses, pid.")
def serve(settings: SettingsChoice, listen: tuple[str, ...], one_key: bool, uvloop: bool, as_json: bool) -> None:
    """Run a gateway until Ctrl-C or a request to stop (SIGTERM; on Windows also Ctrl-Break, or `mxgw drain`).

    The first signal refuses new calls, lets running ones finish (gateway.drain_timeout_s), closes every session and
    reports; a second signal ends at once. The log goes to stderr; stdout gets one line when the gateway is ready.
    """
    from mxgw_cli.serve.run import serve_gateway

    serve_gateway(settings, listen, use_uvloop=uvloop, as_json=as_json, one_key=one_key)
