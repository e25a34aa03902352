"""The options of `mxgw dashboard`. The app and the library textual are imported only when the command runs."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import click

from mxgw_core.api.cli import NumberRange, address_help, check_address
from mxgw_dashboard_tui.options import Options

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("dashboard", short_help="Watch the sessions of a gateway live, and act on them.")
@click.option(
    "--connect",
    "target",
    default="127.0.0.1:50051",
    envvar="MXGWCLI_GATEWAY",
    show_default=True,
    show_envvar=True,
    metavar="TARGET",
    callback=check_address,
    help=address_help("of the gateway."),
)
# For `mxgw demo`, whose gateway accepts one key and knows no operators. Operators log in instead.
@click.option("--api-key-file", type=_FILE, hidden=True)
@click.option("--user", default="", metavar="NAME", help="Name to log in with; the password is asked for in the app.")
@click.option("--ca", type=_FILE, envvar="MXGWCLI_CA", metavar="FILE", help="PEM file of the CA to trust: TLS.")
@click.option("--cert", type=_FILE, envvar="MXGWCLI_CERT", metavar="FILE", help="Client certificate (PEM).")
@click.option("--key", type=_FILE, envvar="MXGWCLI_KEY", metavar="FILE", help="Its private key (PEM).")
@click.option(
    "--interval",
    "interval_s",
    type=NumberRange(0.25, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks at the gateway.",
)
@click.option("--record", type=_FILE, metavar="FILE", help="Also write everything shown to FILE, for a later --replay.")
@click.option("--replay", type=_FILE, metavar="FILE", help="Show a recording instead of a gateway.")
@click.option("--serve", is_flag=True, help="Show it in a browser of this machine instead of in the terminal.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    metavar="PORT",
    help="Port on loopback for --serve; 0: any that is free.",
)
@click.option(
    "--alarm-rows",
    type=click.IntRange(10, 50_000),
    default=1000,
    show_default=True,
    metavar="ROWS",
    help="At most so many of the plant's alarms are shown at once.",
)
@click.option("--theme", type=click.Choice(["dark", "light"]), default="dark", show_default=True, help="Colours.")
def dashboard(
    target: str,
    api_key_file: Path | None,
    user: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    interval_s: float,
    record: Path | None,
    replay: Path | None,
    serve: bool,
    port: int,
    alarm_rows: int,
    theme: str,
) -> None:
    """Watch the sessions of a gateway live, and act on them.

    Works over ssh, from 80x24 on, without mouse and colour (NO_COLOR). `?` shows the keys. The gateway needs the
    plugin dashboard_tui enabled.
    """
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together: give both or none.")
    if cert is not None and ca is None:
        raise click.UsageError("--cert and --key are for TLS: name the CA to trust with --ca.")
    if record is not None and replay is not None:
        raise click.UsageError("--record and --replay do not go together.")
    if serve and record is not None:
        raise click.UsageError("--serve and --record do not go together: each open page would write the same file.")
    _needs("textual", "dashboard")
    options = Options(target, user, ca, cert, key, interval_s, record, replay, theme, alarm_rows, api_key_file)
    if serve:
        _needs("textual_serve", "dashboard-web")
        from mxgw_dashboard_tui.web import WebServer

        asyncio.run(WebServer(_command_of(options), port, "mxgw dashboard").run(click.echo))
        return
    # A page of a browser sets the variable, and has pipes instead of a terminal.
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("this needs a terminal to show itself on; --serve shows it in a browser instead")
    from mxgw_dashboard_tui.tui.run import run

    run(options)


def _needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        from mxgw_core.api import quoted

        install = quoted(("pip", "install", f"mxgw[{extra}]"))
        raise click.ClickException(f"this needs {module.replace('_', '-')}, which is not installed: {install}")


def _command_of(options: Options) -> str:
    """Return the command line that starts the app with these options. It has no secrets: the app asks for passwords."""
    command = [sys.executable, "-m", "mxgw_dashboard_tui", "--connect", options.target]
    for name, value in (
        ("--user", options.user),
        ("--ca", options.ca),
        ("--cert", options.certificate),
        ("--key", options.private_key),
        ("--interval", options.interval_s),
        ("--replay", options.replay),
        ("--theme", options.theme),
        ("--alarm-rows", options.alarm_rows),
        ("--api-key-file", options.api_key_file),
    ):
        if value:
            command += [name, str(value)]
    from mxgw_core.api import quoted

    return quoted(command)
