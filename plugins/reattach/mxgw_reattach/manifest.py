"""The manifest: what a gateway must know to take a worker back, written down before it can be needed.

One SQLite file of mode 0600 in the gateway's private directory. Every step is one transaction that is on the disk
before the call returns (WAL, synchronous FULL), so whatever happens next, the file says at least how far it had come.
It holds the workers' secrets; they are overwritten when they are replaced, and no repr or log shows them.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mxgw_core.api import BackupEntry, BackupKind, CloseReason, Orphan, WorkerIdentity, WorkerProof, WorkerSpawn
from mxgw_core.api.errors import SettingsError

log = logging.getLogger(__name__)

FILE = "manifest.sqlite3"
SCHEMA_VERSION = 1
# Nobody else has the file open: the gateway holds the lock on its directory. A backup tool may look in for a moment.
_BUSY_TIMEOUT_S = 2.0

_SCHEMA = """
CREATE TABLE gateway (instance TEXT NOT NULL);
CREATE TABLE worker (
    session_id TEXT PRIMARY KEY,
    -- starting: announced; ready: can be adopted; closing: is to end, see close_reason
    state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'closing')),
    backend TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    owner TEXT NOT NULL,
    owner_kind TEXT NOT NULL,
    owner_name TEXT NOT NULL,
    tag TEXT NOT NULL,
    client_name TEXT NOT NULL,
    lease_s REAL NOT NULL,
    opened_at REAL NOT NULL,
    lifetime_s REAL NOT NULL,
    secret BLOB NOT NULL,
    former_secret BLOB,
    pid INTEGER NOT NULL DEFAULT 0,
    start_ticks INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '',
    epoch BLOB NOT NULL DEFAULT x'',
    protocol_version INTEGER NOT NULL DEFAULT 0,
    close_reason TEXT NOT NULL DEFAULT '',
    updated_at REAL NOT NULL
) STRICT;
"""


class Manifest:
    """Open with `open`, in the event loop's thread; every method is one step of a worker's life.

    Attributes:
        instance: names this data directory's gateway, through all its restarts.
    """

    def __init__(self, connection: sqlite3.Connection, instance: str) -> None:
        self._db = connection
        self.instance = instance

    @classmethod
    def open(cls, directory: Path) -> Manifest:
        """Open the manifest below `directory`, and make it if need be.

        A file that is none is set aside: its workers leave by themselves when their time is over.

        Raises:
            SettingsError: it belongs to somebody else, was written by a later release, or cannot be used.
        """
        path = directory / FILE
        try:
            _make_private(path)
            try:
                return cls._opened(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                _set_aside(path, error)
                _make_private(path)
                return cls._opened(path)
        except (OSError, sqlite3.OperationalError) as error:
            raise SettingsError(
                f"{path} cannot be used: {error}; give the gateway's user a gateway.data_dir it can write to, on a "
                "disk with room, or disable the plugin reattach"
            ) from error

    @classmethod
    def _opened(cls, path: Path) -> Manifest:
        db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            _require_known(version, path)
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                db.execute("INSERT INTO gateway VALUES (?)", (secrets.token_hex(8),))
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.execute("COMMIT")
            if db.execute("SELECT 1 FROM gateway").fetchone() is None:  # restored from a backup
                db.execute("INSERT INTO gateway VALUES (?)", (secrets.token_hex(8),))
            (instance,) = db.execute("SELECT instance FROM gateway").fetchone()
        except BaseException:
            db.close()
            raise
        return cls(db, instance)

    def close(self) -> None:
        """Close the file; as the last one who has it open, SQLite leaves no write-ahead log behind."""
        self._db.close()

    # steps, in their order

    def announced(self, spawn: WorkerSpawn, lifetime_s: float) -> None:
        """A worker is about to be started."""
        self._db.execute(
            "INSERT INTO worker (session_id, state, backend, endpoint, owner, owner_kind, owner_name, tag, client_name,"
            " lease_s, opened_at, lifetime_s, secret, updated_at)"
            " VALUES (?, 'starting', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                spawn.session_id,
                spawn.backend,
                str(spawn.endpoint),
                spawn.owner,
                spawn.owner_kind,
                spawn.owner_name,
                spawn.tag,
                spawn.client_name,
                spawn.lease_s,
                spawn.opened_at,
                lifetime_s,
                spawn.secret,
                time.time(),
            ),
        )

    def started(self, worker: WorkerIdentity) -> None:
        """Its process exists."""
        self._update(worker.session_id, pid=worker.pid, start_ticks=worker.start_ticks, boot_id=worker.boot_id)

    def proved(self, proof: WorkerProof) -> None:
        """It proved itself: keep the next secret, and the former one until it is known that the worker has the next."""
        worker = proof.worker
        self._update(
            worker.session_id,
            secret=proof.secret,
            former_secret=proof.former_secret,
            pid=worker.pid,
            start_ticks=worker.start_ticks,
            boot_id=worker.boot_id,
            epoch=worker.epoch,
            protocol_version=worker.protocol_version,
        )

    def ready(self, worker: WorkerIdentity) -> None:
        """It said Ready, so it has the next secret."""
        self._update(worker.session_id, state="ready", former_secret=None)

    def closing(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """It is about to be told to leave."""
        self._update(worker.session_id, state="closing", close_reason=reason.name)

    def gone(self, session_id: str) -> None:
        """It is no more."""
        self._db.execute("DELETE FROM worker WHERE session_id = ?", (session_id,))

    def _update(self, session_id: str, **columns: object) -> None:
        columns["updated_at"] = time.time()
        assignments = ", ".join(f"{name} = ?" for name in columns)
        cursor = self._db.execute(
            f"UPDATE worker SET {assignments} WHERE session_id = ?",  # noqa: S608 - the names are those above
            (*columns.values(), session_id),
        )
        if cursor.rowcount != 1:
            raise LookupError(f"the manifest has no worker of session {session_id}")

    # what an earlier run left

    def orphans(self, adopt_within_s: float) -> Iterator[Orphan]:
        """Yield every worker that has not ended as far as the manifest knows, the oldest session first."""
        for row in self._db.execute("SELECT * FROM worker ORDER BY opened_at, session_id").fetchall():
            yield _orphan(row, adopt_within_s)

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM worker").fetchone()
        return int(count)

    def __repr__(self) -> str:
        return f"Manifest(instance={self.instance!r})"


def files_to_back_up(data_dir: Path) -> Sequence[BackupEntry]:
    """Return the manifest, if there is one; it is stored without what belongs to this gateway alone."""
    path = data_dir / FILE
    return [BackupEntry(path, BackupKind.DATABASE, _forget_this_gateway)] if path.exists() else []


def _forget_this_gateway(copy: sqlite3.Connection) -> None:
    """Take the workers, their secrets and the instance out: whoever restores it is another gateway, without workers."""
    copy.execute("DELETE FROM worker")
    copy.execute("DELETE FROM gateway")


def _orphan(row: sqlite3.Row, adopt_within_s: float) -> Orphan:
    spawn = WorkerSpawn(
        session_id=row["session_id"],
        backend=row["backend"],
        endpoint=Path(row["endpoint"]),
        secret=row["secret"],
        owner=row["owner"],
        tag=row["tag"],
        client_name=row["client_name"],
        lease_s=row["lease_s"],
        owner_kind=row["owner_kind"],
        owner_name=row["owner_name"],
        opened_at=row["opened_at"],
    )
    worker = WorkerIdentity(
        session_id=row["session_id"],
        pid=row["pid"],
        start_ticks=row["start_ticks"],
        epoch=row["epoch"],
        protocol_version=row["protocol_version"],
        boot_id=row["boot_id"],
    )
    reasons = CloseReason.__members__
    return Orphan(
        spawn=spawn,
        worker=worker,
        former_secret=row["former_secret"],
        was_ready=row["state"] != "starting",
        closing=reasons.get(row["close_reason"], CloseReason.CLIENT) if row["state"] == "closing" else None,
        lifetime_s=row["lifetime_s"],
        adopt_within_s=adopt_within_s,
    )


def _make_private(path: Path) -> None:
    """Make the file with mode 0600 before SQLite does with another; its log gets the same mode from it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, flags, 0o600)
    try:
        status = os.fstat(fd)
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or not stat.S_ISREG(status.st_mode)):
            raise SettingsError(f"{path} is not a file of this gateway's user: remove it")
        if status.st_mode & 0o077:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _require_known(version: int, path: Path) -> None:
    if version > SCHEMA_VERSION:
        raise SettingsError(
            f"{path} was written by a later release (format {version}, this one knows {SCHEMA_VERSION}): run that "
            "release, or stop the workers and remove the file"
        )


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    aside = path.with_name(f"{path.name}.unreadable")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    log.error(
        "%s is no manifest (%s): set aside as %s; workers of an earlier gateway cannot be taken back and leave by "
        "themselves",
        path,
        error,
        aside.name,
    )
