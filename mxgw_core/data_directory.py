"""The gateway's private files: worker sockets and logs below `gateway.data_dir`, and the lock on it."""

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

# struct sockaddr_un holds 108 bytes on Linux, 104 on BSD and macOS, the terminating zero included.
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
# So many logs of workers that ended badly are kept, the newest ones.
_KEPT_LOGS = 100
# This file exists in a data directory while `mxgw restore` writes there, or when it was cut off.
UNFINISHED_RESTORE = "restore-unfinished"
_SOCKET_NAME_BYTES = len("/run/") + 16 + len(".sock")
# Errors of flock(2) where it cannot lock a directory: network file systems can only lock ranges of files.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class DataDirectory:
    """Makes and locks the data directory; the context is held while the gateway runs.

    A second gateway on the same directory is refused: it would take over sockets and logs of the first. Three things
    are locked: the directory itself, its subdirectory `run` (see `id`), and the file `lock`, which has the pid of the
    gateway. So removing or replacing any one of them lets no second gateway in. A directory that was restored only in
    part is refused, too.

    Args:
        for_restore: the directory is locked to restore a backup to it, so the remains of a former restore do not
            matter.

    Attributes:
        id: identifies the directory itself, whatever its path: it stays the same through links and moves, and a copy of
            the directory has another one.
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
        """Make the directories private and take the lock.

        Raises:
            SettingsError: the path is too long for sockets, not ours, not writable, in use by another gateway, or only
                partly restored.
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
            left_over.unlink(missing_ok=True)  # the lock is ours, so no gateway listens there
        for left_over in self.logs.glob("spare-*.log"):
            left_over.unlink(missing_ok=True)  # spares ended with their gateway, and their logs are of no use
        self.prune_logs()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _lock(self, held: contextlib.ExitStack) -> None:
        """Take the locks; the id is made from the directory of sockets, see `same_data_dir`.

        This gateway and each of its workers keep that directory open. So while one of them lives, no other directory
        can get the same inode, not even one that is restored in its place.
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
        """Lock an open file or directory; return False where the file system cannot lock it.

        Raises:
            SettingsError: another gateway has locked it.
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
        """Remove all worker logs but the newest hundred."""
        logs = sorted(self.logs.glob("worker-*.log"), key=_modified)
        for old in logs[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def takes_end_of_sessions(self) -> bool:
        """Return whether `mxgw drain` asked that the sessions end with this gateway; the request is removed."""
        marker = end_sessions_marker(self.path)
        wanted = marker.exists()
        marker.unlink(missing_ok=True)
        return wanted

    def socket_of(self, session_id: str) -> Path:
        """Return the socket path of a session's worker: short, and always the same for the session."""
        return self.run / f"{_short_name(session_id)}.sock"

    def log_of_spare(self, name: str) -> Path:
        """Return the log file of a worker that no session has yet."""
        return self.logs / f"spare-{name}.log"

    def log_of(self, session_id: str) -> Path:
        """Return the log file of a session's worker."""
        return self.logs / f"worker-{_short_name(session_id)}.log"


def check_data_dir(given: Path, *, for_restore: bool = False) -> None:
    """Check whether a gateway could use the directory, without creating or changing anything.

    Raises:
        SettingsError: the path is too long for sockets, not ours, no directory, or only partly restored.
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
    """Return the path of the file that asks the gateway of this directory to end its sessions when it stops."""
    return directory / "run" / "end-sessions"


def holder_of(directory: Path) -> int | None:
    """Return the pid of the gateway that uses a data directory: 0 when it is not known, None without a gateway."""
    if sys.platform == "win32":
        return None
    for locked in (directory / "lock", directory, directory / "run"):
        if _is_locked(locked):
            return _holder(directory)
    return None


def _holder(directory: Path) -> int:
    """Return the pid in the file `lock`; 0 when the file is not locked, because it was replaced."""
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
    """Lock an open file or directory until it is closed; return False when another process has locked it.

    Raises:
        OSError: it cannot be locked.
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
    """Refuse a link that another user made: that user could choose the directory that this gateway uses."""
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
