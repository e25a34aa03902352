"""Reads files with secrets, for clients. No other user may have access to such a file.

Only POSIX file modes are checked. On Windows nothing is checked: the administrator who puts the file there has to set
its access list. Gateway, workers and plugins use the platform layer (`mxgw_worker.platform`), which checks both.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def exposure(mode: int, path: Path) -> str:
    """Return why a file with this mode (`st_mode`) is not safe for a secret, and how to correct it; "" when it is
    safe.
    """
    if os.name != "posix" or not mode & 0o077:
        return ""
    return f"other users may read it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"


def read_private(path: Path) -> bytes:
    """Return the content of a file with a secret.

    Raises:
        PermissionError: other users have access to the file; `strerror` says how to correct it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # The mode is read from the open file, so that the file that is checked is also the file that is read.
        if why := exposure(os.fstat(file.fileno()).st_mode, path):
            raise PermissionError(errno.EACCES, why, str(path))
        return file.read()
