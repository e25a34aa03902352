"""`mxgw service start`, `stop` and `status`."""

from __future__ import annotations

import contextlib
import time
from collections import deque

import click

from mxgw_cli.render import write_json
from mxgw_cli.service.common import REFUSED_SETTINGS, as_failures, facts_of, record_of, windows_services
from mxgw_cli.service.places import data_dir_of, log_file_in, settings_of
from mxgw_cli.shell import CliFailure, ExitCode, SilentFailure
from mxgw_core.api.errors import SettingsError
from mxgw_core.data_directory import request_end_of_sessions
from mxgw_core.printable import printable
from mxgw_worker.platform.services import ServiceFacts, ServiceRecord, Services, ServiceState

_LOOK_EVERY_S = 0.2
_LOG_LINES = 8


def start_service(name: str, timeout_s: float) -> None:
    """Start the service, and wait until clients can connect.

    Raises:
        CliFailure: it does not start, or the system refuses.
    """
    services = windows_services()
    with as_failures(name):
        record = record_of(services, name)
        began = time.perf_counter()
        if facts_of(services, name).state is not ServiceState.RUNNING:
            services.start(name)
        while (facts := facts_of(services, name)).state is ServiceState.STARTING:
            if time.perf_counter() - began > timeout_s:
                raise CliFailure(f"the service {name} is still starting after {timeout_s:g} s")
            time.sleep(_LOOK_EVERY_S)
    if facts.state is not ServiceState.RUNNING:
        raise _not_started(name, record, facts)
    click.echo(f"The service {name} runs (pid {facts.pid}).")


def stop_service(name: str, timeout_s: float, *, end_sessions: bool = False) -> None:
    """Let the service drain, and wait until it has stopped.

    Raises:
        CliFailure: it is not installed, does not stop in time, or the system refuses.
    """
    services = windows_services()
    with as_failures(name):
        record = record_of(services, name)
        seconds = stop_and_wait(services, name, timeout_s, end_sessions=end_sessions)
    if seconds is None:
        click.echo(f"The service {name} does not run.")
        return
    click.echo(f"The service {name} has stopped after {seconds:.1f} s.")
    if not end_sessions and _keeps_sessions(record):
        click.echo("Sessions whose workers still run wait for the next start (plugin reattach).")


def stop_and_wait(services: Services, name: str, timeout_s: float, *, end_sessions: bool) -> float | None:
    """Stop the service, and return how many seconds this took; None when it does not run.

    Raises:
        CliFailure: it does not stop in time.
        OSError: the system refuses.
    """
    if facts_of(services, name).state is ServiceState.STOPPED:
        return None
    began = time.perf_counter()
    record = services.records().get(name)
    if end_sessions and record is not None and (data_dir := data_dir_of(record)) is not None:
        with contextlib.suppress(FileNotFoundError):  # the gateway has not come so far
            request_end_of_sessions(data_dir)
    services.stop(name)
    while facts_of(services, name).state is not ServiceState.STOPPED:
        if time.perf_counter() - began > timeout_s:
            raise CliFailure(
                f"the service {name} has not stopped within {timeout_s:g} s", hint="Its log says what it waits for."
            )
        time.sleep(_LOOK_EVERY_S)
    return time.perf_counter() - began


def show_status(name: str, *, as_json: bool) -> None:
    """Show what the service does now.

    Raises:
        CliFailure: it is not installed (exit code 1) or does not run (exit code 3).
    """
    services = windows_services()
    with as_failures(name):
        facts = facts_of(services, name)
        record = services.records().get(name)
    if as_json:
        write_json(
            {
                "name": name,
                "state": facts.state.value,
                "pid": facts.pid,
                "account": facts.account,
                "settings": None if record is None else str(record.settings),
                "command": facts.command,
                "exit_code": facts.own_code or facts.exit_code,
            }
        )
    else:
        click.echo(f"{name}: {facts.state.value}" + (f", pid {facts.pid}" if facts.pid else ""))
        click.echo(f"account:  {facts.account}\ncommand:  {facts.command}")
        if record is not None:
            click.echo(f"settings: {record.settings}")
            if (data_dir := data_dir_of(record)) is not None:
                click.echo(f"data:     {data_dir}\nlog:      {log_file_in(data_dir)}")
        if facts.own_code == REFUSED_SETTINGS:
            click.echo("It refused its settings when it was started last; see the event log.")
    if facts.state is not ServiceState.RUNNING:
        raise SilentFailure(ExitCode.UNREACHABLE)


def _keeps_sessions(record: ServiceRecord) -> bool:
    try:
        loaded = settings_of(record.settings)
    except (SettingsError, OSError):
        return False
    return "reattach" in loaded.settings.plugins.enabled


def _not_started(name: str, record: ServiceRecord, facts: ServiceFacts) -> CliFailure:
    """Return the failure of a start, with its reason as far as this process can find it out."""
    hint = f"The event log has the reason: Application, source {name}."
    if facts.own_code == REFUSED_SETTINGS:
        what = f"the service {name} refuses its settings {record.settings}"
        try:
            settings_of(record.settings)
        except SettingsError as error:
            return CliFailure(what + ":\n  " + "\n  ".join(str(error).splitlines()), hint=hint)
    else:
        what = f"the service {name} has ended (code {facts.own_code or facts.exit_code})"
    lines: deque[str] = deque(maxlen=_LOG_LINES)
    with contextlib.suppress(OSError):
        if (data_dir := data_dir_of(record)) is not None:
            with log_file_in(data_dir).open(encoding="utf-8", errors="replace") as file:
                lines.extend(file)
    if lines:
        what += "; the end of its log:\n" + "\n".join(f"  {printable(line.rstrip(), 300)}" for line in lines)
    return CliFailure(what, hint=hint)
