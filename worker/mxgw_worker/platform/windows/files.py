"""Files that only the present user can use, on Windows: by their owner and access list.

Administrators and the system keep their access, as root does on POSIX systems. All files are opened so that they can
still be renamed and removed, here and in child processes.
"""

from __future__ import annotations

import contextlib
import errno
import msvcrt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.windows import security, winapi

_DISPOSITIONS = {
    os.O_CREAT | os.O_EXCL: winapi.CREATE_NEW,
    os.O_CREAT | os.O_TRUNC: winapi.CREATE_ALWAYS,
    os.O_CREAT: winapi.OPEN_ALWAYS,
    os.O_TRUNC: winapi.TRUNCATE_EXISTING,
    0: winapi.OPEN_EXISTING,
}


def current_user() -> str:
    """Return the user of this process: the security identifier."""
    return security.current_user()


def is_administrator() -> bool:
    """Return whether this process has all rights on this machine."""
    return winapi.is_administrator()


def owner_of(target: Path | int, *, follow: bool = True) -> str:
    """Return the user to whom a path or an open file belongs, in the form of `current_user`.

    What belongs to the administrators or to the system counts as belonging to the present user: they can take every
    file, and a file that an administrator creates often belongs to all of them. For an administrator so does what
    belongs to a service of mxgw. With `follow` false, a link is not followed.

    Raises:
        OSError: this cannot be found out.
    """
    with _opened(target, winapi.READ_CONTROL, follow=follow) as handle:
        owner = security.owner_of(handle, security.FILE)
    return current_user() if owner == current_user() or owner in security.trusted() else owner


def trusts_owner_of(target: Path | int, *, follow: bool = True) -> bool:
    """Return whether a path or an open file belongs to the present user or to the administrator of the machine.

    Raises:
        OSError: this cannot be found out.
    """
    return owner_of(target, follow=follow) == current_user()


def is_link(path: Path) -> bool:
    """Return whether a path is a link: it leads to another place, which its owner can change at any time."""
    try:
        return _leads_elsewhere(path.lstat().st_reparse_tag)
    except (FileNotFoundError, NotADirectoryError):
        return False


def exposure(target: Path | int) -> str:
    """Return which access other users have to a path or an open file, for example "access of BUILTIN\\Users"; "" when
    they have none.

    Raises:
        OSError: this cannot be found out.
    """
    with _opened(target, winapi.READ_CONTROL) as handle:
        others = security.others_with_access(handle, security.FILE)
    return f"access of {', '.join(map(security.name_of, others))}" if others else ""


def privacy_command(path: Path, *, is_directory: bool = False) -> str:
    """Return the command with which an administrator makes a file or directory private."""
    flags = "(OI)(CI)" if is_directory else ""
    others = sorted({*security.TRUSTED, *_services_with_access(path.parent)} - {current_user()})
    users = " ".join(f"*{user}:{flags}F" for user in (current_user(), *others))
    return f'icacls "{path}" /inheritance:r /grant:r {users}'


def make_private(target: Path | int) -> None:
    """Take away the access that other users have to a file, a directory or an open file.

    Raises:
        OSError: the access cannot be changed, or the path is a link.
    """
    with _opened(target, winapi.READ_CONTROL, follow=False) as handle:
        is_directory = _checked(handle, target)
        if security.others_with_access(handle, security.FILE):
            private = security.private_file(is_directory=is_directory, services=_services_in(handle))
            changing = winapi.reopened(handle, winapi.READ_CONTROL | winapi.WRITE_DAC)
            try:
                security.set_access(changing, private)
            finally:
                winapi.close(changing)


def make_directory(path: Path, *, parents: bool = False, exist_ok: bool = False) -> None:
    """Create a directory that is private from the moment it exists. `parents` are created as they usually are.

    Raises:
        OSError: the directory cannot be created, or it exists and `exist_ok` is false.
    """
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        access = security.private_file(is_directory=True, services=_services_with_access(path.parent))
        with security.attributes(access) as attributes:
            winapi.create_directory(str(path), attributes)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise


def open_private(path: Path, flags: int, *, follow: bool = True) -> int:
    """Open a file, and return its descriptor, which child processes do not inherit. `flags` are those of `os.open`.

    A file that is created is private from the moment it exists. With `follow` false, a link is refused.

    Raises:
        OSError: the file cannot be opened.
    """
    appends = bool(flags & os.O_APPEND)
    if flags & os.O_RDWR:
        access = winapi.GENERIC_READ | winapi.GENERIC_WRITE
    elif flags & os.O_WRONLY and appends:
        # With this right alone, everything that this or a child process writes is appended by the system.
        access = winapi.FILE_APPEND_DATA | winapi.FILE_READ_ATTRIBUTES | winapi.SYNCHRONIZE
    elif flags & os.O_WRONLY:
        access = winapi.GENERIC_WRITE
    else:
        access = winapi.GENERIC_READ
    private = security.private_file(services=_services_with_access(path.parent))
    with security.attributes(private) as attributes:
        handle = winapi.create_file(
            str(path),
            access | winapi.READ_CONTROL,
            disposition=_DISPOSITIONS[_creation(flags)],
            flags=winapi.ATTRIBUTE_NORMAL | (0 if follow else winapi.FLAG_OPEN_REPARSE_POINT),
            attributes=attributes,
        )
    try:
        if not follow:
            _checked(handle, path)
        return msvcrt.open_osfhandle(handle, flags & (os.O_APPEND | os.O_RDONLY) | os.O_NOINHERIT | os.O_BINARY)
    except OSError:
        winapi.close(handle)
        raise


def publish(source: Path, target: Path) -> None:
    """Give a complete new file its final name. Other processes see no file or the complete file.

    Raises:
        FileExistsError: `target` exists already; `source` is left as it is.
        OSError: it is not possible.
    """
    os.rename(source, target)  # noqa: PTH104  it replaces nothing on Windows, which is the point


def id_of(path: Path) -> str:
    """Return what identifies a file or directory, also after it was moved on its volume.

    Raises:
        OSError: this cannot be found out.
    """
    status = path.stat()
    # Since Python 3.12 both numbers are longer. The parts in use are the same in all versions.
    return f"{status.st_dev & 0xFFFFFFFF:x}:{status.st_ino & 0xFFFFFFFFFFFFFFFF:x}"


def lock_file(descriptor: int) -> bool:
    """Lock an open file against other processes that lock it. Return False when another process has locked it.

    Raises:
        OSError: the file system cannot lock it.
    """
    return winapi.lock(msvcrt.get_osfhandle(descriptor), exclusive=True)


def unlock_file(descriptor: int) -> None:
    """Unlock a file that `lock_file` has locked."""
    winapi.unlock(msvcrt.get_osfhandle(descriptor))


def _services_with_access(path: Path) -> frozenset[str]:
    """Return the users of services of mxgw who have access to a path, if this process is an administrator's."""
    if winapi.is_administrator():
        with contextlib.suppress(OSError), _opened(path, winapi.READ_CONTROL) as handle:
            return _services_in(handle)
    return frozenset()


def _services_in(handle: int) -> frozenset[str]:
    users = security.service_users()
    return users & security.users_with_access(handle, security.FILE) if users else users


def _creation(flags: int) -> int:
    if flags & os.O_CREAT and flags & os.O_EXCL:
        return os.O_CREAT | os.O_EXCL
    return flags & (os.O_CREAT | os.O_TRUNC)


@contextmanager
def _opened(target: Path | int, access: int, *, follow: bool = True) -> Iterator[int]:
    if isinstance(target, int):
        yield msvcrt.get_osfhandle(target)
        return
    flags = winapi.FLAG_BACKUP_SEMANTICS | (0 if follow else winapi.FLAG_OPEN_REPARSE_POINT)
    handle = winapi.create_file(str(target), access, flags=flags)
    try:
        yield handle
    finally:
        winapi.close(handle)


def _leads_elsewhere(tag: int) -> bool:
    """Return whether this is the tag of a link: a symbolic link, a junction, or another substitute for a name.

    Files have other tags too, for example those whose content is shared with similar files (deduplication).
    Source: IsReparseTagNameSurrogate of winnt.h.
    """
    return bool(tag & 0x20000000)


def _checked(handle: int, target: Path | int) -> bool:
    """Return whether an open file is a directory.

    Raises:
        OSError: it is a link, which was opened itself.
    """
    attributes, tag = winapi.attributes_of(handle)
    if _leads_elsewhere(tag):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(target))
    return bool(attributes & winapi.ATTRIBUTE_DIRECTORY)
