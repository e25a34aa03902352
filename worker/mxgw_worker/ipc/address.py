"""The address of the gateway's socket. The address stays valid when the directory of the socket is moved."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


class GatewayAddress:
    """The path of the gateway's socket. The directory of the socket is kept open.

    `path` leads through the open directory, even after the directory was moved. While a worker keeps the directory
    open, no other directory can get the inode of this one. `close` closes the directory.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = Path(endpoint)
        self._fd: int | None = None
        # No error is raised here, because a later attempt to connect reports the problem.
        with contextlib.suppress(OSError):
            self._fd = os.open(self._endpoint.parent, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """The path to use for connecting now."""
        if self._fd is not None and (directory := _OPEN_FILES / str(self._fd)).exists():
            return str(directory / self._endpoint.name)
        return str(self._endpoint)

    def close(self) -> None:
        """Close the directory."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
