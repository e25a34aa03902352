"""The data directory of the gateway (`gateway.data_dir`): its sockets, its logs of workers, and its lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
import sys
from pathlib import Path
from types import TracebackType

from mxgw_core.api.errors import SettingsError
from mxgw_worker.ipc.process import boot_id

log = logging.getLogger(__name__)

# The longest path of a Unix socket. The struct sockaddr_un has room for 108 bytes on Linux, and for 104 bytes on BSD
# and macOS. The last byte is a zero. Source: unix(7), unix(4).
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
# How many log files of workers are kept. After the end of a session, the log file of its worker stays only if the
# worker failed.
_KEPT_LOGS = 100
# This file is in a data directory while `mxgw restore` writes there. It is still there when the restore was
# interrupted.
UNFINISHED_RESTORE = "restore-unfinished"
_SOCKET_NAME_BYTES = len("/run/") + 16 + len(".sock")
# Errors of flock(2) on file systems that cannot lock directories. Many network file systems can only lock files.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class DataDirectory:
    """Creates and locks the data directory. Use it as a context manager that is held open while the gateway runs.

    A second gateway that uses the same directory is refused, because it would replace the sockets of the first gateway.
    Three things are locked: the directory itself, its subdirectory `run`, and the file `lock`, which contains the pid
    of the gateway. So a second gateway is refused even when one of the three was removed or replaced. A directory to
    which a backup was restored only in part is refused as well.

    Args:
        for_restore: true when `mxgw restore` locks the directory. Then an earlier, interrupted restore is no error.

    Attributes:
        id: identifies the directory, whatever path leads to it. It stays the same when the directory is moved; a copy
            of the directory has another id.
    """

    def __init__(self, path: Path, *, for_restore: bool = False) -> None:
        self._given = path.absolute()
        self._for_restore = for_restore
        self.path = path.resolve()
        self.id = ""
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        self._held = contextlib.ExitStack()

    def __enter__(self) -> DataDirectory:
        """Create the directories, make them private, and lock them.

        Raises:
            SettingsError: the path is too long for sockets, or the directory belongs to another user, cannot be
                written, is used by another gateway, or was restored only in part.
        """
        check_data_dir(self._given, for_restore=self._for_restore)
        try:
            for directory in (self.path, self.run, self.logs):
                _make_private(directory)
            with contextlib.ExitStack() as held:
                self._lock(held)
                self._held = held.pop_all()
        except OSError as error:
            raise SettingsError(
                f"gateway.data_dir {self.path}: {error.strerror or error}; choose a directory this user can write"
            ) from error
        end_sessions_marker(self.path).unlink(missing_ok=True)
        for left_over in self.run.glob("*.sock"):
            left_over.unlink(missing_ok=True)  # this gateway has the lock, so no other gateway listens on the socket
        for left_over in self.logs.glob("spare-*.log"):
            left_over.unlink(missing_ok=True)  # spare workers of an earlier gateway have ended with that gateway
        self.prune_logs()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _lock(self, held: contextlib.ExitStack) -> None:
        """Lock the directory, and set `id`.

        The id contains the inode of the subdirectory `run`. This gateway and all its workers keep `run` open. So as
        long as one of them lives, no other directory can get this inode, not even a directory that is restored to the
        same path. See `same_data_dir` for the comparison of two ids.
        """
        are_directories_locked = True
        for directory in (self.path, self.run):
            fd = _opened(held, directory, os.O_RDONLY | os.O_DIRECTORY)
            are_directories_locked = self._take(fd) and are_directories_locked
        status = os.fstat(fd)
        self.id = f"{status.st_dev:x}:{status.st_ino:x}:{boot_id()}"
        lock = _opened(held, self.path / "lock", os.O_RDWR | os.O_CREAT)
        if not self._take(lock):
            raise SettingsError(
                f"gateway.data_dir {self.path} is on a file system without locks, so that a second gateway could not "
                "be kept out: choose a directory on a local disk"
            )
        if not are_directories_locked:
            log.warning(
                "gateway.data_dir %s is on a file system that locks no directories: the file `lock` in it keeps other "
                "gateways out, so nobody may remove it while this one runs; a local disk is safer",
                self.path,
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)

    def _take(self, fd: int) -> bool:
        """Lock an open file or directory. Return False when the file system cannot lock it.

        Raises:
            SettingsError: another gateway has locked the file or directory.
        """
        try:
            is_free = _try_lock(fd, exclusive=True)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        if not is_free:
            raise SettingsError(
                f"gateway.data_dir {self.path} is in use by another gateway (pid {_holder(self.path) or 'unknown'}): "
                "stop it, or give this one a data_dir of its own"
            )
        return True

    def prune_logs(self) -> None:
        """Remove the log files of workers, except the newest hundred."""
        logs = sorted(self.logs.glob("worker-*.log"), key=_modified)
        for old in logs[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def takes_end_of_sessions(self) -> bool:
        """Return whether `mxgw drain` requested that the sessions end with this gateway, and remove the request."""
        marker = end_sessions_marker(self.path)
        wanted = marker.exists()
        marker.unlink(missing_ok=True)
        return wanted

    def socket_of(self, session_id: str) -> Path:
        """Return the path of the socket for a session's worker: a short path that depends only on the session id."""
        return self.run / f"{_short_name(session_id)}.sock"

    def log_of_spare(self, name: str) -> Path:
        """Return the log file of a spare worker."""
        return self.logs / f"spare-{name}.log"

    def log_of(self, session_id: str) -> Path:
        """Return the log file of a session's worker."""
        return self.logs / f"worker-{_short_name(session_id)}.log"


def check_data_dir(given: Path, *, for_restore: bool = False) -> None:
    """Make sure that a gateway could use the directory. Nothing is created or changed.

    Raises:
        SettingsError: the path is too long for sockets, or is no directory, or the directory belongs to another user or
            was restored only in part.
    """
    path = given.resolve()
    if len(os.fsencode(path)) + _SOCKET_NAME_BYTES > _SOCKET_PATH_BYTES:
        raise SettingsError(
            f"gateway.data_dir {path} is too long for the Unix sockets below it "
            f"({_SOCKET_PATH_BYTES - _SOCKET_NAME_BYTES} bytes at most): choose a shorter path"
        )
    try:
        _require_own_link(given.absolute())
        if path.exists():
            _require_own_directory(path)
        if not for_restore and (path / UNFINISHED_RESTORE).exists():
            raise SettingsError(
                f"gateway.data_dir {path}: a restore to it was cut off or still runs: restore the backup again, to an "
                "empty directory"
            )
    except OSError as error:
        raise SettingsError(
            f"gateway.data_dir {path}: {error.strerror or error}; choose a directory this user can write"
        ) from error


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def end_sessions_marker(directory: Path) -> Path:
    """Return the path of the file with which `mxgw drain` requests that all sessions end when the gateway stops."""
    return directory / "run" / "end-sessions"


def holder_of(directory: Path) -> int | None:
    """Return the pid of the gateway that uses a data directory; 0 when the pid is not known, None when no gateway uses
    the directory.
    """
    if sys.platform == "win32":
        return None
    for locked in (directory / "lock", directory, directory / "run"):
        if _is_locked(locked):
            return _holder(directory)
    return None


def _holder(directory: Path) -> int:
    """Return the pid in the file `lock`; 0 when the file has no pid, or is not locked because it was replaced."""
    if not _is_locked(directory / "lock"):
        return 0
    with contextlib.suppress(OSError), (directory / "lock").open("rb") as file:
        text = file.read(32).strip()
        return int(text) if text.isdigit() else 0
    return 0


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _try_lock(fd, exclusive=False)
    except OSError:
        return False
    finally:
        os.close(fd)


def _try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file or directory until it is closed. Return False when another process has locked it.

    Raises:
        OSError: the file system cannot lock it.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(held: contextlib.ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    held.callback(os.close, fd)
    return fd


def _short_name(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def _require_own_link(path: Path) -> None:
    """Refuse a path that is a link of another user, because that user could change which directory is used."""
    if path.is_symlink() and hasattr(os, "getuid") and path.lstat().st_uid not in (0, os.getuid()):
        raise SettingsError(f"{path} is a link of another user: choose another gateway.data_dir")


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_own_directory(directory)
    if directory.lstat().st_mode & 0o077:
        directory.chmod(0o700)


def _require_own_directory(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise SettingsError(f"{directory} is not a directory: choose another gateway.data_dir")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise SettingsError(f"{directory} belongs to another user: choose another gateway.data_dir")
