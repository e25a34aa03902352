"""The manifest: the file that records what a restarted gateway must know to take the workers back.

The manifest is one SQLite file of mode 0600 in the gateway's data directory. Each step of a worker's life is written in
one transaction, which is on the disk when it is committed (WAL, synchronous FULL), so a crash loses no step that was
written. The file contains the workers' secrets. SQLite overwrites a secret when it is replaced or deleted
(`secure_delete`), and no repr or log shows a secret.

The module has a few more than 400 lines, because every step of a worker's life is one method of the same file.
"""

from __future__ import annotations

import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mxgw_core.api import (
    BackupEntry,
    BackupKind,
    CloseReason,
    EndedSession,
    Orphan,
    WorkerIdentity,
    WorkerProof,
    WorkerSpawn,
    same_data_dir,
)
from mxgw_core.api.errors import WorkerStartFailed
from mxgw_core.api.types import INTERNAL
from mxgw_reattach.opening import in_words, open_manifest
from mxgw_reattach.rows import ended_of, impossible_in_ended, impossible_in_worker, orphan_of, rememberable
from mxgw_reattach.schema import NotAManifest

log = logging.getLogger(__name__)

FILE = "manifest.sqlite3"
_INSTANCE = re.compile(r"[0-9a-f]*\Z")

_COPIED = (
    "this gateway runs on a copy of the data directory: the session's worker belongs to the gateway of the original, "
    "where the session may go on"
)


class Manifest:
    """The open manifest. `open` creates the object; use it only in the thread of the event loop.

    Most methods record one step of a worker's life.

    Attributes:
        instance: a random id of the gateway of this data directory; it stays the same over restarts of the gateway.
    """

    def __init__(self, connection: sqlite3.Connection, instance: str, data_dir_id: str, remembered: int) -> None:
        self._db = connection
        self.instance = instance
        self._data_dir_id = data_dir_id
        self._remembered = remembered
        # Steps that could not be written yet. Key: session id. Value: functions that each write one step, oldest first.
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        # Ids of the sessions whose end could not be written yet.
        self._ending: set[str] = set()
        self._is_behind = False

    @classmethod
    def open(cls, directory: Path, data_dir_id: str, *, remembered: int) -> Manifest:
        """Open the manifest in `directory`; create it when it does not exist.

        `remembered` is the number of ended sessions that the manifest keeps at most.

        A file that is not a manifest is renamed, and a new manifest is created. This gateway then knows no workers of
        an earlier run; they exit when their orphan lifetime has expired.

        When the file was copied from another directory (its `data_dir_id` differs) or restored from a backup, it
        becomes the manifest of a new gateway without workers.

        A session whose row has impossible values is recorded as ended. All other rows are used.

        Raises:
            SettingsError: the file belongs to another user, was written by a later release, or cannot be used.
        """

        def use(db: sqlite3.Connection) -> Manifest:
            instance = _instance(db, directory, data_dir_id)
            _end_impossible(db)
            return cls(db, instance, data_dir_id, remembered)

        return open_manifest(directory / FILE, use)

    def close(self) -> None:
        """Try once more to write the waiting steps, and close the file.

        SQLite then removes the write-ahead log, unless another program (a backup) has the file open.
        """
        self.write_waiting()
        self._db.close()

    # the steps of a worker's life, in the order in which they happen

    def announced(self, spawn: WorkerSpawn, lifetime_s: float) -> None:
        """Record that a worker is about to be started.

        Raises:
            WorkerStartFailed: the manifest cannot be written.
        """
        self._at_once(
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
        """Record that the worker process exists.

        Raises:
            WorkerStartFailed: the manifest cannot be written.
        """
        self._at_once(
            *self._update(worker.session_id, pid=worker.pid, start_ticks=worker.start_ticks, boot_id=worker.boot_id)
        )

    def proved(self, proof: WorkerProof) -> None:
        """Record the worker's next secret.

        The former secret is kept as well, until `ready` records that the worker has received the next secret.

        Raises:
            WorkerStartFailed: the manifest cannot be written now. When the worker is from an earlier run of the
                gateway, the worker is used all the same and the secret is written later. If this gateway ends before
                the secret is written, the next gateway cannot take the worker back.
        """
        worker = proof.worker
        statement, values = self._update(
            worker.session_id,
            secret=proof.secret,
            former_secret=proof.former_secret,
            pid=worker.pid,
            start_ticks=worker.start_ticks,
            boot_id=worker.boot_id,
            epoch=worker.epoch,
            protocol_version=worker.protocol_version,
        )
        if self._state_of(worker.session_id) == "starting":
            self._at_once(statement, values)
        elif not self._in_time(worker.session_id, lambda: self._write(statement, values)):
            raise WorkerStartFailed("the manifest (plugins.reattach) cannot be written")

    def ready(self, worker: WorkerIdentity) -> None:
        """Record that the worker is ready, and delete the former secret: a ready worker has received the next secret.

        When the manifest cannot be written now, the step is written later.
        """
        update = self._update(worker.session_id, state="ready", former_secret=None)
        self._in_time(worker.session_id, lambda: self._write(*update))

    def closing(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """Record that the worker is about to be asked to exit.

        When the manifest cannot be written now, the step is written later.
        """
        update = self._update(worker.session_id, state="closing", close_reason=reason.name)
        self._in_time(worker.session_id, lambda: self._write(*update))

    def attached(self, session_id: str) -> None:
        """Record that the session has had a subscriber; do nothing when the manifest already says so.

        When the manifest cannot be written now, the step is written later.
        """
        values = (session_id,)
        if self._db.execute("SELECT 1 FROM worker WHERE session_id = ? AND NOT had_subscriber", values).fetchone():
            statement = "UPDATE worker SET had_subscriber = 1 WHERE session_id = ?"
            self._in_time(session_id, lambda: self._write(statement, values))

    def gone(self, session_id: str, reason: CloseReason, detail: str) -> None:
        """Record that the worker and its session have ended, with the close reason and its detail.

        When the manifest cannot be written now, the step is written later.
        """
        if session_id in self._ending or not self._state_of(session_id):
            return
        closed_at = time.time()

        def write() -> None:
            with _transaction(self._db):
                _move_to_ended(self._db, session_id, reason, detail, closed_at)
                self._db.execute(
                    "DELETE FROM ended WHERE number <= (SELECT max(number) FROM ended) - ?", (self._remembered,)
                )
            self._ending.discard(session_id)

        self._ending.add(session_id)
        self._waiting.pop(session_id, None)  # Earlier steps of an ended session are not needed any more.
        self._in_time(session_id, write)

    def write_waiting(self) -> bool:
        """Write the waiting steps, oldest first; return True when all of them are written, False after a failure.

        Called about every two seconds, and by each step that is allowed to wait. Logs an error when writing begins to
        fail, and a warning when all waiting steps have been written again.
        """
        try:
            for session_id, steps in tuple(self._waiting.items()):
                while steps:
                    steps[0]()
                    steps.pop(0)
                del self._waiting[session_id]
        except sqlite3.Error as error:
            if not self._is_behind:
                log.error(  # noqa: TRY400 - the words say it all
                    "%s cannot be written: %s; until then no session is opened, and what becomes of those that are "
                    "there is not recorded: after a restart they could not be taken back",
                    FILE,
                    in_words(error),
                )
            self._is_behind = True
            return False
        if self._is_behind:
            log.warning("%s is written again, and what was missing is in it", FILE)
        self._is_behind = False
        return True

    def _in_time(self, session_id: str, write: Callable[[], None]) -> bool:
        """Write a step after all waiting steps. Return True when the step is written, False when it has to wait."""
        self._waiting.setdefault(session_id, []).append(write)
        self.write_waiting()
        return session_id not in self._waiting

    def _at_once(self, statement: str, values: Sequence[object]) -> None:
        try:
            self._write(statement, values)
        except sqlite3.OperationalError as error:
            raise WorkerStartFailed(
                f"the manifest (plugins.reattach) cannot be written: {in_words(error)}, then try again"
            ) from error

    def _write(self, statement: str, values: Sequence[object]) -> None:
        self._db.execute(statement, values)

    def _state_of(self, session_id: str) -> str:
        row = self._db.execute("SELECT state FROM worker WHERE session_id = ?", (session_id,)).fetchone()
        return "" if row is None else str(row["state"])

    def _update(self, session_id: str, **columns: object) -> tuple[str, Sequence[object]]:
        """Return an SQL statement that sets these columns in the worker's row, and the values for the statement.

        Raises:
            LookupError: the manifest has no worker of this session.
        """
        if not self._state_of(session_id):
            raise LookupError(f"the manifest has no worker of session {session_id}")
        columns["updated_at"] = time.time()
        assignments = ", ".join(f"{name} = ?" for name in columns)
        statement = f"UPDATE worker SET {assignments} WHERE session_id = ?"  # noqa: S608 - the names are those above
        return statement, (*columns.values(), session_id)

    # what earlier runs of the gateway recorded

    def orphans(self, adopt_within_s: float) -> Iterator[Orphan]:
        """Yield every worker whose end is not recorded, the oldest session first."""
        for row in self._db.execute("SELECT * FROM worker ORDER BY opened_at, session_id").fetchall():
            yield orphan_of(row, self._data_dir_id, adopt_within_s)

    def ended(self) -> Sequence[EndedSession]:
        """Return the ended sessions that the manifest keeps, in the order in which their ends were recorded."""
        rows = self._db.execute("SELECT * FROM ended ORDER BY number DESC LIMIT ?", (self._remembered,)).fetchall()
        return [ended_of(row) for row in reversed(rows)]

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM worker").fetchone()
        return int(count)

    def __repr__(self) -> str:
        return f"Manifest(instance={self.instance!r})"


def files_to_back_up(data_dir: Path) -> Sequence[BackupEntry]:
    """Return the manifest if it exists. Its copy in the backup has neither the gateway's instance id nor any secret."""
    path = data_dir / FILE
    return [BackupEntry(path, BackupKind.DATABASE, _forget_this_gateway)] if path.exists() else []


def _forget_this_gateway(copy: sqlite3.Connection) -> None:
    """Remove the instance id and all secrets from the copy of a manifest that goes into a backup.

    The gateway that uses the restored manifest is another gateway, and must not take back the workers of this gateway.
    """
    copy.execute("UPDATE gateway SET instance = ''")
    copy.execute("UPDATE worker SET secret = x'', former_secret = NULL")


def _move_to_ended(db: sqlite3.Connection, session_id: str, reason: CloseReason, detail: str, at: float) -> None:
    """Move a session from the table `worker` to the table `ended`, with the time `at` of its end.

    A session that the gateway opened for itself is deleted instead, because no client ever asks how it ended.
    """
    db.execute(
        "INSERT OR REPLACE INTO ended (session_id, backend, owner, tag, client_name, lease_s, opened_at, closed_at,"
        " epoch, request_key, request_digest, close_reason, close_detail) SELECT session_id, backend, owner, tag,"
        " client_name, lease_s, opened_at, ?, epoch, request_key, request_digest, ?, ? FROM worker"
        " WHERE session_id = ? AND owner_kind != ?",
        (at, reason.name, detail, session_id, INTERNAL.kind),
    )
    db.execute("DELETE FROM worker WHERE session_id = ?", (session_id,))


def _end_impossible(db: sqlite3.Connection) -> None:
    """Delete rows with impossible values from the tables `worker` and `ended`.

    A session in the table `worker` is also recorded as ended, if a client could ask for the session.

    The worker processes of these sessions are not touched. They exit by themselves when no gateway takes them back.
    """
    for row in db.execute("SELECT rowid AS number, * FROM worker").fetchall():
        if not (wrong := impossible_in_worker(row)):
            continue
        what = f"the manifest holds an impossible {' and '.join(wrong)}"
        session = rememberable(row) if row["owner_kind"] != INTERNAL.kind else None
        with _transaction(db):
            if session is not None:
                session |= {"closed_at": time.time(), "close_reason": CloseReason.GATEWAY_SHUTDOWN.name}
                session["close_detail"] = f"{what} for it, so its worker could not be taken back and leaves by itself"
                db.execute(
                    f"INSERT OR REPLACE INTO ended ({', '.join(session)})"  # noqa: S608 - the names are the table's
                    f" VALUES ({', '.join('?' * len(session))})",
                    tuple(session.values()),
                )
            db.execute("DELETE FROM worker WHERE rowid = ?", (row["number"],))
        name = "a session without a name" if "session_id" in wrong else f"session {row['session_id']}"
        log.error("%s for %s: it is not taken back; its worker leaves when its time is over", what, name)
    for row in db.execute("SELECT * FROM ended").fetchall():
        if wrong := impossible_in_ended(row):
            db.execute("DELETE FROM ended WHERE number = ?", (row["number"],))
            log.error(
                "the manifest holds an impossible %s for a session that ended: it is forgotten", " and ".join(wrong)
            )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # When the disk is full, SQLite has already rolled back the transaction.
            db.execute("ROLLBACK")
        raise


def _instance(db: sqlite3.Connection, directory: Path, data_dir_id: str) -> str:
    """Return the instance id of this directory's gateway, and store it together with `data_dir_id`.

    When the file was copied from another directory or restored from a backup, the instance id is a new one. The workers
    in the file perhaps belong to a gateway that runs on the other directory. So no worker process is touched, and the
    sessions of these workers are recorded as ended in this manifest.

    Raises:
        NotAManifest: the stored instance id is not one that a gateway makes.
    """
    known = db.execute("SELECT * FROM gateway").fetchone()
    instance: str = known["instance"]
    if not _INSTANCE.match(instance):
        raise NotAManifest("it names no gateway")
    workers = db.execute("SELECT session_id, endpoint FROM worker ORDER BY opened_at, session_id").fetchall()
    if not instance:
        # Only the copy of a manifest in a backup has no instance id, so this manifest was restored from a backup.
        is_copy = True
    elif not known["data_dir_id"]:
        # An earlier release wrote this manifest, without the id of the data directory. All workers of a gateway have
        # their sockets in the directory `run` inside the data directory. So when the manifest names a worker with a
        # socket elsewhere, the manifest was copied from another data directory.
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
        if is_copy:
            for row in workers:
                _move_to_ended(db, row["session_id"], CloseReason.GATEWAY_SHUTDOWN, _COPIED, time.time())
        db.execute("UPDATE gateway SET instance = ?, data_dir_id = ?", (instance, data_dir_id))
    return instance
