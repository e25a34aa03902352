"""The tables of a manifest, and the conversion of files that an earlier release wrote.

Not every file that SQLite can read is a manifest: its application id and its tables are compared with the expected
ones.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from contextlib import closing

VERSION = 2
# The application id of a manifest: the characters "mxgw" as a big-endian number. Files of format 1 have
# no application id.
APPLICATION_ID = 0x6D786777
_COMMENT = re.compile(r"--[^\n]*")

_WORKER_1 = """
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
"""
FORMAT_1 = f"""
CREATE TABLE gateway (instance TEXT NOT NULL);
CREATE TABLE worker ({_WORKER_1}) STRICT;
"""
# Key: a format. Value: the SQL that converts a file of the previous format. A new file is created in format 1 and then
# converted, so that each table is defined in one place only.
# The table `ended` has the sessions that ended: after a restart, their owners can still ask for the close reason.
# `request_key` and `request_digest` are the hashes by which a repeated OpenSession finds the session of the first call.
_STEPS = {
    2: """
ALTER TABLE gateway ADD COLUMN data_dir_id TEXT NOT NULL DEFAULT '';
ALTER TABLE worker ADD COLUMN had_subscriber INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker ADD COLUMN request_key BLOB NOT NULL DEFAULT x'';
ALTER TABLE worker ADD COLUMN request_digest BLOB NOT NULL DEFAULT x'';
CREATE TABLE ended (
    number INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    backend TEXT NOT NULL,
    owner TEXT NOT NULL,
    tag TEXT NOT NULL,
    client_name TEXT NOT NULL,
    lease_s REAL NOT NULL,
    opened_at REAL NOT NULL,
    closed_at REAL NOT NULL,
    epoch BLOB NOT NULL,
    request_key BLOB NOT NULL,
    request_digest BLOB NOT NULL,
    close_reason TEXT NOT NULL,
    close_detail TEXT NOT NULL
) STRICT;
""",
}


class NotAManifest(Exception):
    """The file is not a manifest, or it is a damaged one."""


class LaterFormat(Exception):
    """The file is a manifest of a later release; `version` is its format."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}")
        self.version = version


def format_of(db: sqlite3.Connection) -> int:
    """Return the format of a manifest; 0 when the file is empty. Write nothing.

    Raises:
        LaterFormat: a later release wrote the file.
        NotAManifest: the file is not a manifest, or it is damaged.
        sqlite3.Error: the file cannot be read.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        raise LaterFormat(version)
    objects = _objects(db)
    if application == 0 and version == 0 and not objects:
        return 0
    expected = APPLICATION_ID if version > 1 else 0
    if application != expected or not 1 <= version <= VERSION or objects != _objects_of(version):
        raise NotAManifest("its schema is not that of a manifest")
    if (damage := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise NotAManifest(damage)
    if db.execute("SELECT count(*) FROM gateway").fetchone()[0] != 1:
        raise NotAManifest("it names no gateway")
    return int(version)


def bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    """Create the tables in an empty file, or convert the tables of an earlier format, in one transaction.

    Raises:
        sqlite3.Error: the file cannot be written.
    """
    if version == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    if version == 0:
        for statement in FORMAT_1.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO gateway VALUES (?)", (secrets.token_hex(8),))
        version = 1
    for step in range(version + 1, VERSION + 1):
        for statement in _STEPS[step].split(";\n"):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _objects(db: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the SQL of all tables, indexes, views and triggers. Key: type and name. Value: SQL text.

    The SQL text is without comments and with single spaces, because an earlier release perhaps wrote other comments and
    spaces.
    """
    rows = db.execute("SELECT type, name, sql FROM sqlite_schema")
    return {(kind, name): " ".join(_COMMENT.sub(" ", sql or "").split()) for kind, name, sql in rows}


def _objects_of(version: int) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(FORMAT_1 + "".join(_STEPS[step] for step in range(2, version + 1)))
        return _objects(db)
