"""`mxgw restore`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw restore mxgw-backup.tar --set gateway.data_dir=/var/lib/mxgw", "before the gateway's first start there"),
    ("mxgw restore mxgw-backup.tar --set gateway.data_dir=/tmp/look", "see what is in it, without any risk"),
]


@click.command(cls=Command, short_help="Put a backup onto a fresh data directory.", examples=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@settings_options
@json_option()
def restore(file: Path, settings: SettingsChoice, as_json: bool) -> None:
    """Put a backup onto gateway.data_dir, which must be empty or not exist.

    The whole file is checked before anything is written. Settings files are put below restored-settings/, for you to
    compare. The restored gateway is a new one: it touches no worker of the one that was backed up. Run this as the
    gateway's user.
    """
    from mxgw_cli.restore.run import restore_backup

    restore_backup(settings, file, as_json=as_json)
