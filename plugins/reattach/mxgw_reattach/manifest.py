"""The manifest: what a gateway must know to take a worker back, recorded before it can be needed.

It is one SQLite file of mode 0600 in the gateway's private directory. Every step is one transaction that is on the disk
before the call returns (WAL, synchronous FULL), so after a crash the file has every completed step. It has the workers'
secrets; they are overwritten when they are replaced, and no repr or log shows them.
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
    """Create it with `open`, in the thread of the event loop. Most methods record one step of a worker's life.

    Attributes:
        instance: identifies the gateway of this data directory, through all its restarts.
    """

    def __init__(self, connection: sqlite3.Connection, instance: str, data_dir_id: str, remembered: int) -> None:
        self._db = connection
        self.instance = instance
        self._data_dir_id = data_dir_id
        self._remembered = remembered
        # Steps that are not written yet, by session and in order; at most three for each worker.
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        # Sessions whose end is not written yet.
        self._ending: set[str] = set()
        self._is_behind = False

    @classmethod
    def open(cls, directory: Path, data_dir_id: str, *, remembered: int) -> Manifest:
        """Open the manifest in `directory`, and create it if necessary; it keeps at most `remembered` ended sessions.

        A file that is not a manifest is set aside; its workers exit when their time is over. A file that was copied
        from another directory (`data_dir_id` differs) becomes the manifest of a new gateway without workers.

        A row with impossible values ends its session; all other rows are used.

        Raises:
            SettingsError: it belongs to another user, was written by a later release, or cannot be used.
        """

        def use(db: sqlite3.Connection) -> Manifest:
            instance = _instance(db, directory, data_dir_id)
            _end_impossible(db)
            return cls(db, instance, data_dir_id, remembered)

        return open_manifest(directory / FILE, use)

    def close(self) -> None:
        """Close the file. No other program has it open, so SQLite removes its write-ahead log."""
        self.write_waiting()
        self._db.close()

    # steps, in their order

    def announced(self, spawn: WorkerSpawn, lifetime_s: float) -> None:
        """Record that a worker is about to be started.

        Raises:
            WorkerStartFailed: it cannot be written.
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
        """Record that the process exists.

        Raises:
            WorkerStartFailed: it cannot be written.
        """
        self._at_once(
            *self._update(worker.session_id, pid=worker.pid, start_ticks=worker.start_ticks, boot_id=worker.boot_id)
        )

    def proved(self, proof: WorkerProof) -> None:
        """Record the next secret; the former one is kept until it is known that the worker has the next.

        Raises:
            WorkerStartFailed: it cannot be written now. For a worker of an earlier run it is written later: the
                worker serves, but if this gateway ends before that, the next one cannot take it back.
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
        """Record that the worker is ready, so it has the next secret; written as soon as possible."""
        update = self._update(worker.session_id, state="ready", former_secret=None)
        self._in_time(worker.session_id, lambda: self._write(*update))

    def closing(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        """Record that the worker is about to be asked to exit; written as soon as possible."""
        update = self._update(worker.session_id, state="closing", close_reason=reason.name)
        self._in_time(worker.session_id, lambda: self._write(*update))

    def attached(self, session_id: str) -> None:
        """Record that the session has a subscriber, written as soon as possible; repeating it costs nothing."""
        values = (session_id,)
        if self._db.execute("SELECT 1 FROM worker WHERE session_id = ? AND NOT had_subscriber", values).fetchone():
            statement = "UPDATE worker SET had_subscriber = 1 WHERE session_id = ?"
            self._in_time(session_id, lambda: self._write(statement, values))

    def gone(self, session_id: str, reason: CloseReason, detail: str) -> None:
        """Record that worker and session have ended, and how; written as soon as possible."""
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
        self._waiting.pop(session_id, None)  # the end replaces all earlier steps
        self._in_time(session_id, write)

    def write_waiting(self) -> bool:
        """Write the steps that could not be written before; return whether none is left.

        Called about every two seconds, and with every step. It logs when writing begins to fail, and when everything is
        written.
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
        """Write a step after those that wait; return whether it is written."""
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
        """Return the statement and its values.

        Raises:
            LookupError: there is no such worker.
        """
        if not self._state_of(session_id):
            raise LookupError(f"the manifest has no worker of session {session_id}")
        columns["updated_at"] = time.time()
        assignments = ", ".join(f"{name} = ?" for name in columns)
        statement = f"UPDATE worker SET {assignments} WHERE session_id = ?"  # noqa: S608 - the names are those above
        return statement, (*columns.values(), session_id)

    # what an earlier run left

    def orphans(self, adopt_within_s: float) -> Iterator[Orphan]:
        """Yield every worker whose end is not recorded, the oldest session first."""
        for row in self._db.execute("SELECT * FROM worker ORDER BY opened_at, session_id").fetchall():
            yield orphan_of(row, self._data_dir_id, adopt_within_s)

    def ended(self) -> Sequence[EndedSession]:
        """Return the remembered sessions that ended, the one that ended first at the beginning."""
        rows = self._db.execute("SELECT * FROM ended ORDER BY number DESC LIMIT ?", (self._remembered,)).fetchall()
        return [ended_of(row) for row in reversed(rows)]

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM worker").fetchone()
        return int(count)

    def __repr__(self) -> str:
        return f"Manifest(instance={self.instance!r})"


def files_to_back_up(data_dir: Path) -> Sequence[BackupEntry]:
    """Return the manifest, if it exists; the backup leaves out what belongs to this gateway alone."""
    path = data_dir / FILE
    return [BackupEntry(path, BackupKind.DATABASE, _forget_this_gateway)] if path.exists() else []


def _forget_this_gateway(copy: sqlite3.Connection) -> None:
    """Remove the instance and the secrets: a restored manifest belongs to another gateway, without workers."""
    copy.execute("UPDATE gateway SET instance = ''")
    copy.execute("UPDATE worker SET secret = x'', former_secret = NULL")


def _move_to_ended(db: sqlite3.Connection, session_id: str, reason: CloseReason, detail: str, at: float) -> None:
    """Move a session from `worker` to `ended`; the gateway's own sessions are not kept, because no client asks for
    them.
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
    """End the sessions whose rows have impossible values. Their workers are not touched; they exit by themselves."""
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
        if db.in_transaction:  # after a full disk, SQLite has rolled it back already
            db.execute("ROLLBACK")
        raise


def _instance(db: sqlite3.Connection, directory: Path, data_dir_id: str) -> str:
    """Return the instance of this directory; a new one when the file was copied from another directory, or restored.

    Workers of the other directory may belong to a gateway that runs there: no process is touched, and their sessions
    count as ended here.
    """
    known = db.execute("SELECT * FROM gateway").fetchone()
    instance: str = known["instance"]
    if not _INSTANCE.match(instance):
        raise NotAManifest("it names no gateway")
    workers = db.execute("SELECT session_id, endpoint FROM worker ORDER BY opened_at, session_id").fetchall()
    if not instance:  # restored from a backup
        is_copy = True
    elif not known["data_dir_id"]:
        # An earlier release did not record the directory; it is known from the sockets of the workers.
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
