"""The lock of a directory, on Windows."""

from __future__ import annotations

import contextlib
import msvcrt
import os
import sys
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.shared import DirectoryInUse, LocksUnsupported, pid_in
from mxgw_worker.platform.windows import winapi
from mxgw_worker.platform.windows.facts import boot_id
from mxgw_worker.platform.windows.files import id_of, lock_file, open_private

# Errors of file systems that cannot lock files, for example of some network drives.
_NO_LOCKS = frozenset({winapi.ERROR_INVALID_FUNCTION, winapi.ERROR_NOT_SUPPORTED, winapi.ERROR_CALL_NOT_IMPLEMENTED})


class DirectoryLock:
    """Locks a directory for this process, until `close`. It is used as `DirectoryLock(directory, directory / "run")`.

    The file `lock` is locked, which contains the pid of this process. The directory and its subdirectory `run` are kept
    open in such a way that nobody can rename or remove them.

    Attributes:
        id: identifies the directory, whatever path leads to it, by the number that its file system gave to `run`.
        is_weak: whether the lock can be circumvented on this file system; always false.

    Raises:
        DirectoryInUse: another process has locked the directory.
        LocksUnsupported: the file system has no locks.
        OSError: the files cannot be opened, or `lock` is a link.
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
            self.id = f"{id_of(run)}:{boot_id()}"
            self.is_weak = False
            lock = open_private(directory / "lock", os.O_RDWR | os.O_CREAT, follow=False)
            held.callback(os.close, lock)
            if not _taken(lock, directory):
                raise DirectoryInUse(pid_in(directory / "lock"))
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
    return None if is_free else pid_in(directory / "lock")


def _taken(lock: int, directory: Path) -> bool:
    """Lock the open file `lock`. Return False when another process has locked it."""
    try:
        return lock_file(lock)
    except OSError as error:
        if error.winerror in _NO_LOCKS:
            raise LocksUnsupported(str(directory)) from None
        raise
