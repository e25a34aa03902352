"""Files that only the present user can use, on POSIX systems: by their owner and mode."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
import sys
from pathlib import Path

assert sys.platform != "win32"

_FILE_MODE, _DIRECTORY_MODE, _OTHERS = 0o600, 0o700, 0o077


def current_user() -> str:
    """Return the user of this process: the user id as text."""
    return str(os.geteuid())


def is_administrator() -> bool:
    """Return whether this process has all rights on this machine."""
    return os.geteuid() == 0


def owner_of(target: Path | int, *, follow: bool = True) -> str:
    """Return the user to whom a path or an open file belongs, in the form of `current_user`.

    With `follow` false, a link is not followed.

    Raises:
        OSError: this cannot be found out.
    """
    return str(_status(target, follow).st_uid)


def trusts_owner_of(target: Path | int, *, follow: bool = True) -> bool:
    """Return whether a path or an open file belongs to the present user or to the administrator of the machine.

    Raises:
        OSError: this cannot be found out.
    """
    return _status(target, follow).st_uid in (0, os.geteuid())


def is_link(path: Path) -> bool:
    """Return whether a path is a link: it leads to another place, which its owner can change at any time."""
    return path.is_symlink()


def exposure(target: Path | int) -> str:
    """Return which access other users have to a path or an open file, for example "mode 0644"; "" when they have none.

    Raises:
        OSError: this cannot be found out.
    """
    mode = _status(target, follow=True).st_mode
    return f"mode {stat.S_IMODE(mode):04o}" if mode & _OTHERS else ""


def privacy_command(path: Path, *, is_directory: bool = False) -> str:
    """Return the command with which an administrator makes a file or directory private."""
    return f"chmod {_DIRECTORY_MODE if is_directory else _FILE_MODE:o} {shlex.quote(os.fspath(path))}"


def make_private(target: Path | int) -> None:
    """Take away the access that other users have to a file, a directory or an open file.

    Raises:
        OSError: the access cannot be changed, or the path is a link.
    """
    mode = _status(target, follow=False).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(target))
    if mode & _OTHERS:
        os.chmod(target, _DIRECTORY_MODE if stat.S_ISDIR(mode) else _FILE_MODE)  # noqa: PTH101  a number is possible


def make_directory(path: Path, *, parents: bool = False, exist_ok: bool = False) -> None:
    """Create a directory that is private from the moment it exists. `parents` are created as they usually are.

    Raises:
        OSError: the directory cannot be created, or it exists and `exist_ok` is false.
    """
    path.mkdir(mode=_DIRECTORY_MODE, parents=parents, exist_ok=exist_ok)


def open_private(path: Path, flags: int, *, follow: bool = True) -> int:
    """Open a file, and return its descriptor, which child processes do not inherit. `flags` are those of `os.open`.

    A file that is created is private from the moment it exists, whatever the umask. With `follow` false, a link is
    refused.

    Raises:
        OSError: the file cannot be opened.
    """
    return os.open(path, flags | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), _FILE_MODE)


def publish(source: Path, target: Path) -> None:
    """Give a complete new file its final name. Other processes see no file or the complete file.

    Raises:
        FileExistsError: `target` exists already; `source` is left as it is.
        OSError: it is not possible.
    """
    os.link(source, target)
    source.unlink()


def lock_file(descriptor: int) -> bool:
    """Lock an open file against other processes that lock it. Return False when another process has locked it.

    Raises:
        OSError: the file system cannot lock it.
    """
    return try_lock(descriptor, exclusive=True)


def unlock_file(descriptor: int) -> None:
    """Unlock a file that `lock_file` has locked."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _status(target: Path | int, follow: bool) -> os.stat_result:
    if isinstance(target, int):
        return os.fstat(target)
    return target.stat() if follow else target.lstat()


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file or directory until it is closed. Return False when another process has locked it.

    Raises:
        OSError: the file system cannot lock it.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
