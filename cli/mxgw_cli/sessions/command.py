"""`mxgw sessions`: its options, help and examples."""

from __future__ import annotations

import sys

import click

from mxgw_cli.options import GatewayTarget, gateway_options, was_set_before
from mxgw_cli.shell import CliFailure, run
from mxgw_core.command_line import Command, Group, json_option

EXAMPLES = [
    ("mxgw sessions", "what is open"),
    ("mxgw sessions --watch", "the same, kept up to date"),
    ("mxgw sessions show LuIKr0", "everything about one; the beginning of its id will do, and `show` may be left out"),
    ("mxgw sessions LuIKr0 --watch", "who follows it, how far behind they are and what they lost, kept up to date"),
    ("mxgw sessions close LuIKr0", "end one, after asking"),
]
CLOSE_EXAMPLES = [
    ("mxgw sessions close LuIKr0", "asks first"),
    ("mxgw sessions close LuIKr0 CkI59M --yes", "several, without asking"),
]


class _SessionsGroup(Group):
    """Makes `mxgw sessions ID` a short form of `mxgw sessions show ID`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_SessionsGroup,
    invoke_without_command=True,
    short_help="List, inspect or close the sessions of a gateway.",
    examples=EXAMPLES,
    subcommand_metavar="[SESSION | COMMAND [ARGS]...]",
)
@click.option("--all", "include_ended", is_flag=True, help="Also sessions that ended lately, with their reason.")
@click.option("--watch", is_flag=True, help="Keep the table up to date until Ctrl-C.")
@gateway_options
@json_option("Print one JSON list (with --watch: one per line and second).")
@click.pass_context
def sessions(context: click.Context, include_ended: bool, watch: bool, gateway: GatewayTarget, as_json: bool) -> None:
    """List the sessions that you may see; inspect or close one.

    Put the options of the gateway here or after the subcommand.
    """
    if context.invoked_subcommand is not None:
        return
    from mxgw_cli.sessions.run import list_sessions

    run(lambda: list_sessions(gateway, include_ended=include_ended, watch=watch, as_json=as_json))


@sessions.command(
    cls=Command,
    short_help="Show everything about one session.",
    examples=[
        ("mxgw sessions show LuIKr0 --json", "everything about the one session that begins with LuIKr0"),
        ("mxgw sessions show LuIKr0 --watch", "its subscribers, kept up to date"),
    ],
)
@click.argument("session_id", metavar="SESSION")
@click.option("--watch", is_flag=True, help="Keep the subscribers up to date until Ctrl-C, or the session ends.")
@gateway_options
@json_option("Print one JSON document (with --watch: the subscribers, one per line and second).")
def show(session_id: str, watch: bool, gateway: GatewayTarget, as_json: bool) -> None:
    """Show everything about one session: state, lease, event log, subscribers, worker, items.

    Asking the worker counts as use of the session, so this extends its lease; the list and --watch do not.
    """
    from mxgw_cli.sessions.run import show_session, watch_session

    as_json = as_json or was_set_before("as_json")
    show_one = watch_session if watch or was_set_before("watch") else show_session
    run(lambda: show_one(gateway, session_id, as_json=as_json))


@sessions.command(cls=Command, short_help="End sessions and their workers.", examples=CLOSE_EXAMPLES)
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
@json_option()
def close(session_ids: tuple[str, ...], yes: bool, gateway: GatewayTarget, as_json: bool) -> None:
    """End sessions and their workers. Streams of their clients end with SESSION_CLOSED."""
    from mxgw_cli.sessions.run import close_sessions

    as_json = as_json or was_set_before("as_json")
    if not yes:
        what = f"session {session_ids[0]}" if len(session_ids) == 1 else f"{len(session_ids)} sessions"
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask at: say --yes.")
        if not click.confirm(f"Close {what}? Its clients lose everything subscribed there.", err=True):
            raise CliFailure("nothing was closed")
    run(lambda: close_sessions(gateway, session_ids, as_json=as_json))
