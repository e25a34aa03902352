"""Files with secrets, for the gateway, its workers, plugins and clients alike: only their owner may use them.

POSIX modes only; on Windows a file's access list is the business of whoever put it there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def exposure(mode: int, path: Path) -> str:
    """Return why a file of this mode (`st_mode`) is no place for a secret, and what to do; "" when it is one."""
    if os.name != "posix" or not mode & 0o077:
        return ""
    return f"other users may read it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"


def read_private(path: Path) -> bytes:
    """Return what a file with a secret holds.

    Raises:
        PermissionError: others may use it; `strerror` says what to do.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        # Judged on the open file, so that what was judged is what is read.
        if why := exposure(os.fstat(file.fileno()).st_mode, path):
            raise PermissionError(errno.EACCES, why, str(path))
        return file.read()
