"""Checks whether workers can outlive the gateway on this machine.

By default, systemd and containers end all processes of a service together, so the workers would end with the gateway.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from mxgw_core.api import control_group

_TIMEOUT_S = 3.0
_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")


def unit_of(cgroup: str) -> str | None:
    """Return the name of the systemd service in which a process runs; None when the process is in no service.

    `cgroup` is the text of /proc/PID/cgroup. When one service is inside another, the inner service is returned: a
    service of a user is inside the service of that user's manager.
    """
    found = [unit for line in cgroup.splitlines() for unit in _UNIT.findall(line.partition("::")[2])]
    return found[-1] if found else None


def kill_mode_of(unit: str, run: Callable[[Sequence[str]], str] | None = None) -> str:
    """Return the systemd setting KillMode of a unit; "" when systemd does not report it."""
    ask = run or _run
    for scope in ((), ("--user",)):
        mode = ask(["systemctl", *scope, "show", "--property=KillMode", "--value", unit]).strip()
        if mode:
            return mode
    return ""


def _run(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def warnings_in(pid: int, cgroup: str, invocation_id: str, kill_mode: Callable[[str], str]) -> list[str]:
    """Return warnings, each with its remedy, when something would end the workers together with the gateway.

    `pid` is the process id of the gateway, `cgroup` the text of its /proc/PID/cgroup, `invocation_id` the environment
    variable INVOCATION_ID, and `kill_mode` returns the KillMode of a unit.
    """
    if pid == 1:
        return [
            "the gateway is process 1 of its container: when it ends the container ends, and the workers with it; "
            "start it below an init and a supervisor that restarts it inside, or disable reattach"
        ]
    unit = unit_of(cgroup)
    # A gateway that was started by hand, in a terminal or by a test, can be in the control group of a service as well.
    # systemd sets INVOCATION_ID for a process that it starts itself.
    if unit is None or not invocation_id:
        return []
    mode = kill_mode(unit)
    if mode in ("process", "none"):
        return []
    cure = "use the drop-in contrib/systemd/mxgw.service.d/reattach.conf (KillMode=process), see docs/reattach.md"
    if not mode:
        return [f"cannot tell whether systemd leaves the workers of {unit} alive when the gateway ends: {cure}"]
    return [f"systemd ends the workers of {unit} together with the gateway (KillMode={mode}): {cure}"]


def warnings_of() -> list[str]:
    """Return the warnings for this process. The function can block for some seconds, so call it in a thread."""
    return warnings_in(os.getpid(), control_group(), os.environ.get("INVOCATION_ID", ""), kill_mode_of)
