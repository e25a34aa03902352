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
from contextlib import contextmanager
from pathlib import Path

from mxgw_core.api import (
    BackupEntry,
    BackupKind,
    CloseReason,
    EndedSession,
    Orphan,
    SessionInfo,
    SessionState,
    WorkerIdentity,
    WorkerProof,
    WorkerSpawn,
    same_data_dir,
)
from mxgw_core.api.errors import SettingsError
from mxgw_core.api.types import INTERNAL
from mxgw_reattach import schema
from mxgw_reattach.schema import LaterFormat, NotAManifest

log = logging.getLogger(__name__)

FILE = "manifest.sqlite3"
# Nobody else has the file open: the gateway holds the lock on its directory. A backup tool may look in for a moment.
_BUSY_TIMEOUT_S = 2.0

_COPIED = (
    "this gateway runs on a copy of the data directory: the session's worker belongs to the gateway of the original, "
    "where the session may go on"
)


class Manifest:
    """Open with `open`, in the event loop's thread; every method is one step of a worker's life.

    Attributes:
        instance: names this data directory's gateway, through all its restarts.
    """

    def __init__(self, connection: sqlite3.Connection, instance: str, data_dir_id: str, remembered: int) -> None:
        self._db = connection
        self.instance = instance
        self._data_dir_id = data_dir_id
        self._remembered = remembered

    @classmethod
    def open(cls, directory: Path, data_dir_id: str, *, remembered: int) -> Manifest:
        """Open the manifest below `directory`, and make it if need be; it keeps `remembered` ended sessions at most.

        A file that is none is set aside: its workers leave by themselves when their time is over. One that was copied
        from another directory, as `data_dir_id` shows, becomes that of a gateway of its own, without any worker.

        Raises:
            SettingsError: it belongs to somebody else, was written by a later release, or cannot be used.
        """
        path = directory / FILE
        try:
            _make_private(path)
            try:
                db = _opened(path)
            except (NotAManifest, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                _set_aside(path, error)
                _make_private(path)
                db = _opened(path)
            except LaterFormat as later:
                raise SettingsError(
                    f"{path} was written by a later release (format {later.version}, this one knows {schema.VERSION}): "
                    "run that release, or stop the workers and remove the file"
                ) from None
            try:
                return cls(db, _instance(db, directory, data_dir_id), data_dir_id, remembered)
            except BaseException:
                db.close()
                raise
        except (OSError, sqlite3.OperationalError) as error:
            raise SettingsError(
                f"{path} cannot be used: {error}; give the gateway's user a gateway.data_dir it can write to, on a "
                "disk with room, or disable the plugin reattach"
            ) from error

    def close(self) -> None:
        """Close the file; as the last one who has it open, SQLite leaves no write-ahead log behind."""
        self._db.close()

    # steps, in their order

    def announced(self, spawn: WorkerSpawn, lifetime_s: float) -> None:
        """A worker is about to be started."""
        self._db.execute(
            "INSERT INTO worker (session_id, state, backend, endpoint, owner, owner_kind, owner_name, tag, client_name,"
            " lease_s, opened_at, lifetime_s, secret, request_key, request_digest, updated_at)"
            " VALUES (?, 'starting', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                spawn.request_key,
                spawn.request_digest,
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

    def attached(self, session_id: str) -> None:
        """Its session has a subscriber; told again at no cost."""
        self._db.execute(
            "UPDATE worker SET had_subscriber = 1 WHERE session_id = ? AND NOT had_subscriber", (session_id,)
        )

    def gone(self, session_id: str, reason: CloseReason, detail: str) -> None:
        """It is no more, and so is its session: how that ended is remembered."""
        with _transaction(self._db):
            _move_to_ended(self._db, session_id, reason, detail)
            self._db.execute(
                "DELETE FROM ended WHERE number <= (SELECT max(number) FROM ended) - ?", (self._remembered,)
            )

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
            yield _orphan(row, self._data_dir_id, adopt_within_s)

    def ended(self) -> Sequence[EndedSession]:
        """Return the sessions that ended and are remembered, the oldest end first."""
        rows = self._db.execute("SELECT * FROM ended ORDER BY number DESC LIMIT ?", (self._remembered,)).fetchall()
        return [_ended(row) for row in reversed(rows)]

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
    """Take the instance and the workers' secrets out: whoever restores it is another gateway, without workers."""
    copy.execute("UPDATE gateway SET instance = ''")
    copy.execute("UPDATE worker SET secret = x'', former_secret = NULL")


def _orphan(row: sqlite3.Row, data_dir_id: str, adopt_within_s: float) -> Orphan:
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
        data_dir_id=data_dir_id,
        request_key=row["request_key"],
        request_digest=row["request_digest"],
    )
    worker = WorkerIdentity(
        session_id=row["session_id"],
        pid=row["pid"],
        start_ticks=row["start_ticks"],
        epoch=row["epoch"],
        protocol_version=row["protocol_version"],
        boot_id=row["boot_id"],
    )
    closing = _reason(row["close_reason"]) if row["state"] == "closing" else None
    return Orphan(
        spawn=spawn,
        worker=worker,
        former_secret=row["former_secret"],
        was_ready=row["state"] != "starting",
        closing=closing,
        lifetime_s=row["lifetime_s"],
        adopt_within_s=adopt_within_s,
        had_subscriber=bool(row["had_subscriber"]),
    )


def _ended(row: sqlite3.Row) -> EndedSession:
    reason = _reason(row["close_reason"])
    info = SessionInfo(
        session_id=row["session_id"],
        state=SessionState.FAULTED if reason.is_fault else SessionState.CLOSED,
        owner=row["owner"],
        client_name=row["client_name"],
        tag=row["tag"],
        backend=row["backend"],
        opened_at=row["opened_at"],
        epoch=row["epoch"],
        head_sequence=0,
        oldest_sequence=0,
        subscribers=0,
        worker_pid=0,
        close_reason=reason,
        close_detail=row["close_detail"],
    )
    return EndedSession(info, row["closed_at"], row["lease_s"], row["request_key"], row["request_digest"])


def _reason(name: str) -> CloseReason:
    """Return a close reason by its name; one of an earlier release that is no more was the gateway's own doing."""
    return CloseReason.__members__.get(name, CloseReason.GATEWAY_SHUTDOWN)


def _move_to_ended(db: sqlite3.Connection, session_id: str, reason: CloseReason, detail: str) -> None:
    """Take a session out of those with a worker; the gateway's own are nobody's to ask for."""
    db.execute(
        "INSERT OR REPLACE INTO ended (session_id, backend, owner, tag, client_name, lease_s, opened_at, closed_at,"
        " epoch, request_key, request_digest, close_reason, close_detail) SELECT session_id, backend, owner, tag,"
        " client_name, lease_s, opened_at, ?, epoch, request_key, request_digest, ?, ? FROM worker"
        " WHERE session_id = ? AND owner_kind != ?",
        (time.time(), reason.name, detail, session_id, INTERNAL.kind),
    )
    db.execute("DELETE FROM worker WHERE session_id = ?", (session_id,))


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        version = schema.format_of(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        schema.bring_up_to_date(db, version)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _instance(db: sqlite3.Connection, directory: Path, data_dir_id: str) -> str:
    """Return the instance of this directory; a new one when the file was copied here from another, or restored.

    Workers of the other directory may be at work for a gateway that runs there: no process is touched, and their
    sessions count as ended here.
    """
    known = db.execute("SELECT * FROM gateway").fetchone()
    instance: str = known["instance"]
    workers = db.execute("SELECT session_id, endpoint FROM worker ORDER BY opened_at, session_id").fetchall()
    if not instance:  # restored from a backup
        is_copy = True
    elif not known["data_dir_id"]:
        # An earlier release did not write down the directory: its workers' sockets tell where it was.
        run = (directory / "run").resolve()
        workers = [row for row in workers if Path(row["endpoint"]).parent.resolve() != run]
        is_copy = bool(workers)
    else:
        is_copy = not same_data_dir(known["data_dir_id"], data_dir_id)
    if is_copy:
        instance = secrets.token_hex(8)
        log.warning(
            "%s was copied from another directory, or restored: this gateway takes a new instance id (%s) and leaves "
            "%d workers of the original alone; their sessions count as ended here",
            directory,
            instance,
            len(workers),
        )
    with _transaction(db):
        for row in workers if is_copy else ():
            _move_to_ended(db, row["session_id"], CloseReason.GATEWAY_SHUTDOWN, _COPIED)
        db.execute("UPDATE gateway SET instance = ?, data_dir_id = ?", (instance, data_dir_id))
    return instance


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


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.unreadable")
    for suffix in ("", "-wal", "-shm"):
        if (part := path.with_name(path.name + suffix)).exists():
            part.replace(aside.with_name(aside.name + suffix))
    log.error(
        "%s is no manifest (%s): set aside as %s; workers of an earlier gateway cannot be taken back and leave by "
        "themselves",
        path,
        error,
        aside.name,
    )
