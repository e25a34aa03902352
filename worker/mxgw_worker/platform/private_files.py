"""Reads files with secrets, to which no other user may have access, and explains why a file is not safe."""

from __future__ import annotations

import errno
from pathlib import Path

from mxgw_worker.platform import exposure, privacy_command


def danger(target: Path | int, path: Path) -> str:
    """Return why a file is not safe for a secret, and how to correct it; "" when it is safe.

    `target` is the path of the file, or the descriptor of the open file. `path` is for the text.

    Raises:
        OSError: the access rights cannot be read.
    """
    access = exposure(target)
    return f"other users may read it ({access}); run: {privacy_command(path)}" if access else ""


def read_private(path: Path) -> bytes:
    """Return the content of a file with a secret.

    Raises:
        PermissionError: other users have access to the file; `strerror` says how to correct it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # The rights of the open file are checked, so that the file that is checked is also the file that is read.
        if why := danger(file.fileno(), path):
            raise PermissionError(errno.EACCES, why, str(path))
        return file.read()
