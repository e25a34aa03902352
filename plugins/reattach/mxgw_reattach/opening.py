"""Opens the file of the manifest, renames a file that is not a manifest, and explains SQLite's errors to
administrators.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mxgw_core.api.errors import SettingsError
from mxgw_core.api.files import current_user, make_private, open_private, owner_of
from mxgw_reattach import schema
from mxgw_reattach.schema import LaterFormat, NotAManifest

log = logging.getLogger(__name__)

# How long to wait while another program locks the file. A backup tool can lock it for a moment. Another gateway never
# has the file open, because a gateway locks its data directory.
_BUSY_TIMEOUT_S = 2.0
# The suffixes of the files that SQLite keeps beside a database: its write-ahead log and the index of the log.
_BESIDE = ("-wal", "-shm")
# The largest number of renamed files that are kept.
_KEPT_ASIDE = 100

Opened = TypeVar("Opened")


def open_manifest(path: Path, use: Callable[[sqlite3.Connection], Opened]) -> Opened:
    """Open the file, or create it when it does not exist; return the result of `use(connection)`.

    `use` is allowed to write to the database; when it fails, the connection is closed.

    When the module `schema`, the function `use` or SQLite finds that the file is not a manifest, the file is renamed
    and a new manifest is created.

    Raises:
        SettingsError: the file belongs to another user, was written by a later release, or cannot be used.
    """
    try:
        _make_ours(path)
        try:
            return _used(path, use)
        except (NotAManifest, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                raise
            _set_aside(path, error)
            _make_ours(path)
            return _used(path, use)
        except LaterFormat as later:
            raise SettingsError(
                f"{path} was written by a later release (format {later.version}, this one knows {schema.VERSION}): "
                "run that release, or stop the workers and remove the file"
            ) from None
    except (OSError, sqlite3.OperationalError) as error:
        raise SettingsError(f"{path} cannot be used: {_cause(path, error)}, or disable the plugin reattach") from error


def in_words(error: sqlite3.Error) -> str:
    """Return a text for administrators: why the manifest could not be written or read, and what to do."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return "the disk of gateway.data_dir is full: make room on it"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program keeps it locked: close that program (a backup, a database browser)"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return "it may not be written: give the gateway's user the right to write to gateway.data_dir"
        case sqlite3.SQLITE_IOERR:
            return f"{error}: look for room on the disk of gateway.data_dir, and for faults of it"
        case _:
            return f"{error}: give the gateway's user a gateway.data_dir it can write to, on a disk with room"


def _cause(path: Path, error: OSError | sqlite3.OperationalError) -> str:
    for part in (path, *_beside(path)):
        if part.is_symlink():
            return f"{part.name} is a link: put the file itself there, or remove the link"
        if part.is_dir():
            return f"{part.name} is a directory: move it away"
    if isinstance(error, sqlite3.Error):
        return in_words(error)
    if error.errno == errno.ENOSPC:
        return "the disk of gateway.data_dir is full: make room on it"
    return f"{error}: give the gateway's user a gateway.data_dir it can write to, on a disk with room"


def _used(path: Path, use: Callable[[sqlite3.Connection], Opened]) -> Opened:
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        # Without this function, sqlite3 raises an error for a text that is not UTF-8, so that one damaged text would
        # make a whole table unreadable.
        db.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
        version = schema.format_of(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        schema.bring_up_to_date(db, version)
        return use(db)
    except BaseException:
        db.close()
        raise


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _BESIDE]


def _make_ours(path: Path) -> None:
    """Make sure that the file exists, belongs to the gateway's user, and is private.

    SQLite would create the file with another mode. It gives its write-ahead log the mode of the file.

    Raises:
        SettingsError: the path is not a regular file of the gateway's user.
        OSError: the file cannot be opened or changed.
    """
    fd = open_private(path, os.O_RDWR | os.O_CREAT, follow=False)
    try:
        if owner_of(fd) != current_user() or not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SettingsError(f"{path} is not a file of this gateway's user: remove it")
        make_private(fd)
    finally:
        os.close(fd)


def _set_aside(path: Path, error: Exception) -> None:
    aside = _free_name(path)
    for part, kept in zip((path, *_beside(path)), (aside, *_beside(aside)), strict=True):
        if os.path.lexists(part):
            part.replace(kept)
    log.error(
        "%s is no manifest (%s): set aside as %s; workers of an earlier gateway cannot be taken back and leave by "
        "themselves",
        path,
        error,
        aside.name,
    )


def _free_name(path: Path) -> Path:
    """Return an unused name for a file that is not a manifest, so that files that were renamed earlier are kept.

    Raises:
        SettingsError: all these names are used.
    """
    for number in range(1, _KEPT_ASIDE + 1):
        aside = path.with_name(f"{path.name}.unreadable{f'-{number}' if number > 1 else ''}")
        if not any(os.path.lexists(part) for part in (aside, *_beside(aside))):
            return aside
    raise SettingsError(
        f"{path} is no manifest, and {_KEPT_ASIDE} files of its kind were set aside already: look into "
        f"{path.name}.unreadable and its like, and remove them"
    )
