"""`mxgw drain`: finds the gateway's process by the lock of its data directory, and asks it to stop.

The process is held meanwhile, so that the request cannot reach another process that later gets the same pid.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, ExitCode
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import request_end_of_sessions
from mxgw_worker.platform import HeldProcess, can_hold_processes, holder_of

# How many seconds the gateway has after the drain and the end of its workers, for example to close files.
_MARGIN_S = 10.0


def drain_gateway(settings: Settings, *, end_sessions: bool, timeout_s: float | None, as_json: bool) -> None:
    """Ask the gateway to stop, wait until it has ended, and print how long this took.

    Raises:
        CliFailure: no gateway runs on the data directory, it runs as another user, or it does not end in time.
    """
    directory = settings.gateway.data_dir.absolute()
    began = time.perf_counter()
    process = _gateway_of(directory)
    pid = process.pid
    try:
        if end_sessions:
            request_end_of_sessions(directory)
        process.terminate()
        limits = settings.gateway.drain_timeout_s + settings.workers.stop_grace_s + _MARGIN_S
        wait_s = limits if timeout_s is None else timeout_s
        if not process.wait(wait_s):
            raise CliFailure(
                f"the gateway (pid {pid}) has not ended within {wait_s:g} s",
                hint="Its log says what it waits for; a second `mxgw drain` ends it at once.",
            )
    except PermissionError:
        raise CliFailure(f"the gateway (pid {pid}) belongs to another user", hint="Run this as that user.") from None
    finally:
        process.close()
    seconds = time.perf_counter() - began
    if as_json:
        write_json({"pid": pid, "seconds": round(seconds, 3)})
    else:
        click.echo(f"The gateway (pid {pid}) ended after {seconds:.1f} s.")


def _gateway_of(directory: Path) -> HeldProcess:
    """Return the gateway that has the lock of `directory`."""
    if not can_hold_processes():
        raise CliFailure("this platform cannot signal a process safely", hint="End the gateway with Ctrl-C instead.")
    pid = holder_of(directory)
    if pid is None:
        raise _nobody(directory)
    if pid == 0:
        raise CliFailure(
            f"a gateway runs on {directory}, but the file `lock` there, which named it, was removed or replaced",
            hint="Stop the gateway yourself, with Ctrl-C or through its service; nothing was ended.",
        )
    try:
        process = HeldProcess(pid)
    except ProcessLookupError:
        raise _nobody(directory) from None
    # When the lock has another holder now, the gateway has ended, and perhaps another process has got its pid.
    if holder_of(directory) != pid:
        process.close()
        raise _nobody(directory)
    return process


def _nobody(directory: Path) -> CliFailure:
    return CliFailure(
        f"no gateway runs on {directory}",
        hint="--settings or --set gateway.data_dir=... names the directory of the gateway that is meant.",
        exit_code=ExitCode.UNREACHABLE,
    )
