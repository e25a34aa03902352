"""Files and directories that other users of the machine can use, on every platform."""

from __future__ import annotations

import sys
from pathlib import Path

from mxgw_worker import platform


def let_others_read(path: Path) -> None:
    """Give every user access to a file or directory."""
    if sys.platform == "win32":
        from mxgw_worker.platform.windows import security, winapi

        # Not with icacls: Wine's does nothing. WD is everyone.
        handle = winapi.create_file(
            str(path), winapi.READ_CONTROL | winapi.WRITE_DAC, flags=winapi.FLAG_BACKUP_SEMANTICS
        )
        security.set_access(handle, f"{security.private_file(is_directory=path.is_dir())}(A;;GR;;;WD)")
        winapi.close(handle)
    else:
        path.chmod(0o755 if path.is_dir() else 0o644)


def is_private(path: Path) -> bool:
    """Return whether no other user has access to a file or directory."""
    return not platform.exposure(path)
