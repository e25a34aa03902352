"""Where the gateway listens, found again when the directory of its socket was moved meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


class GatewayAddress:
    """A socket in a directory that is kept open.

    So the way to it leads through the directory itself, whatever its path is by now; and while a worker lives, its
    inode names no other directory. `close` lets go of it.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = Path(endpoint)
        self._fd: int | None = None
        with contextlib.suppress(OSError):  # connecting says what is wrong with it
            self._fd = os.open(self._endpoint.parent, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """What to connect to now."""
        if self._fd is not None and (directory := _OPEN_FILES / str(self._fd)).exists():
            return str(directory / self._endpoint.name)
        return str(self._endpoint)

    def close(self) -> None:
        """Let go of the directory."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
