"""The lock of a directory, on Windows."""

from __future__ import annotations

import contextlib
import msvcrt
import os
import sys
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.shared import DirectoryInUse
from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.facts import boot_id
from mxgw_worker.platform.windows.files import lock_file, open_private


class DirectoryLock:
    """Locks a directory for this process, until `close`. It is used as `DirectoryLock(directory, directory / "run")`.

    The file `lock` is locked, which contains the pid of this process. The directory and its subdirectory `run` are kept
    open in such a way that nobody can rename or remove them.

    Attributes:
        id: identifies the directory, whatever path leads to it, by the number that its file system gave to `run`.
        is_weak: whether the lock can be circumvented on this file system; always false.

    Raises:
        DirectoryInUse: another process has locked the directory.
        OSError: the files cannot be opened.
    """

    def __init__(self, directory: Path, run: Path) -> None:
        with contextlib.ExitStack() as held:
            for each in (directory, run):
                handle = winapi.create_file(
                    str(each),
                    winapi.FILE_READ_DATA,
                    share=winapi.SHARE_READ | winapi.SHARE_WRITE,
                    flags=winapi.FLAG_BACKUP_SEMANTICS,
                )
                held.callback(winapi.close, handle)
            status = run.stat()
            self.id = f"{status.st_dev:x}:{status.st_ino:x}:{boot_id()}"
            self.is_weak = False
            lock = open_private(directory / "lock", os.O_RDWR | os.O_CREAT)
            held.callback(os.close, lock)
            if not lock_file(lock):
                raise DirectoryInUse(_pid_in(directory))
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode("ascii"))
            self._held = held.pop_all()

    def close(self) -> None:
        """Unlock the directory."""
        self._held.close()


def holder_of(directory: Path) -> int | None:
    """Return the pid of the process that has locked a directory with `DirectoryLock`; 0 when the pid is not known, None
    when the directory is not locked.
    """
    try:
        descriptor = open_private(directory / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        is_free = winapi.lock(msvcrt.get_osfhandle(descriptor), exclusive=False)
    except OSError:
        return None
    finally:
        os.close(descriptor)  # this ends the lock, too
    return None if is_free else _pid_in(directory)


def _pid_in(directory: Path) -> int:
    """Return the pid in the file `lock`; 0 when the file has no pid."""
    with contextlib.suppress(OSError), (directory / "lock").open("rb") as file:
        text = file.read(32).strip()
        return int(text) if text.isdigit() else 0
    return 0
