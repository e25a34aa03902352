"""`mxgw doctor`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw doctor", "check this machine with the settings that `mxgw serve` would read here"),
    ("mxgw doctor --settings /etc/mxgw/settings.toml", "check what a service will use; run it as the service's user"),
    ("mxgw doctor --json | jq '.checks[] | select(.outcome==\"failed\")'", "for a script"),
]


@click.command(
    cls=Command, short_help="Check this machine and these settings; each problem with its cure.", examples=EXAMPLES
)
@settings_options
@click.option("--no-backends", is_flag=True, help="Do not start workers, and leave the backends' sources alone.")
@json_option()
def doctor(settings: SettingsChoice, no_backends: bool, as_json: bool) -> None:
    """Check this machine and these settings; each problem with its cure.

    Everything is really tried: addresses are bound, files written, a TLS handshake made, and for every configured
    backend a worker is started by a private gateway that goes away again. Nothing that runs already is touched.
    Exit code 1 when something failed; warnings do not count.
    """
    from mxgw_cli.doctor.run import examine

    examine(settings, with_backends=not no_backends, as_json=as_json)
