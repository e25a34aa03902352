"""The address of the gateway, which stays valid when the directory of its socket is moved."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


class GatewayAddress:
    """A socket in a directory that is kept open.

    The path to the socket goes through this open directory, wherever it was moved to. While a worker keeps it open, no
    other directory can get its inode. `close` closes it.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = Path(endpoint)
        self._fd: int | None = None
        with contextlib.suppress(OSError):  # connecting will report the problem
            self._fd = os.open(self._endpoint.parent, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """The path to connect to now."""
        if self._fd is not None and (directory := _OPEN_FILES / str(self._fd)).exists():
            return str(directory / self._endpoint.name)
        return str(self._endpoint)

    def close(self) -> None:
        """Close the directory."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
