"""The log of a process that has no standard output and error: both become a file, which is replaced when it is full."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from mxgw_worker.platform import open_private

LIMIT_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5

_STDOUT, _STDERR = 1, 2


class LogFile(logging.Handler):
    """Makes a private file the standard output and error of this process, for all code in it that writes there.

    As a handler of log records, it writes nothing: after a record was written by another handler, it looks whether the
    file has become too large. Then `name.log` becomes `name.log.1`, that one `name.log.2`, and so on; the oldest is
    removed. A file that cannot be renamed just now, because another program has opened it, grows on.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES, kept_files: int = KEPT_FILES) -> None:
        super().__init__()
        self._path = path
        self._limit_bytes = limit_bytes
        self._kept_files = kept_files
        self._next_bytes = limit_bytes
        self._open()
        for name, descriptor in (("stdout", _STDOUT), ("stderr", _STDERR)):
            # They are never closed: code that keeps them can write as long as the process runs.
            stream = open(  # noqa: SIM115
                descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
            )
            setattr(sys, name, stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Replace the file if it is full."""
        del record
        with suppress(OSError):
            size = os.fstat(_STDERR).st_size
            if size < self._next_bytes:
                return
            self._next_bytes = size + self._limit_bytes  # when it fails, try again after as many bytes
            for number in range(self._kept_files - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._numbered(number).replace(self._numbered(number + 1))
            self._path.replace(self._numbered(1))
            self._open()
            self._next_bytes = self._limit_bytes

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> None:
        opened = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for descriptor in (_STDOUT, _STDERR):
                if opened != descriptor:
                    os.dup2(opened, descriptor)
        finally:
            if opened not in (_STDOUT, _STDERR):
                os.close(opened)
