"""`mxgw doctor`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.options import SettingsChoice, settings_options
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw doctor", "check this machine with the settings that `mxgw serve` would read here"),
    ("mxgw doctor --settings /etc/mxgw/settings.toml", "check what a service will use; run it as the service's user"),
    (
        "mxgw doctor --mxaccess --scratch Scratch_001 --tag Tank_001.Level",
        "on a machine with MXAccess: facts for a file",
    ),
    ("mxgw doctor --json | jq '.checks[] | select(.outcome==\"failed\")'", "for a script"),
]


@click.command(
    cls=Command, short_help="Check this machine and these settings; each problem with its cure.", examples=EXAMPLES
)
@settings_options
@click.option("--no-backends", is_flag=True, help="Do not start workers, and leave the backends' sources alone.")
@click.option("--mxaccess", is_flag=True, help="Instead, ask MXAccess on this machine what is not known, for a file.")
@click.option(
    "--scratch", metavar="OBJECT", help="With --mxaccess: tag name of the only object that may be written to."
)
@click.option("--tag", "tags", multiple=True, metavar="REFERENCE", help="With --mxaccess: a tag to read.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --mxaccess: the new file; mxaccess-facts-TIME.json here otherwise.",
)
@json_option()
def doctor(
    settings: SettingsChoice,
    no_backends: bool,
    mxaccess: bool,
    scratch: str | None,
    tags: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Check this machine and these settings; each problem with its cure.

    Everything is really tried: addresses are bound, files written, a TLS handshake made, and for every configured
    backend a worker is started by a private gateway that goes away again. Nothing that runs already is touched.
    Exit code 1 when something failed; warnings do not count.

    With --mxaccess none of this is done. It asks MXAccess on this machine what the documentation of mxgw leaves open,
    in the Python that workers.python names, and writes the answers to a file that you can look at and send: versions,
    times, types, HRESULTs, statuses, and values of the scratch object, but no other values. Without --scratch nothing
    is written to. It takes some minutes, and each step has a limit.
    """
    if mxaccess:
        if no_backends:
            raise click.UsageError("--no-backends does not go with --mxaccess.")
        from mxgw_cli.doctor.mxaccess import Questions, collect

        collect(settings, Questions(scratch or "", tags, output), as_json=as_json)
        return
    if scratch or tags or output:
        raise click.UsageError("--scratch, --tag and --output go with --mxaccess.")
    from mxgw_cli.doctor.run import examine

    examine(settings, with_backends=not no_backends, as_json=as_json)
