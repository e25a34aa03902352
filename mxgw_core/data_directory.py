"""The data directory of the gateway (`gateway.data_dir`): its sockets, its logs of workers, and its lock."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path
from types import TracebackType

from mxgw_core.api.errors import SettingsError
from mxgw_core.removals import Removals
from mxgw_worker.platform import (
    SOCKET_PATH_BYTES,
    DirectoryInUse,
    DirectoryLock,
    LocksUnsupported,
    current_user,
    endpoint_in,
    is_link,
    make_directory,
    make_private,
    open_private,
    owner_of,
    trusts_owner_of,
)

log = logging.getLogger(__name__)

# How many log files of workers are kept. After the end of a session, the log file of its worker stays only if the
# worker failed.
_KEPT_LOGS = 100
# This file is in a data directory while `mxgw restore` writes there. It is still there when the restore was
# interrupted.
UNFINISHED_RESTORE = "restore-unfinished"
_SOCKET_NAME_BYTES = len("/run/") + 16 + len(".sock")


class DataDirectory:
    """Creates and locks the data directory. Use it as a context manager that is held open while the gateway runs.

    A second gateway that uses the same directory is refused, because it would replace the sockets of the first gateway.
    It is refused even when files below the directory were removed or replaced meanwhile (see
    `mxgw_worker.platform.DirectoryLock`). A directory to which a backup was restored only in part is refused as well.

    Args:
        for_restore: true when `mxgw restore` locks the directory. Then an earlier, interrupted restore is no error.

    Attributes:
        id: identifies the directory, whatever path leads to it. It stays the same when the directory is moved; a copy
            of the directory has another id. See `same_data_dir` for the comparison of two ids.
    """

    def __init__(self, path: Path, *, for_restore: bool = False) -> None:
        self._given = path.absolute()
        self._for_restore = for_restore
        self.path = path.resolve()
        self.id = ""
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        self._lock: DirectoryLock | None = None
        self._removals = Removals()
        # The time of a request to end the sessions that an earlier gateway got, when it could not be removed.
        self._old_request: int | None = None

    def __enter__(self) -> DataDirectory:
        """Create the directories, make them private, and lock them.

        Raises:
            SettingsError: the path is too long for sockets, or the directory belongs to another user, cannot be
                written, is used by another gateway, or was restored only in part.
        """
        check_data_dir(self._given, for_restore=self._for_restore)
        try:
            for directory in (self.path, self.run, self.logs):
                _make_own_directory(directory)
            self._take_lock()
        except OSError as error:
            raise SettingsError(
                f"gateway.data_dir {self.path}: {error.strerror or error}; choose a directory this user can write"
            ) from error
        self.remove_later(end_sessions_marker(self.path))
        self._old_request = _changed_at(end_sessions_marker(self.path))
        for left_over in self.run.glob("*.sock"):
            self.remove_later(left_over)  # this gateway has the lock, so no other gateway listens on the socket
        for left_over in self.logs.glob("spare-*.log"):
            self.remove_later(left_over)  # spare workers of an earlier gateway have ended with that gateway
        self.prune_logs()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sweep()
        if self._lock is not None:
            self._lock.close()

    def _take_lock(self) -> None:
        try:
            self._lock = DirectoryLock(self.path, self.run)
        except DirectoryInUse as other:
            raise SettingsError(
                f"gateway.data_dir {self.path} is in use by another gateway (pid {other.pid or 'unknown'}): "
                "stop it, or give this one a data_dir of its own"
            ) from None
        except LocksUnsupported:
            raise SettingsError(
                f"gateway.data_dir {self.path} is on a file system without locks, so that a second gateway could not "
                "be kept out: choose a directory on a local disk"
            ) from None
        self.id = self._lock.id
        if self._lock.is_weak:
            log.warning(
                "gateway.data_dir %s is on a file system that locks no directories: the file `lock` in it keeps other "
                "gateways out, so nobody may remove it while this one runs; a local disk is safer",
                self.path,
            )

    def remove_later(self, path: Path) -> None:
        """Remove a file, now if possible. When it cannot be removed, a warning is logged and `sweep` tries again."""
        self._removals.remove(path)

    def sweep(self) -> None:
        """Try again to remove the files that could not be removed."""
        self._removals.sweep()

    def prune_logs(self) -> None:
        """Remove the log files of workers, except the newest hundred."""
        logs = sorted(self.logs.glob("worker-*.log"), key=_modified)
        for old in logs[:-_KEPT_LOGS]:
            self.remove_later(old)

    def takes_end_of_sessions(self) -> bool:
        """Return whether `mxgw drain` requested that the sessions end with this gateway, and remove the request."""
        marker = end_sessions_marker(self.path)
        requested_at = _changed_at(marker)
        self.remove_later(marker)
        return requested_at is not None and requested_at != self._old_request

    def socket_of(self, session_id: str) -> Path:
        """Return the endpoint for a session's worker: a short name that depends only on directory and session id."""
        return endpoint_in(self.run, _short_name(session_id))

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
    if SOCKET_PATH_BYTES is not None and len(os.fsencode(path)) + _SOCKET_NAME_BYTES > SOCKET_PATH_BYTES:
        raise SettingsError(
            f"gateway.data_dir {path} is too long for the Unix sockets below it "
            f"({SOCKET_PATH_BYTES - _SOCKET_NAME_BYTES} bytes at most): choose a shorter path"
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


def _changed_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def end_sessions_marker(directory: Path) -> Path:
    """Return the path of the file with which `mxgw drain` requests that all sessions end when the gateway stops."""
    return directory / "run" / "end-sessions"


def request_end_of_sessions(directory: Path) -> None:
    """Request that all sessions end when the gateway that uses the directory stops.

    Raises:
        OSError: this is not possible.
    """
    marker = end_sessions_marker(directory)
    os.close(open_private(marker, os.O_WRONLY | os.O_CREAT))
    marker.touch()  # by its time, the gateway tells a new request from one that could not be removed


def _short_name(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def _require_own_link(path: Path) -> None:
    """Refuse a path that is a link of another user, because that user could change which directory is used."""
    if is_link(path) and not trusts_owner_of(path, follow=False):
        raise SettingsError(f"{path} is a link of another user: choose another gateway.data_dir")


def _make_own_directory(directory: Path) -> None:
    make_directory(directory, parents=True, exist_ok=True)
    _require_own_directory(directory)
    make_private(directory)


def _require_own_directory(directory: Path) -> None:
    if not stat.S_ISDIR(directory.lstat().st_mode):
        raise SettingsError(f"{directory} is not a directory: choose another gateway.data_dir")
    if owner_of(directory, follow=False) != current_user():
        raise SettingsError(f"{directory} belongs to another user: choose another gateway.data_dir")
