"""`mxgw service`: its options, help and examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mxgw_cli.options import ENV_PREFIX, chosen_before
from mxgw_core.command_line import Command, Group, NumberRange, json_option

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NAME = "mxgw"

EXAMPLES = [
    ("mxgw service install", "as the account NT SERVICE\\mxgw, with settings in C:\\ProgramData\\mxgw"),
    ("mxgw service start", "and wait until clients can connect"),
    ("mxgw service status", "what it does now"),
    ("mxgw service stop", "drain, and wait for the end"),
]
INSTALL_EXAMPLES = [
    ("mxgw service install", "everything at its usual place"),
    ("mxgw service install --settings D:\\mxgw.toml --account PLANT\\svc", "asks for the password"),
    ("mxgw service install --name test --settings D:\\test.toml --manual", "a second one beside it"),
]


def _name_option(function: F) -> F:
    return click.option(
        "--name",
        default=DEFAULT_NAME,
        show_default=True,
        metavar="NAME",
        callback=_checked_name,
        help="Name of the service.",
    )(function)


def _checked_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value or len(value) > 80 or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in value):
        raise click.BadParameter("A name has up to 80 letters, digits, dots, - and _.", context, parameter)
    return value


def _timeout_option(function: F) -> F:
    return click.option(
        "--timeout",
        "timeout_s",
        type=NumberRange(min=1, max=3600),
        default=120.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait at most.",
    )(function)


@click.group(cls=Group, short_help="Run the gateway as a Windows service.", examples=EXAMPLES)
@click.pass_context
def service(context: click.Context) -> None:
    """Install the gateway as a Windows service, and start, stop or remove it. Needs an administrator's rights.

    The service reads one settings file and the secrets beside it, logs to logs\\service.log in gateway.data_dir, and
    reports what happens in the event log. Under Linux this is the task of systemd: docs/operations.md.
    """
    before = chosen_before(context.find_root())
    if before.overrides:
        raise click.UsageError("A service reads no --set: write the value into its settings file.")


@service.command(cls=Command, short_help="Install the service, or change it.", examples=INSTALL_EXAMPLES)
@_name_option
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=ENV_PREFIX + "SETTINGS",
    show_envvar=True,
    metavar="FILE",
    help="Its settings; by default settings.toml in C:\\ProgramData\\NAME, which is made if need be.",
)
@click.option(
    "--account",
    default="",
    metavar="ACCOUNT",
    help="Account to run as: LocalService, DOMAIN\\user, a managed account (DOMAIN\\name$), ...; by default "
    "NT SERVICE\\NAME, which needs no password.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with the password of the account, which only you can read. Without it you are asked.",
)
@click.option(
    "--depends-on",
    multiple=True,
    metavar="SERVICE",
    help="A service to start first, for example that of the platform.",
)
@click.option("--manual", is_flag=True, help="Let it start by hand only, not shortly after the system.")
def install(
    name: str,
    settings_file: Path | None,
    account: str,
    password_file: Path | None,
    depends_on: tuple[str, ...],
    manual: bool,
) -> None:
    """Install the service, or change one that is installed; it is not started.

    The account gets its settings to read and gateway.data_dir to write. Nobody but it and administrators keeps access
    to these.
    """
    from mxgw_cli.service.installing import install_service

    before = chosen_before(click.get_current_context().find_root()).file
    install_service(
        name,
        settings_file or before,
        account=account,
        password_file=password_file,
        depends_on=depends_on,
        starts_with_system=not manual,
    )


@service.command(
    cls=Command,
    short_help="Remove the service; its data stays.",
    examples=[("mxgw service uninstall", "stop it, end its sessions, remove it")],
)
@_name_option
@_timeout_option
def uninstall(name: str, timeout_s: float) -> None:
    """Stop the service, end the sessions whose workers would wait for the next gateway, and remove the service.

    Settings and gateway.data_dir stay where they are.
    """
    from mxgw_cli.service.installing import uninstall_service

    uninstall_service(name, timeout_s)


@service.command(
    cls=Command, short_help="Start the service.", examples=[("mxgw service start", "until clients can connect")]
)
@_name_option
@_timeout_option
def start(name: str, timeout_s: float) -> None:
    """Start the service, and wait until clients can connect. When it does not start, say why."""
    from mxgw_cli.service.operating import start_service

    start_service(name, timeout_s)


@service.command(
    cls=Command,
    short_help="Stop the service in order.",
    examples=[
        ("mxgw service stop", "for an upgrade: with the plugin reattach, sessions wait for the next start"),
        ("mxgw service stop --end-sessions", "end them as well"),
    ],
)
@_name_option
@click.option("--end-sessions", is_flag=True, help="Also end the sessions whose workers would wait for the next start.")
@_timeout_option
def stop(name: str, end_sessions: bool, timeout_s: float) -> None:
    """Let the gateway drain, and wait until the service has stopped. Services that depend on it are not stopped."""
    from mxgw_cli.service.operating import stop_service

    stop_service(name, timeout_s, end_sessions=end_sessions)


@service.command(
    cls=Command,
    short_help="Stop the service and start it again.",
    examples=[("mxgw service restart", "after a change of its settings")],
)
@_name_option
@_timeout_option
def restart(name: str, timeout_s: float) -> None:
    """Stop the service in order and start it again. With the plugin reattach, sessions live on."""
    from mxgw_cli.service.operating import start_service, stop_service

    stop_service(name, timeout_s)
    start_service(name, timeout_s)


@service.command(
    cls=Command,
    short_help="Show what the service does.",
    examples=[("mxgw service status --json", "for a script")],
)
@_name_option
@json_option("Print one JSON object: name, state, pid, account, settings, command, exit_code.")
def status(name: str, as_json: bool) -> None:
    """Show what the service does now. Exit code 3 when it does not run, 1 when it is not installed."""
    from mxgw_cli.service.operating import show_status

    show_status(name, as_json=as_json)


@service.command(
    cls=Command,
    short_help="What Windows runs; not for the command line.",
    examples=[("mxgw service run --name mxgw", "only in the service itself")],
)
@_name_option
def run(name: str) -> None:
    """Run the gateway as the service that Windows has started. Elsewhere this fails; `mxgw serve` runs a gateway."""
    from mxgw_cli.service.hosting import run_service

    run_service(name)
