"""`mxgw dashboard`: options only; the app itself, and textual, are imported when it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

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
    help="host:port, [ipv6]:port or unix:/path of the gateway.",
)
@click.option("--user", default="", metavar="NAME", help="Name to log in with; the password is asked for in the app.")
@click.option("--ca", type=_FILE, envvar="MXGWCLI_CA", metavar="FILE", help="PEM file of the CA to trust: TLS.")
@click.option("--cert", type=_FILE, envvar="MXGWCLI_CERT", metavar="FILE", help="Client certificate (PEM).")
@click.option("--key", type=_FILE, envvar="MXGWCLI_KEY", metavar="FILE", help="Its private key (PEM).")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.25, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks at the gateway.",
)
@click.option("--record", type=_FILE, metavar="FILE", help="Also write everything shown to FILE, for a later --replay.")
@click.option("--replay", type=_FILE, metavar="FILE", help="Show a recording instead of a gateway.")
@click.option("--theme", type=click.Choice(["dark", "light"]), default="dark", show_default=True, help="Colours.")
def dashboard(
    target: str,
    user: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    interval_s: float,
    record: Path | None,
    replay: Path | None,
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
    if importlib.util.find_spec("textual") is None:
        raise click.ClickException("the dashboard needs textual, which is not installed: pip install 'mxgw[dashboard]'")
    from mxgw_dashboard_tui.tui.run import Options, run

    run(Options(target, user, ca, cert, key, interval_s, record, replay, theme))
