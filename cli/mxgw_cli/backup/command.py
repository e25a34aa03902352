"""`mxgw backup`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw backup mxgw-backup.tar", "of the gateway whose settings are here, running or not"),
    ("mxgw backup --settings /etc/mxgw/settings.toml --force /backup/mxgw.tar", "every night, the last one replaced"),
    ("mxgw backup mxgw.tar --json | jq -r '.left_out[]'", "what else this gateway needs"),
]


@click.command(cls=Command, short_help="Copy keys, audit log and settings into one file.", examples=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@settings_options
@json_option()
def backup(file: Path, force: bool, settings: SettingsChoice, as_json: bool) -> None:
    """Copy keys, audit log and settings into one file, private to you.

    The gateway may run meanwhile: databases are copied as of one moment, the audit log up to its last whole line. Each
    enabled plugin says which files it wants in a backup. Run this as the gateway's user, with the gateway's settings.
    """
    from mxgw_cli.backup.run import make_backup

    make_backup(settings, file, replace=force, as_json=as_json)
