"""Checks that this machine is fit for a gateway: versions, clock, limit of open files, memory, and user."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mxgw_cli.doctor.report import Check, failed, ok, skipped, warning
from mxgw_cli.render import bytes_text
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import MIB, LimitSettings
from mxgw_core.shells import ADMINISTRATOR_WORD, clock_command
from mxgw_core.workers.interpreter import check_python
from mxgw_worker.platform import clock_is_synchronised, is_administrator, memory_bytes, open_file_limit, quoted

AREA = "Machine"

# How many open files the gateway needs per session: the socket to the worker, the process handle, the start-up pipe,
# the log file, and the connections of two subscribers.
FILES_PER_SESSION = 6
# How many open files the gateway needs for itself: for listening, logs, the event loop and the Python interpreter.
FILES_OF_GATEWAY = 64
# The memory that a worker with the backend `sim` uses; a worker with another backend can use more.
WORKER_BYTES = 30 * MIB


def check_versions(backend_kinds: Sequence[str]) -> list[Check]:
    """Report the versions in use, and fail when the package of a configured backend kind is missing."""
    names = ["mxgw", "grpcio", "protobuf", "pydantic"]
    detail = ", ".join(f"{name} {_version(name)}" for name in names)
    checks = [
        ok(
            AREA,
            "versions",
            f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {detail}",
        )
    ]
    if "opcua" in backend_kinds:
        try:
            checks.append(ok(AREA, "OPC UA", f"asyncua {metadata.version('asyncua')}"))
        except metadata.PackageNotFoundError:
            cure = f"Install it with the backend: {quoted(('pip', 'install', 'mxgw[opcua]'))}"
            checks.append(failed(AREA, "OPC UA", "asyncua is not installed", cure))
    return checks


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # it runs from a directory of sources
        return "(not installed)"


def check_python_of_workers(python: Path) -> Check:
    """Check that the Python which `workers.python` names can run workers."""
    try:
        facts = check_python(python)
    except SettingsError as error:
        return failed(AREA, "workers' Python", str(error), "Correct it; then run doctor again.")
    return ok(AREA, "workers' Python", f"{facts.version} with {facts.bits} bits, {python}")


def check_clock(now: float | None = None, is_synchronised: bool | None = None) -> Check:
    """Check that the clock is later than the installation of mxgw, and that a time service keeps the clock right.

    Times of events from two machines can be compared only when a time service keeps both clocks right.
    """
    now = time.time() if now is None else now
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    release = newest_file_time()
    if now < release - 86_400:
        return failed(
            AREA,
            "clock",
            f"it says {moment}, which is before this software was installed",
            f"Set the clock and switch a time service on, for example: {clock_command()}",
        )
    synchronised = clock_is_synchronised() if is_synchronised is None else is_synchronised
    if synchronised is False:
        return warning(
            AREA,
            "clock",
            f"{moment}; the kernel says no time service keeps it",
            f"Switch one on, for example: {clock_command()}. Certificates and times need it.",
        )
    return ok(AREA, "clock", moment if synchronised is None else f"{moment}, kept by a time service")


def newest_file_time() -> float:
    """Return when mxgw was installed, in seconds since 1970: the time of the newest file of this package."""
    return max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))


def check_open_files(limits: LimitSettings, soft_limit: int | None = None) -> Check:
    """Compare the limit of open files with the number that the sessions and calls in the settings need."""
    title = "open-file limit"
    if soft_limit is None:
        soft_limit = open_file_limit()
        if soft_limit is None:
            return skipped(AREA, title, "this platform has none")
        if soft_limit < 0:
            return ok(AREA, title, "none")
    needed = FILES_OF_GATEWAY + FILES_PER_SESSION * limits.sessions
    wanted = needed + limits.concurrent_calls
    cure = (
        f"Raise it to {wanted} (ulimit -n {wanted}; LimitNOFILE={wanted} in a systemd unit), "
        "or lower limits.sessions or limits.concurrent_calls."
    )
    if soft_limit < needed:
        return failed(AREA, title, f"{soft_limit}; {limits.sessions} sessions need {needed}", cure)
    if soft_limit < wanted:
        return warning(
            AREA,
            title,
            f"{soft_limit}; enough for {limits.sessions} sessions, but not if each of {limits.concurrent_calls} calls "
            "comes on a connection of its own",
            cure,
        )
    return ok(AREA, title, f"{soft_limit}; {wanted} are wanted")


def check_memory(limits: LimitSettings, present_bytes: int | None = None) -> Check:
    """Compare the memory that the events and workers of all sessions can use with the memory of the machine."""
    title = "memory"
    present = memory_bytes() if present_bytes is None else present_bytes
    if not present:
        return skipped(AREA, title, "this platform does not tell how much there is")
    allowed, workers = limits.memory_bytes, limits.sessions * WORKER_BYTES
    facts = f"limits.memory_bytes is {bytes_text(allowed)} of {bytes_text(present)}"
    if allowed > present // 2:
        cure = f"Lower it to {present // 4 // MIB * MIB} or so: the workers and their sources need memory, too."
        return warning(AREA, title, f"{facts}: more than half", cure)
    if allowed + workers > present:
        return warning(
            AREA,
            title,
            f"{facts}, and {limits.sessions} workers take about {bytes_text(workers)}: together more than there is",
            "Lower limits.memory_bytes or limits.sessions.",
        )
    return ok(AREA, title, facts)


def check_user() -> Check | None:
    """Return a warning when the present user has all rights on this machine, otherwise None."""
    if is_administrator():
        return warning(
            AREA, "user", ADMINISTRATOR_WORD, "Run the gateway as a user of its own: it needs no privileges."
        )
    return None
