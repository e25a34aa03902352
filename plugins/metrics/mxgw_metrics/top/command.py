"""The options of `mxgw top`. The modules that do the work are imported only when the command runs."""

from __future__ import annotations

import importlib.util
import sys

import click

from mxgw_core.api.cli import NumberRange
from mxgw_metrics.settings import Address, MetricsSettings


def _address(context: click.Context, parameter: click.Parameter, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def top_command(settings: MetricsSettings) -> click.Command:
    """Return the command `mxgw top`. Without --at the command reads the endpoint at the address in `settings`."""

    @click.command("top", short_help="Show a gateway's figures on one screen, from its metrics.")
    @click.option(
        "--at",
        "address",
        callback=_address,
        default=settings.listen,
        envvar="MXGWCLI_METRICS",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="Where the gateway serves its metrics (plugins.metrics.listen).",
    )
    @click.option(
        "--interval",
        "interval_s",
        type=NumberRange(0.2, 60),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between two looks; rates are those of this time.",
    )
    @click.option("--once", is_flag=True, help="Look twice, print what came of it, and end. So it is in a pipe, too.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per look, and nothing else on stdout.")
    def top(address: Address, interval_s: float, once: bool, as_json: bool) -> None:
        """Show a gateway's figures on one screen, from its metrics.

        The gateway needs the plugin metrics enabled. A line with ! in front deserves a look; docs/monitoring.md says
        what it may mean. Ctrl-C ends it.
        """
        if importlib.util.find_spec("prometheus_client") is None:
            raise click.ClickException(
                "mxgw top needs prometheus-client, which is not installed: pip install 'mxgw[metrics]'"
            )
        from mxgw_metrics.top.run import watch

        watch(address, interval_s, once=once or not (as_json or sys.stdout.isatty()), as_json=as_json)

    return top
