"""The lock of a directory, on POSIX systems: by flock(2)."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

assert sys.platform != "win32"

from mxgw_worker.platform.posix.facts import boot_id
from mxgw_worker.platform.posix.files import open_private, try_lock
from mxgw_worker.platform.shared import DirectoryInUse, LocksUnsupported, pid_in

# Errors of flock(2) on file systems that cannot lock directories. Many network file systems can only lock files.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class DirectoryLock:
    """Locks a directory for this process, until `close`. It is used as `DirectoryLock(directory, directory / "run")`.

    Three things are locked: the directory itself, its subdirectory `run`, and the file `lock`, which contains the pid
    of this process. So a second process is refused even when one of the three was removed or replaced.

    Attributes:
        id: identifies the directory, whatever path leads to it. It contains the inode of `run`, which this lock and all
            workers keep open. So as long as one of them lives, no other directory can get this inode, not even a
            directory that is restored to the same path.
        is_weak: whether only the file is locked, because the file system locks no directories.

    Raises:
        DirectoryInUse: another process has locked the directory.
        LocksUnsupported: the file system has no locks.
        OSError: the files cannot be opened, or `lock` is a link.
    """

    def __init__(self, directory: Path, run: Path) -> None:
        with contextlib.ExitStack() as held:
            are_directories_locked = True
            for each in (directory, run):
                fd = _opened(held, each, os.O_RDONLY | os.O_DIRECTORY)
                are_directories_locked = _take(fd, directory) and are_directories_locked
            status = os.fstat(fd)
            self.id = f"{status.st_dev:x}:{status.st_ino:x}:{boot_id()}"
            lock = _opened(held, directory / "lock", os.O_RDWR | os.O_CREAT, follow=False)
            if not _take(lock, directory):
                raise LocksUnsupported(str(directory))
            self.is_weak = not are_directories_locked
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
            self._held = held.pop_all()

    def close(self) -> None:
        """Unlock the directory."""
        self._held.close()


def holder_of(directory: Path) -> int | None:
    """Return the pid of the process that has locked a directory with `DirectoryLock`; 0 when the pid is not known, None
    when the directory is not locked.
    """
    for locked in (directory / "lock", directory, directory / "run"):
        if _is_locked(locked):
            return _holder(directory)
    return None


def _holder(directory: Path) -> int:
    """Return the pid in the file `lock`; 0 when the file has no pid, or is not locked because it was replaced."""
    return pid_in(directory / "lock") if _is_locked(directory / "lock") else 0


def _take(fd: int, directory: Path) -> bool:
    """Lock an open file or directory. Return False when the file system cannot lock it."""
    try:
        is_free = try_lock(fd, exclusive=True)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    if not is_free:
        raise DirectoryInUse(_holder(directory))
    return True


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not try_lock(fd, exclusive=False)
    except OSError:
        return False
    finally:
        os.close(fd)


def _opened(held: contextlib.ExitStack, path: Path, flags: int, *, follow: bool = True) -> int:
    fd = open_private(path, flags, follow=follow)
    held.callback(os.close, fd)
    return fd
