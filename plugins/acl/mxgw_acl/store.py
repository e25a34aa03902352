"""The keys on disk: SQLite in WAL mode, inside the private directory, hashes only."""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mxgw_acl.audit_log import AUDIT_FILE
from mxgw_acl.files import FILE_MODE, check_private, private_directory, secret_file
from mxgw_acl.keyformat import KeyText, new_key_id, new_secret
from mxgw_acl.keys import Constraints, Key, Scope, SecretHash
from mxgw_core.api import BackupEntry, BackupKind
from mxgw_core.api.errors import MxgwError, SettingsError

KEYS_FILE, PEPPER_FILE = "keys.sqlite3", "pepper"

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  environment TEXT NOT NULL,
  scopes TEXT NOT NULL,
  constraints TEXT NOT NULL,
  certificate_names TEXT NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL,
  revoked_at REAL,
  closes_sessions INTEGER
) STRICT;
CREATE TABLE secrets (
  key_id TEXT NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
  digest BLOB NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL
) STRICT;
CREATE TABLE uses (
  key_id TEXT PRIMARY KEY REFERENCES keys (id) ON DELETE CASCADE,
  last_used_at REAL NOT NULL,
  last_peer TEXT NOT NULL
) STRICT;
CREATE TABLE ended_logins (
  login_id TEXT PRIMARY KEY,
  expires_at REAL NOT NULL
) STRICT;
CREATE TABLE login_cuts (
  name TEXT PRIMARY KEY,
  ended_before REAL NOT NULL
) STRICT;
"""


class KeyNotFound(MxgwError):
    """There is no key of this id."""


class KeyUnchangeable(MxgwError):
    """The key cannot be changed in this way: it is revoked or expired."""


@dataclass(frozen=True, slots=True)
class Use:
    """When and from where a key was used last."""

    last_used_at: float
    last_peer: str


@dataclass(frozen=True, slots=True)
class KeyWishes:
    """The wanted properties of a new key."""

    name: str
    scopes: frozenset[Scope]
    constraints: Constraints = field(default_factory=Constraints)
    expires_at: float | None = None
    certificate_names: Sequence[str] = ()


class KeyStore:
    """The key database. One object per process; used by one thread at a time.

    Several processes may use it at once: the gateway reads, the command line writes.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        """Open the database in `directory`; both are created when they do not exist.

        Raises:
            SettingsError: the directory, the database or the pepper cannot be used; the text says what to do.
        """
        self._now = now
        self.path = private_directory(directory) / KEYS_FILE
        try:
            # SQLite creates its other files with the mode of this one.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE))
            check_private(self.path)
            self._connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"plugins.acl.directory: {self.path} cannot be used: {error}") from error
        # After the database: a pepper without keys is harmless, but keys without their pepper cannot be used.
        has_keys = self._connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None
        pepper = directory / PEPPER_FILE
        if has_keys and not pepper.exists():
            self.close()
            raise SettingsError(
                f"plugins.acl.directory: {pepper} is missing, and without it no key can be verified: restore it from a "
                f"backup, or remove {self.path} and issue new keys"
            )
        self._pepper = secret_file(pepper)

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(
                    f"its schema has version {version} and this mxgw knows {_SCHEMA_VERSION}: a newer one wrote it"
                )

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # secrets

    def digest(self, key_id: str, secret: str) -> bytes:
        """Return the hash of a secret for storing. It is useless without the pepper, and differs for each key."""
        return hmac.digest(self._pepper, f"mxgw key\0{key_id}\0{secret}".encode(), hashlib.sha256)

    # reading

    def version(self) -> int:
        """Return a number that changes whenever another process changes the database; takes microseconds."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def keys(self) -> Mapping[str, Key]:
        """Return all keys by id, the oldest first."""
        # One transaction, so that keys and secrets belong together.
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(
                "SELECT id, name, environment, scopes, constraints, certificate_names, created_at, expires_at, "
                "revoked_at, closes_sessions FROM keys ORDER BY created_at, id"
            ).fetchall()
            secrets = self._connection.execute(
                "SELECT key_id, digest, created_at, expires_at FROM secrets ORDER BY created_at"
            ).fetchall()
        finally:
            self._connection.execute("COMMIT")
        hashes: dict[str, list[SecretHash]] = {}
        for key_id, *columns in secrets:
            hashes.setdefault(key_id, []).append(SecretHash(*columns))
        return {row[0]: _key(row, hashes.get(row[0], ())) for row in rows}

    def key(self, key_id: str) -> Key:
        """Return one key.

        Raises:
            KeyNotFound: there is none.
        """
        key = self.keys().get(key_id)
        if key is None:
            raise KeyNotFound(f"there is no key {key_id}; `mxgw keys list` shows those there are")
        return key

    def uses(self) -> Mapping[str, Use]:
        """Return the last use of each key that was ever used."""
        rows = self._connection.execute("SELECT key_id, last_used_at, last_peer FROM uses").fetchall()
        return {key_id: Use(at, peer) for key_id, at, peer in rows}

    # writing

    def create(self, wishes: KeyWishes, environment: str) -> tuple[Key, KeyText]:
        """Create a key; return it together with its text, which is stored nowhere."""
        text = KeyText(environment, new_key_id(), new_secret())
        with self._transaction():
            self._connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                (
                    text.key_id,
                    wishes.name,
                    environment,
                    " ".join(sorted(scope.value for scope in wishes.scopes)),
                    wishes.constraints.to_json(),
                    "\n".join(wishes.certificate_names),
                    self._now(),
                    wishes.expires_at,
                ),
            )
            self._add_secret(text)
        return self.key(text.key_id), text

    def rotate(self, key_id: str, old_lives_s: float) -> tuple[Key, KeyText]:
        """Give a key a new secret. The secret before it stays valid for `old_lives_s`, older ones are invalid at once.

        Raises:
            KeyNotFound: there is no such key.
            KeyUnchangeable: it is revoked or expired.
        """
        key, now = self.key(key_id), self._now()
        if dead := key.why_dead(now):
            raise KeyUnchangeable(f"key {key_id} is {dead}: create a new one")
        text = KeyText(key.environment, key_id, new_secret())
        newest = max((secret.created_at for secret in key.hashes), default=0.0)
        with self._transaction():
            self._connection.execute(
                "DELETE FROM secrets WHERE key_id = ? AND (created_at < ? OR expires_at IS NOT NULL)", (key_id, newest)
            )
            self._connection.execute(
                "UPDATE secrets SET expires_at = ? WHERE key_id = ?", (now + max(0.0, old_lives_s), key_id)
            )
            self._add_secret(text)
        return self.key(key_id), text

    def revoke(self, key_id: str, closes_sessions: bool | None = None) -> Key:
        """Revoke a key for good and delete its secrets. Revoking twice changes nothing.

        Raises:
            KeyNotFound: there is no such key.
        """
        self.key(key_id)
        with self._transaction():
            self._connection.execute(
                "UPDATE keys SET revoked_at = ?, closes_sessions = ? WHERE id = ? AND revoked_at IS NULL",
                (self._now(), None if closes_sessions is None else int(closes_sessions), key_id),
            )
            self._connection.execute("DELETE FROM secrets WHERE key_id = ?", (key_id,))
        return self.key(key_id)

    def note_uses(self, uses: Mapping[str, Use]) -> None:
        """Store when keys were used."""
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO uses SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?1) "
                "ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at, "
                "last_peer = excluded.last_peer",
                [(key_id, use.last_used_at, use.last_peer) for key_id, use in uses.items()],
            )

    # logins of operators

    def end_login(self, login_id: str, expires_at: float) -> None:
        """Store that a login has ended, for as long as its token would be valid."""
        with self._transaction():
            self._connection.execute("DELETE FROM ended_logins WHERE expires_at < ?", (self._now(),))
            self._connection.execute("INSERT OR REPLACE INTO ended_logins VALUES (?, ?)", (login_id, expires_at))

    def end_logins_of(self, name: str) -> None:
        """End every login of a person that began before now."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO login_cuts VALUES (?, ?)", (name.casefold(), self._now()))

    def ended_logins(self) -> Sequence[str]:
        """Return the ids of the logins that were ended."""
        return [row[0] for row in self._connection.execute("SELECT login_id FROM ended_logins")]

    def login_cuts(self) -> Mapping[str, float]:
        """Return, by folded name, the time before which all logins of that person have ended."""
        return dict(self._connection.execute("SELECT name, ended_before FROM login_cuts").fetchall())

    def _add_secret(self, text: KeyText) -> None:
        self._connection.execute(
            "INSERT INTO secrets VALUES (?, ?, ?, NULL)",
            (text.key_id, self.digest(text.key_id, text.secret), self._now()),
        )


def files_to_back_up(directory: Path) -> Sequence[BackupEntry]:
    """Return the keys, their pepper and the audit log, if they exist.

    The secret behind the logins of operators is left out: with a copy of it anybody could make a login, and after a
    restore without it operators only have to log in again.

    Raises:
        SettingsError: the keys exist and the pepper does not.
    """
    keys, pepper, audit = directory / KEYS_FILE, directory / PEPPER_FILE, directory / AUDIT_FILE
    if keys.exists() and not pepper.exists():
        raise SettingsError(f"{pepper} is missing, and without it a backup of {keys} is worth nothing")
    found = [BackupEntry(keys, BackupKind.DATABASE), BackupEntry(pepper), BackupEntry(audit, BackupKind.LINES)]
    return [entry for entry in found if entry.path.exists()]


def _key(row: Sequence[object], hashes: Sequence[SecretHash]) -> Key:
    key_id, name, environment, scopes, constraints, names, created_at, expires_at, revoked_at, closes = row
    return Key(
        id=str(key_id),
        name=str(name),
        environment=str(environment),
        scopes=frozenset(Scope(word) for word in str(scopes).split()),
        created_at=float(str(created_at)),
        expires_at=_time(expires_at),
        revoked_at=_time(revoked_at),
        closes_sessions=None if closes is None else bool(closes),
        constraints=Constraints.from_json(str(constraints)),
        certificate_names=tuple(str(names).splitlines()),
        hashes=tuple(hashes),
    )


def _time(column: object) -> float | None:
    return float(column) if isinstance(column, int | float) else None
