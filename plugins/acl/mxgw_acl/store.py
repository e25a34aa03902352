"""The key database: an SQLite file in the private directory. It contains hashes of the secrets, never the secrets."""

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
from mxgw_acl.files import check_private, private_directory, secret_file
from mxgw_acl.keyformat import KeyText, new_key_id, new_secret
from mxgw_acl.keys import Constraints, Key, Scope, SecretHash
from mxgw_core.api import BackupEntry, BackupKind
from mxgw_core.api.errors import MxgwError, SettingsError
from mxgw_core.api.files import open_private

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
    """No key has this id."""


class KeyUnchangeable(MxgwError):
    """The key cannot get a new secret, because it is not valid any more."""


@dataclass(frozen=True, slots=True)
class Use:
    """The last use of a key: the time (seconds since 1970) and the address of the caller."""

    last_used_at: float
    last_peer: str


@dataclass(frozen=True, slots=True)
class KeyWishes:
    """The properties that a new key should have."""

    name: str
    scopes: frozenset[Scope]
    constraints: Constraints = field(default_factory=Constraints)
    expires_at: float | None = None
    certificate_names: Sequence[str] = ()


class KeyStore:
    """The key database. Use an object in one thread at a time.

    Several processes can use the database at the same time: the gateway and commands of the command line.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        """Open the database in `directory`; create the directory and the database when they do not exist.

        Raises:
            SettingsError: the directory, the database or the pepper cannot be used; the text says what to do.
        """
        self._now = now
        self.path = private_directory(directory) / KEYS_FILE
        try:
            # The file is created here with the right mode. SQLite gives its write-ahead log the same mode.
            os.close(open_private(self.path, os.O_RDWR | os.O_CREAT))
            check_private(self.path)
            self._connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"plugins.acl.directory: {self.path} cannot be used: {error}") from error
        # A missing pepper is created only when the database has no keys yet: keys cannot be verified with a new pepper.
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

    # the hashes of secrets

    def digest(self, key_id: str, secret: str) -> bytes:
        """Return the hash of a key's secret, as it is stored.

        The same secret has another hash for each key, and nobody can check a guessed secret without the pepper.
        """
        return hmac.digest(self._pepper, f"mxgw key\0{key_id}\0{secret}".encode(), hashlib.sha256)

    # reading the database

    def version(self) -> int:
        """Return a number that changes whenever another process changes the database. The call takes microseconds."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def keys(self) -> Mapping[str, Key]:
        """Return all keys, the oldest first, in a mapping from key id to key."""
        # Both tables are read in one transaction, so that the keys and the secrets are of the same moment.
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
        """Return the key with this id.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self.keys().get(key_id)
        if key is None:
            raise KeyNotFound(f"there is no key {key_id}; `mxgw keys list` shows those there are")
        return key

    def uses(self) -> Mapping[str, Use]:
        """Return a mapping from key id to the last use of the key; a key that was never used is missing."""
        rows = self._connection.execute("SELECT key_id, last_used_at, last_peer FROM uses").fetchall()
        return {key_id: Use(at, peer) for key_id, at, peer in rows}

    # creating and changing keys

    def create(self, wishes: KeyWishes, environment: str) -> tuple[Key, KeyText]:
        """Create a key; return the key and its text. The text contains the secret, which is stored nowhere."""
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
        """Give a key a new secret; return the key and its new text.

        The present secret stays valid for `old_lives_s` seconds. Older secrets are deleted.

        Raises:
            KeyNotFound: no key has this id.
            KeyUnchangeable: the key is revoked, expired or unusable.
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
        """Revoke a key for good and delete its secrets; do nothing when the key is already revoked.

        `closes_sessions` says whether the sessions of the key are closed; with None the settings decide.

        Raises:
            KeyNotFound: no key has this id.
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
        """Store the last use of each key in `uses`, a mapping from key id to last use."""
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO uses SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?1) "
                "ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at, "
                "last_peer = excluded.last_peer",
                [(key_id, use.last_used_at, use.last_peer) for key_id, use in uses.items()],
            )

    # logins of operators

    def end_login(self, login_id: str, expires_at: float) -> None:
        """Store that a login has ended, at least until `expires_at`, when the token of the login expires."""
        with self._transaction():
            self._connection.execute("DELETE FROM ended_logins WHERE expires_at < ?", (self._now(),))
            self._connection.execute("INSERT OR REPLACE INTO ended_logins VALUES (?, ?)", (login_id, expires_at))

    def end_logins_of(self, name: str) -> None:
        """End all present logins of a person; later logins are not affected."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO login_cuts VALUES (?, ?)", (name.casefold(), self._now()))

    def ended_logins(self) -> Sequence[str]:
        """Return the ids of the logins that `end_login` has ended."""
        return [row[0] for row in self._connection.execute("SELECT login_id FROM ended_logins")]

    def login_cuts(self) -> Mapping[str, float]:
        """Return the times that `end_logins_of` has stored.

        Key: the folded name of a person. Value: a time; all logins of the person that began before it have ended.
        """
        return dict(self._connection.execute("SELECT name, ended_before FROM login_cuts").fetchall())

    def _add_secret(self, text: KeyText) -> None:
        self._connection.execute(
            "INSERT INTO secrets VALUES (?, ?, ?, NULL)",
            (text.key_id, self.digest(text.key_id, text.secret), self._now()),
        )


def files_to_back_up(directory: Path) -> Sequence[BackupEntry]:
    """Return the files for a backup: the key database, the pepper and the audit log, as far as they exist.

    The secret that signs the tokens of operators is not in the backup. Anyone with a copy of that secret could make
    valid tokens. Without it, operators only have to log in again after a restore.

    Raises:
        SettingsError: the key database exists and the pepper does not.
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
