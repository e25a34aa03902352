"""`mxgw stream`: its options, help and examples."""

from __future__ import annotations

from pathlib import Path

import click

from mxgw_cli.options import GatewayTarget, gateway_options
from mxgw_cli.shell import run
from mxgw_core.command_line import Command, NumberRange, json_option

EXAMPLES = [
    ("mxgw stream Tank_001.Level Pump_001.Speed", "follow two tags until Ctrl-C"),
    ("mxgw stream Tank_001.Level --json | jq .value", "JSON lines for a script"),
    ("mxgw stream --session LuIKr0 --start now", "watch a session of another client (needs fan-out)"),
    ("mxgw stream --session LuIKr0 --start after:mxgw1.0a1b.4711", "continue after a position, as printed at the end"),
    ("mxgw stream Tank_001.Level --policy conflate", "only the newest values, when this reader falls behind"),
    ("mxgw stream Tank_001.Level --resume-file level.pos", "go on where the last run stopped, however it stopped"),
]


@click.command(cls=Command, short_help="Follow tags: one line per event, gaps included.", examples=EXAMPLES)
@click.argument("tags", nargs=-1, metavar="TAG...")
@click.option(
    "--start",
    default="oldest",
    show_default=True,
    metavar="oldest|now|after:POSITION",
    help="Where to begin: what the log still holds, only what is new, or after a position.",
)
@click.option("--backend", default="", metavar="NAME", help="Backend of the session to open; default: the gateway's.")
@click.option("--session", "session_id", default="", metavar="ID", help="Use this session instead of opening one.")
@click.option(
    "--resume-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the position in FILE and continue after it: after a cut, and in the next run. The session stays open.",
)
@click.option(
    "--policy", default="", metavar="NAME", help="The overflow policy of this reader; default: the gateway's."
)
@click.option(
    "--policy-parameter",
    "policy_parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the policy; may be repeated.",
)
@click.option(
    "--deadband",
    default="",
    metavar="NUMBER|PERCENT%",
    help="Only changes by more than this, in the unit of the tags or in percent of their range. Not on every backend.",
)
@click.option(
    "--sampling-interval",
    type=NumberRange(min=0, max=3600),
    metavar="SECONDS",
    help="How often the source looks at the tags. Not on every backend.",
)
@click.option("--duration", type=NumberRange(min=0.1), metavar="SECONDS", help="End after this long.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after this many events.")
@gateway_options
@json_option("Print JSON lines: opened, event, gap, end; nothing else on stdout.")
def stream(
    tags: tuple[str, ...],
    start: str,
    backend: str,
    session_id: str,
    resume_file: Path | None,
    policy: str,
    policy_parameters: tuple[str, ...],
    deadband: str,
    sampling_interval: float | None,
    duration: float | None,
    count: int | None,
    gateway: GatewayTarget,
    as_json: bool,
) -> None:
    """Follow tags: one line per event, in order, and a visible line wherever events were lost.

    Opens a session of its own and closes it at the end, unless --session names one; then TAGs are subscribed in that
    session, and without TAGs it shows what the session is subscribed to already. The reason for which a stream ends
    goes to stderr (with --json: into the last line as well).

    With --resume-file the session is kept instead, and FILE names it and the last line that was written. The same
    command continues after that line; nothing is missing, except what a gap line says. --start counts while there is no
    FILE yet. How long a session without a reader is kept, and how much of it, is the gateway's choice (plugin replay).
    """
    if not tags and not session_id and (resume_file is None or not resume_file.exists()):
        raise click.UsageError("Name at least one TAG, or a session with --session. `mxgw browse` shows tags.")
    if session_id and backend:
        raise click.UsageError("--backend is for a new session; the one of --session has its own.")
    from mxgw_cli.stream.run import StreamRequest, follow, item_options_of, policy_of, start_of

    request = StreamRequest(
        *(tags, start_of(start), backend, session_id, duration, count, as_json, resume_file),
        policy=policy_of(policy, policy_parameters),
        item_options=item_options_of(deadband, sampling_interval),
    )
    run(lambda: follow(gateway, request))
