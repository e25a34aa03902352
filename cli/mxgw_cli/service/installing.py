"""`mxgw service install` and `uninstall`: the service, its account, and who has access to settings and data."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mxgw_cli.service.common import as_failures, facts_of, windows_services
from mxgw_cli.service.operating import stop_and_wait
from mxgw_cli.service.places import absolute_data_dir, data_dir_of, settings_of, stop_limit_s
from mxgw_cli.shell import CliFailure, ExitCode
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.loader import SECRETS_FILE, SETTINGS_FILE, LoadedSettings
from mxgw_core.data_directory import is_of_others
from mxgw_core.workers.interpreter import python_command
from mxgw_worker.platform import make_directory
from mxgw_worker.platform.private_files import read_private
from mxgw_worker.platform.services import Account, ServicePlan, ServiceRecord, Services, ServiceState

# After the first, second, third and each later failure, and after which time a failure counts as the first again.
RESTART_DELAYS_S = (5.0, 30.0, 60.0)
FORGET_FAILURES_S = 3600.0

_DESCRIPTION = "gRPC gateway in front of AVEVA MXAccess: one worker process per session. Settings: {}"
# TOML takes text in single quotes as it is, so paths keep their backslashes.
_FIRST_SETTINGS = """\
# Settings of the service {name}. `mxgw config show --settings FILE` lists all of them.
[gateway]
data_dir = '{data_dir}'
"""


def install_service(
    name: str,
    settings_file: Path | None,
    *,
    account: str,
    password_file: Path | None,
    depends_on: Sequence[str],
    starts_with_system: bool,
) -> None:
    """Install the service or change it, and give its account access to settings and data.

    Raises:
        CliFailure: the settings cannot be used, there is no such account, or the system refuses.
    """
    services = windows_services()
    with as_failures(name):
        try:
            chosen = services.account(account, name)
        except LookupError as error:
            raise CliFailure(
                str(error), hint="Write DOMAIN\\name, or .\\name for an account of this machine."
            ) from None
        existing = services.facts(name)
        file = _settings_file(services, name, settings_file, chosen)
        settings = _loaded(file)
        data_dir = absolute_data_dir(file, settings.settings)
        _refuse_data_dir(data_dir)
        password = _password(chosen, password_file)
        command, environment = python_command(None, "-m", "mxgw_cli", "service", "run", "--name", name)
        plan = ServicePlan(
            name=name,
            display_name="mxgw gateway" if name == "mxgw" else f"mxgw gateway ({name})",
            description=_DESCRIPTION.format(file),
            command=command,
            environment=environment,
            account=chosen,
            depends_on=depends_on,
            starts_with_system=starts_with_system,
            restart_delays_s=RESTART_DELAYS_S,
            forget_failures_s=FORGET_FAILURES_S,
            shutdown_s=stop_limit_s(settings.settings),
            password=password,
        )
        missing = services.install(plan)
        # From now on, what this process makes in the directory can be used by the service.
        services.remember(name, ServiceRecord(file, chosen.user))
        make_directory(data_dir, parents=True, exist_ok=True)
        services.share(data_dir, chosen, may_write=True)
        for path in sorted({file, file.parent / SETTINGS_FILE, file.parent / SECRETS_FILE}):
            if path.exists():
                services.share(path, chosen, may_write=False)
        exposed = [
            f"{what} {path} can be changed by {others}"
            for what, path in (
                ("the directory of the settings", file.parent),
                *(("the program in", Path(path)) for path in sorted({sys.prefix, sys.base_prefix})),
            )
            if (others := services.others_who_write(path, chosen))
        ]
    click.echo(f"{'Installed' if existing is None else 'Changed'} the service {name}, which runs as {chosen.name}.")
    click.echo(f"Settings: {file}\nData:     {data_dir}")
    for what in missing:
        click.echo(f"This system cannot set {what}.", err=True)
    for what in exposed:
        click.echo(f"Warning: {what}, who could so act as {chosen.name}.", err=True)
    verb = "restart" if existing is not None and existing.state is ServiceState.RUNNING else "start"
    click.echo(f"`mxgw service {verb}{'' if name == 'mxgw' else f' --name {name}'}` lets it run so.")


def uninstall_service(name: str, timeout_s: float) -> None:
    """Stop the service, with its sessions, and remove it. Settings and data stay.

    Raises:
        CliFailure: it is not installed, does not stop in time, or the system refuses.
    """
    services = windows_services()
    with as_failures(name):
        facts_of(services, name)
        record = services.records().get(name)
        stop_and_wait(services, name, timeout_s, end_sessions=True)
        services.remove(name)
        services.forget(name)
    click.echo(f"Removed the service {name}.")
    if record is not None:
        click.echo(f"Its settings stay: {record.settings}")
        if (data_dir := data_dir_of(record)) is not None:
            click.echo(f"Its data stays:    {data_dir}")


def _settings_file(services: Services, name: str, given: Path | None, account: Account) -> Path:
    if given is not None:
        file = given.absolute()
        if not file.is_file():
            raise CliFailure(f"there is no settings file {file}", exit_code=ExitCode.USAGE)
        return file
    directory = services.program_data() / name
    file = directory / SETTINGS_FILE
    if not directory.exists():
        make_directory(directory)
    if not file.exists():
        file.write_text(_FIRST_SETTINGS.format(name=name, data_dir=directory / "data"), "utf-8")
    # This directory is mxgw's own. Of any other, only the settings files in it are changed.
    services.share(directory, account, may_write=False)
    return file


def _loaded(file: Path) -> LoadedSettings:
    try:
        return settings_of(file)
    except SettingsError as error:
        raise CliFailure(
            "the settings have problems:\n  " + "\n  ".join(str(error).splitlines()),
            hint="Nothing was installed. `mxgw config check` checks them again.",
        ) from None


def _refuse_data_dir(data_dir: Path) -> None:
    if data_dir.exists() and not data_dir.is_dir():
        raise CliFailure(f"gateway.data_dir {data_dir} is not a directory")
    if data_dir.parent == data_dir:
        raise CliFailure(f"gateway.data_dir {data_dir} is a whole drive: choose a directory of its own")
    with contextlib.suppress(OSError):
        if data_dir.exists() and is_of_others(data_dir):
            raise CliFailure(
                f"gateway.data_dir {data_dir} has files that are not of a gateway",
                hint="Choose an empty directory: only the service and administrators keep access to it.",
            )


def _password(account: Account, file: Path | None) -> str | None:
    if not account.needs_password:
        if file is not None:
            raise CliFailure(f"{account.name} has no password", exit_code=ExitCode.USAGE)
        return None
    if file is not None:
        try:
            return read_private(file).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise CliFailure(f"--password-file {file}: {reason}", exit_code=ExitCode.USAGE) from None
    if not sys.stdin.isatty():
        raise CliFailure(
            f"{account.name} needs a password, and there is no terminal to ask at",
            hint="Put it into a file that only you can read, and give its name with --password-file.",
            exit_code=ExitCode.USAGE,
        )
    password: str = click.prompt(f"Password of {account.name}", hide_input=True, err=True)
    return password
