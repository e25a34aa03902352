"""`mxgw conformance`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.shell import run as run_until_done
from mxgw_core.command_line import Command, Group, json_option

_TESTEE = "python -m mxgw_cli.conformance.testee"
EXAMPLES = [
    (f'mxgw conformance run --testee "{_TESTEE}"', "the Python client"),
    ("mxgw conformance run --testee ./testee gaps", "one group of scenarios, or all with a word in their name"),
    ("mxgw conformance serve resume-of-a-reset", "one scenario, for a client that is being written"),
]

_folder = click.option(
    "--scenarios",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Scenarios of your own instead of those of mxgw.",
)


@click.group(cls=Group, short_help="Check that a client library keeps the rules of mxgw.", examples=EXAMPLES)
def conformance() -> None:
    """Check that a client library keeps the rules of mxgw.

    A scripted gateway plays scenarios: openings, batches, gaps, cuts of the connection, silence, refusals. A testee, a
    small program around the client library, does what it is asked to and reports what it got; its protocol is in
    docs/clients/conformance.md.
    """


@conformance.command(cls=Command, short_help="Play scenarios for a testee, and judge it.", examples=EXAMPLES[:2])
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--testee", required=True, metavar="CMD", help="The command that starts the testee.")
@click.option(
    "--expected-failures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Names of scenarios that fail for now, one on each line.",
)
@_folder
@click.option("--verbose", is_flag=True, help="Name the scenarios that passed, too.")
@json_option("Print one JSON object and nothing else on stdout.")
def run(
    words: tuple[str, ...],
    testee: str,
    expected_failures: Path | None,
    folder: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Play scenarios for a testee, and judge what it reports.

    WORDs are groups, or parts of names. Exit code 1 when a scenario fails that is not among the expected failures, and
    when one passes that is.
    """
    from mxgw_cli.conformance.run import judge

    run_until_done(
        lambda: judge(testee, words, failures=expected_failures, folder=folder, as_json=as_json, verbose=verbose)
    )


@conformance.command(cls=Command, short_help="Play one scenario for any client.", examples=EXAMPLES[2:])
@click.argument("name")
@_folder
def serve(name: str, folder: Path | None) -> None:
    """Play the gateway of one scenario on a free port of this machine, until Ctrl-C."""
    from mxgw_cli.conformance.run import serve

    run_until_done(lambda: serve(name, folder=folder))


@conformance.command("list", cls=Command, short_help="List the scenarios.", examples=[("mxgw conformance list", "")])
@_folder
@json_option("Print a JSON list.")
def list_(folder: Path | None, as_json: bool) -> None:
    """List the scenarios, each with what a client does in it."""
    from mxgw_cli.conformance.run import list_scenarios

    list_scenarios(folder, as_json=as_json)
