"""Checks that the gateway's data directory exists or can be made, is writable and private, and has free space."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mxgw_cli.doctor.report import Check, Outcome, failed, ok, warning
from mxgw_core.api.errors import SettingsError
from mxgw_core.data_directory import check_data_dir
from mxgw_core.shells import directory_command, ownership_command
from mxgw_worker.platform import current_user, exposure, owner_of, privacy_command

AREA = "Directories"

LOW_SPACE_BYTES = 256 * 1024 * 1024


def check_data_directory(path: Path) -> list[Check]:
    """Check gateway.data_dir. When it does not exist yet, check whether this user can make it."""
    title = f"data_dir {path}"
    full = path.absolute()
    checks: list[Check] = []
    if full.exists():
        checks.append(_check_existing(title, full))
    else:
        parent = next(parent for parent in full.parents if parent.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            checks.append(ok(AREA, title, "does not exist yet; it will be made"))
        else:
            checks.append(
                failed(
                    AREA,
                    title,
                    f"does not exist, and {parent} is not writable for this user",
                    f"Make it: {directory_command(full)}. Or choose another gateway.data_dir.",
                )
            )
    if not any(check.outcome is Outcome.FAILED for check in checks):
        try:
            check_data_dir(path)
        except SettingsError as error:
            what, _, cure = str(error).rpartition(": ")
            checks = [failed(AREA, title, what, f"{cure[:1].upper()}{cure[1:]}.")]
    return [*checks, _check_space("disk space", full)]


def _check_existing(title: str, path: Path) -> Check:
    if not path.is_dir():
        return failed(AREA, title, "is not a directory", "Move the file away, or choose another gateway.data_dir.")
    if (owner := owner_of(path)) != current_user():
        return failed(
            AREA,
            title,
            f"belongs to user {owner}, not to this one",
            f"Change its owner: {ownership_command(path)}",
        )
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as probe:
            probe.write(b"mxgw")
            probe.flush()
    except OSError as error:
        cure = f"Make it writable: {privacy_command(path, is_directory=True)}"
        return failed(AREA, title, f"cannot be written: {error.strerror}", cure)
    if access := exposure(path):
        return failed(
            AREA,
            title,
            f"others may enter it ({access})",
            f"It holds worker sockets; make it private: {privacy_command(path, is_directory=True)}",
        )
    return ok(AREA, title, "writable and private")


def _check_space(title: str, path: Path) -> Check:
    existing = next(candidate for candidate in (path, *path.parents) if candidate.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free < LOW_SPACE_BYTES:
        return warning(AREA, title, detail, "Make room: workers write their logs there.")
    return ok(AREA, title, detail)
