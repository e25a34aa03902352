"""`mxgw browse`: its options, help and examples."""

from __future__ import annotations

import click

from mxgw_cli.options import GatewayTarget, gateway_options
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, json_option

EXAMPLES = [
    ("mxgw browse", "the top of the tree"),
    ("mxgw browse --depth 3", "three levels deep"),
    ("mxgw browse Plant", "below one node"),
    ("mxgw browse --depth 9 --filter level", "every tag with `level` in its name"),
    ("mxgw browse Tank_001 --metadata", "with units and ranges"),
    ("mxgw browse --depth 9 --json | jq -r .reference", "all references, one per line"),
]


@click.command(cls=Command, short_help="Show what a backend offers, as a tree.", examples=EXAMPLES)
@click.argument("path", default="", metavar="[PATH]")
@click.option("--depth", type=click.IntRange(1, 20), default=1, show_default=True, help="How many levels to show.")
@click.option("--filter", "name_contains", default="", metavar="TEXT", help="Only tags with this text in their name.")
@click.option("--metadata", is_flag=True, help="Show units, ranges and types as well, where the backend knows them.")
@click.option("--backend", default="", metavar="NAME", help="Backend of the session to open; default: the gateway's.")
@click.option("--session", "session_id", default="", metavar="ID", help="Use this session instead of opening one.")
@gateway_options
@json_option("Print JSON lines, one per node, parents before children.")
def browse(
    path: str,
    depth: int,
    name_contains: str,
    metadata: bool,
    backend: str,
    session_id: str,
    gateway: GatewayTarget,
    as_json: bool,
) -> None:
    """Show what a backend offers, as a tree. PATH is a node's path as `--json` shows it; empty is the top.

    The end of a line is the reference to use with read, write and stream, where it differs from the name. MXAccess
    itself cannot browse; whether mxgw can depends on the backend.
    """
    from mxgw_cli.browse.run import BrowseRequest, browse_tree

    request = BrowseRequest(path, depth, name_contains, backend, session_id, as_json, metadata)
    run(lambda: browse_tree(gateway, request))
