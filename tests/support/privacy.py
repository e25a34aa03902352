"""Files that other users may read, and what the refusal of such a file says: by mode, or by access list on Windows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mxgw_worker import platform

# What a message about a file or directory that others may read says, to be used with `match`.
CURE = "icacls" if sys.platform == "win32" else "chmod [67]00"
OTHERS = "access of" if sys.platform == "win32" else "mode"


def open_to_others(path: Path) -> Path:
    """Let every user of the machine read a file or directory."""
    if sys.platform == "win32":
        from mxgw_worker.platform.windows import security, winapi

        # Not with icacls: Wine's does nothing. WD is everyone.
        flags = winapi.FLAG_BACKUP_SEMANTICS
        handle = winapi.create_file(str(path), winapi.READ_CONTROL | winapi.WRITE_DAC, flags=flags)
        security.set_access(handle, f"{security.private_file(is_directory=path.is_dir())}(A;;GR;;;WD)")
        winapi.close(handle)
    else:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return path


def is_private(path: Path) -> bool:
    """Return whether the present user owns a file or directory, and nobody else has access to it."""
    return platform.exposure(path) == "" and platform.owner_of(path) == platform.current_user()


def link(path: Path, target: Path) -> None:
    """Make a link to a file. Skip the test where this user cannot make links, or where Wine does not follow them."""
    try:
        path.symlink_to(target)
        path.read_bytes()
        is_link = path.is_symlink()
    except OSError:
        is_link = False
    if not is_link:
        pytest.skip("this user cannot make links that can be followed")
