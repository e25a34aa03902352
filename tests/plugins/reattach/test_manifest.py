"""The manifest: each step is on the disk when its call returns, secrets are replaced, a bad file is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.privacy import is_private, link, open_to_others

from mxgw_core.api import (
    BackupKind,
    CloseReason,
    Orphan,
    SessionInfo,
    SessionState,
    WorkerIdentity,
    WorkerProof,
    WorkerSpawn,
)
from mxgw_core.api.errors import SettingsError, WorkerStartFailed
from mxgw_core.api.types import INTERNAL
from mxgw_core.config.models import LONGEST_S
from mxgw_reattach.manifest import FILE, Manifest, files_to_back_up
from mxgw_reattach.schema import FORMAT_1, VERSION

FIRST, SECOND, THIRD = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32

SPAWN = WorkerSpawn(
    session_id="s1",
    backend="line4",
    endpoint=Path("/var/lib/mxgw/run/0123456789abcdef.sock"),
    secret=FIRST,
    owner="key-7",
    tag="north",
    client_name="historian",
    lease_s=900.0,
    owner_kind="key",
    owner_name="Historian of the north",
    opened_at=1_700_000_000.25,
    data_dir_id="fd00:1001:boot",
    request_key=bytes([7]) * 32,
    request_digest=bytes([8]) * 32,
)
STARTED = WorkerIdentity("s1", 4711, 123_456, b"", 0, "boot")
PROVED = replace(STARTED, epoch=bytes(range(16)), protocol_version=1)
HERE, COPY = "fd00:1001:boot", "fd00:2002:boot"


def manifest_in(directory: Path, data_dir_id: str = HERE, remembered: int = 100) -> Manifest:
    return Manifest.open(directory, data_dir_id, remembered=remembered)


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with closing(manifest_in(tmp_path)) as opened:
        yield opened


def seen(directory: Path) -> list[Orphan]:
    """Return what a process would find that opens the manifest now, although it is open here."""
    with closing(manifest_in(directory)) as other:
        return list(other.orphans(10.0))


def test_before_the_spawn_everything_is_known_but_the_process(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    (orphan,) = seen(tmp_path)

    assert orphan.spawn == SPAWN
    assert orphan.worker == WorkerIdentity("s1", 0, 0, b"", 0, "")
    assert (orphan.was_ready, orphan.closing, orphan.former_secret) == (False, None, None)
    assert (orphan.lifetime_s, orphan.adopt_within_s) == (120.0, 10.0)


def test_the_longest_lease_that_the_settings_accept_is_read_back(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(replace(SPAWN, lease_s=LONGEST_S), 120.0)

    assert [orphan.spawn.lease_s for orphan in seen(tmp_path)] == [LONGEST_S]


def test_after_the_spawn_the_process_is_known(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.started(STARTED)
    (orphan,) = seen(tmp_path)

    assert orphan.worker == STARTED
    assert not orphan.was_ready


def test_after_the_proof_both_secrets_are_known(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.started(STARTED)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    (orphan,) = seen(tmp_path)

    assert orphan.worker == PROVED
    assert (orphan.spawn.secret, orphan.former_secret) == (SECOND, FIRST)
    assert not orphan.was_ready


def test_after_ready_the_former_secret_is_gone_from_the_disk(tmp_path: Path) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
        manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
        manifest.ready(PROVED)
        (orphan,) = seen(tmp_path)

        assert orphan.was_ready
        assert (orphan.spawn.secret, orphan.former_secret) == (SECOND, None)

    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert SECOND in content
    assert FIRST not in content


def test_an_adoption_rotates_again(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    manifest.ready(PROVED)
    manifest.proved(WorkerProof(PROVED, THIRD, SECOND))
    (orphan,) = seen(tmp_path)

    assert orphan.was_ready, "the gateway before has seen it ready; it stays adoptable"
    assert (orphan.spawn.secret, orphan.former_secret) == (THIRD, SECOND)


@pytest.mark.parametrize("reason", list(CloseReason))
def test_before_the_end_its_reason_is_known(manifest: Manifest, tmp_path: Path, reason: CloseReason) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.ready(PROVED)
    manifest.closing(PROVED, reason)
    (orphan,) = seen(tmp_path)

    assert orphan.closing is reason


def test_after_the_end_nothing_is_known(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.gone("s1", CloseReason.CLIENT, "")
    manifest.gone("s1", CloseReason.WORKER_EXITED, "")  # an end that is told twice is no error, and the first counts

    assert seen(tmp_path) == []
    assert len(manifest) == 0


def test_a_step_of_a_worker_that_is_not_there_is_an_error(manifest: Manifest) -> None:
    for step in (
        lambda: manifest.started(STARTED),
        lambda: manifest.proved(WorkerProof(PROVED, SECOND, FIRST)),
        lambda: manifest.ready(PROVED),
        lambda: manifest.closing(PROVED, CloseReason.CLIENT),
    ):
        with pytest.raises(LookupError, match="s1"):
            step()


def test_a_session_cannot_be_announced_twice(manifest: Manifest) -> None:
    manifest.announced(SPAWN, 120.0)

    with pytest.raises(sqlite3.IntegrityError):
        manifest.announced(SPAWN, 120.0)


def test_orphans_come_in_the_order_in_which_their_sessions_were_opened(manifest: Manifest) -> None:
    for name, opened_at in (("b", 2.0), ("c", 3.0), ("a", 1.0)):
        manifest.announced(replace(SPAWN, session_id=name, opened_at=opened_at), 120.0)

    assert [orphan.session_id for orphan in manifest.orphans(1.0)] == ["a", "b", "c"]


def test_the_instance_stays_the_same_and_is_the_directory_s_own(tmp_path: Path) -> None:
    names = []
    for directory in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        directory.mkdir(exist_ok=True)
        with closing(manifest_in(directory)) as manifest:
            names.append(manifest.instance)

    assert names[0] == names[1] != names[2]


def test_all_its_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(manifest_in(tmp_path)) as manifest:
            manifest.announced(SPAWN, 120.0)
            private = {path.name: is_private(path) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert private == {FILE: True, f"{FILE}-wal": True, f"{FILE}-shm": True}


def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    manifest_in(tmp_path).close()
    open_to_others(tmp_path / FILE)
    manifest_in(tmp_path).close()

    assert is_private(tmp_path / FILE)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    link(tmp_path / FILE, tmp_path / "elsewhere")

    with pytest.raises(SettingsError, match="cannot be used"):
        manifest_in(tmp_path)


def test_a_file_of_a_later_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")

    with pytest.raises(SettingsError, match="written by a later release"):
        manifest_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT count(*) FROM worker").fetchone() == (1,)


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA user_version = 1; CREATE TABLE song (title TEXT);")


def _foreign_without_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE gateway (name TEXT)")


def _foreign_of_a_later_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA user_version = 7; CREATE TABLE worker (name TEXT);")


def _other_columns(path: Path) -> None:
    manifest_in(path.parent).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE worker DROP COLUMN had_subscriber")


def _more(sql: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        manifest_in(path.parent).close()
        with closing(sqlite3.connect(path)) as db:
            db.executescript(sql)

    return spoil


_trigger = _more("CREATE TRIGGER t BEFORE UPDATE ON gateway BEGIN SELECT RAISE(ABORT, 'no'); END")
_view = _more("CREATE VIEW v AS SELECT * FROM gateway")
_index = _more("CREATE UNIQUE INDEX i ON worker (backend)")
_constraint = _more(
    "DROP TABLE gateway; CREATE TABLE gateway (instance TEXT, data_dir_id TEXT CHECK (data_dir_id = ''))"
)
_no_instance = _more("UPDATE gateway SET instance = CAST(x'ff' AS TEXT)")


def _nameless(path: Path) -> None:
    manifest_in(path.parent).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM gateway")
        db.commit()


def _damaged(path: Path) -> None:
    with closing(manifest_in(path.parent)) as manifest:
        for number in range(100):
            manifest.announced(replace(SPAWN, session_id=f"s{number}"), 120.0)
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 8] = b"\xff" * 4096 * 5
    path.write_bytes(content)


def _text(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be sure of that" * 100)


@pytest.mark.parametrize(
    "spoil",
    [
        _text,
        _foreign,
        _foreign_without_version,
        _foreign_of_a_later_version,
        _other_columns,
        _nameless,
        _damaged,
        _trigger,
        _view,
        _index,
        _constraint,
        _no_instance,
    ],
)
def test_a_file_that_is_no_manifest_is_set_aside_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)

        assert len(manifest) == 1

    assert (tmp_path / f"{FILE}.unreadable").read_bytes() == content
    assert "cannot be taken back" in caplog.text


def test_what_was_set_aside_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.unreadable").write_bytes(b"the first")
    (tmp_path / f"{FILE}.unreadable-2").mkdir()
    (tmp_path / f"{FILE}.unreadable-3-wal").write_bytes(b"of a third")
    _text(tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    manifest_in(tmp_path).close()

    assert (tmp_path / f"{FILE}.unreadable").read_bytes() == b"the first"
    assert (tmp_path / f"{FILE}.unreadable-2").is_dir()
    assert (tmp_path / f"{FILE}.unreadable-4").read_bytes() == content


def test_it_is_not_set_aside_for_ever(tmp_path: Path) -> None:
    for number in range(101):
        (tmp_path / f"{FILE}.unreadable{f'-{number}' if number > 1 else ''}").touch()
    _text(tmp_path / FILE)

    with pytest.raises(SettingsError, match="look into"):
        manifest_in(tmp_path)


def test_a_manifest_that_another_program_has_locked_is_refused_with_that_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest_in(tmp_path).close()
    monkeypatch.setattr("mxgw_reattach.opening._BUSY_TIMEOUT_S", 0.0)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SettingsError, match="another program keeps it locked: close that program"):
            manifest_in(tmp_path)


@pytest.mark.parametrize("name", [f"{FILE}-wal", f"{FILE}-shm"])
def test_a_directory_beside_it_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    manifest_in(tmp_path).close()
    (tmp_path / name).mkdir()

    with pytest.raises(SettingsError, match=f"{name} is a directory: move it away"):
        manifest_in(tmp_path)


# values that cannot be


IMPOSSIBLE = {
    "pid": 2**62,
    "start_ticks": -1,
    "protocol_version": -1,
    "secret": b"\0",
    "former_secret": bytes(33),
    "epoch": b"\0\x11",
    "lease_s": -1e300,
    "opened_at": float("inf"),
    "lifetime_s": float("inf"),
    "request_key": b"1",
    "request_digest": b"1",
    "had_subscriber": 7,
    "tag": b"\xff",
    "boot_id": b"\xff",
    "client_name": b"x" * 100_000,
}


def _set(directory: Path, table: str, column: str, value: object, where: str) -> None:
    with closing(sqlite3.connect(directory / FILE)) as db, db:
        # Bytes for a column of texts: that is how one gets there what is no UTF-8.
        is_text = column in ("tag", "boot_id", "client_name", "session_id", "owner", "close_detail")
        db.execute(f"UPDATE {table} SET {column} = {'CAST(? AS TEXT)' if is_text else '?'} WHERE {where}", (value,))


@pytest.mark.parametrize("column", list(IMPOSSIBLE))
def test_a_row_with_an_impossible_value_ends_its_session_in_words_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        for name in ("s1", "s2", "s3"):
            manifest.announced(replace(SPAWN, session_id=name), 120.0)
            manifest.proved(WorkerProof(replace(PROVED, session_id=name), SECOND, FIRST))
            manifest.ready(replace(PROVED, session_id=name))
    _set(tmp_path, "worker", column, IMPOSSIBLE[column], "session_id = 's2'")
    with closing(manifest_in(tmp_path)) as manifest:
        assert [orphan.session_id for orphan in manifest.orphans(1.0)] == ["s1", "s3"]
        (ended,) = manifest.ended()

    assert (ended.info.session_id, ended.info.owner) == ("s2", "key-7")
    assert ended.info.close_reason is CloseReason.GATEWAY_SHUTDOWN
    assert f"impossible {column} for it" in ended.info.close_detail
    assert [r.message for r in caplog.records if f"impossible {column} for session s2" in r.message]


@pytest.mark.parametrize(
    ("column", "value"), [("session_id", b"\xff"), ("session_id", b""), ("session_id", b"a\nb"), ("owner", b"\xff")]
)
def test_a_row_that_names_nobody_is_forgotten(tmp_path: Path, column: str, value: bytes) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        for name in ("s1", "s2"):
            manifest.announced(replace(SPAWN, session_id=name), 120.0)
    _set(tmp_path, "worker", column, value, "session_id = 's2'")
    with closing(manifest_in(tmp_path)) as manifest:
        assert [orphan.session_id for orphan in manifest.orphans(1.0)] == ["s1"]
        assert manifest.ended() == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("opened_at", 1e300),
        ("closed_at", float("-inf")),
        ("lease_s", float("inf")),
        ("epoch", b"1"),
        ("number", 2**63 - 1),
        ("close_detail", b"\xff"),
        ("session_id", b"\xff"),
    ],
)
def test_an_end_with_an_impossible_value_is_forgotten_and_no_other(tmp_path: Path, column: str, value: object) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        for name in ("s1", "s2"):
            manifest.announced(replace(SPAWN, session_id=name), 120.0)
            manifest.gone(name, CloseReason.CLIENT, "")
    _set(tmp_path, "ended", column, value, "session_id = 's2'")
    with closing(manifest_in(tmp_path)) as manifest:
        assert [ended.info.session_id for ended in manifest.ended()] == ["s1"]


# a disk that is full, for a while


def test_on_a_full_disk_no_worker_is_announced_and_the_cause_is_told(manifest: Manifest) -> None:
    """SQLite answers as on a full disk when the file may grow no more."""
    (pages,) = manifest._db.execute("PRAGMA page_count").fetchone()
    manifest._db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(WorkerStartFailed, match=r"gateway\.data_dir is full: make room on it, then try again"):
        manifest.announced(replace(SPAWN, client_name="x" * 10_000), 120.0)


def _refuse_writes(manifest: Manifest, on: bool) -> None:
    manifest._db.execute(f"PRAGMA query_only = {'ON' if on else 'OFF'}")


def test_the_secret_of_an_adopted_worker_is_written_as_soon_as_that_works(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    manifest.ready(PROVED)
    _refuse_writes(manifest, True)
    with pytest.raises(WorkerStartFailed):
        manifest.proved(WorkerProof(PROVED, THIRD, SECOND))
    manifest.ready(PROVED)
    manifest.attached("s1")

    assert not manifest.write_waiting()
    assert [(o.spawn.secret, o.had_subscriber) for o in seen(tmp_path)] == [(SECOND, False)]

    _refuse_writes(manifest, False)

    assert manifest.write_waiting()
    assert [(o.spawn.secret, o.former_secret, o.had_subscriber) for o in seen(tmp_path)] == [(THIRD, None, True)]
    assert [r.message.split(":")[0] for r in caplog.records] == [
        f"{FILE} cannot be written",
        f"{FILE} is written again, and what was missing is in it",
    ]


def test_an_end_that_could_not_be_written_is_remembered_as_it_was(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        manifest.announced(replace(SPAWN, session_id=name), 120.0)
        manifest.ready(replace(PROVED, session_id=name))
    _refuse_writes(manifest, True)
    manifest.closing(PROVED, CloseReason.CLIENT)
    manifest.gone("s1", CloseReason.CLIENT, "")
    manifest.gone("s1", CloseReason.WORKER_EXITED, "told twice")
    for number in range(100):
        manifest.gone(f"refused{number}", CloseReason.WORKER_START_FAILED, "")

    assert len(manifest._waiting) == 1, "what was never written needs no end"

    _refuse_writes(manifest, False)
    manifest.closing(replace(PROVED, session_id="s2"), CloseReason.LEASE_EXPIRED)  # the next step writes both
    with closing(manifest_in(tmp_path)) as other:
        assert [(e.info.session_id, e.info.close_reason) for e in other.ended()] == [("s1", CloseReason.CLIENT)]
        assert [(o.session_id, o.closing) for o in other.orphans(1.0)] == [("s2", CloseReason.LEASE_EXPIRED)]


def test_what_waits_is_written_at_the_latest_when_the_manifest_is_closed(tmp_path: Path) -> None:
    manifest = manifest_in(tmp_path)
    manifest.announced(SPAWN, 120.0)
    _refuse_writes(manifest, True)
    manifest.gone("s1", CloseReason.CLIENT, "")
    _refuse_writes(manifest, False)
    manifest.close()

    assert seen(tmp_path) == []


def test_a_directory_in_its_place_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()

    with pytest.raises(SettingsError, match=r"cannot be used: .*[Dd]irectory"):
        manifest_in(tmp_path)


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="only root can make a file of another user")
def test_a_file_of_another_user_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    os.chown(tmp_path / FILE, 65534, 65534)

    with pytest.raises(SettingsError, match="not a file of this gateway's user"):
        manifest_in(tmp_path)


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / FILE).touch(0)

    with pytest.raises(SettingsError, match=r"cannot be used: .*Permission denied"):
        manifest_in(tmp_path)


# sessions that ended


def test_how_a_session_ended_is_known_afterwards(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    manifest.ready(PROVED)
    manifest.gone("s1", CloseReason.LEASE_EXPIRED, "idle for 900 s")
    with closing(manifest_in(tmp_path)) as other:
        (ended,) = other.ended()

    assert (ended.request_key, ended.request_digest) == (SPAWN.request_key, SPAWN.request_digest)
    assert ended.info == SessionInfo(
        session_id="s1",
        state=SessionState.CLOSED,
        owner="key-7",
        client_name="historian",
        tag="north",
        backend="line4",
        opened_at=SPAWN.opened_at,
        epoch=PROVED.epoch,
        head_sequence=0,
        oldest_sequence=0,
        subscribers=0,
        worker_pid=0,
        close_reason=CloseReason.LEASE_EXPIRED,
        close_detail="idle for 900 s",
    )
    assert ended.lease_s == 900.0
    assert ended.closed_at > SPAWN.opened_at


def test_only_the_newest_ends_are_remembered_and_none_of_the_gateway_s_own_sessions(tmp_path: Path) -> None:
    with closing(manifest_in(tmp_path, remembered=3)) as manifest:
        for number in range(10):
            kind = INTERNAL.kind if number % 2 else "key"
            manifest.announced(replace(SPAWN, session_id=f"s{number}", owner_kind=kind), 120.0)
            manifest.gone(f"s{number}", CloseReason.CLIENT, "")

        assert [ended.info.session_id for ended in manifest.ended()] == ["s4", "s6", "s8"]
        assert manifest._db.execute("SELECT count(*) FROM ended").fetchone()[0] == 3

    with closing(manifest_in(tmp_path, remembered=1)) as manifest:
        assert [ended.info.session_id for ended in manifest.ended()] == ["s8"]


def test_where_none_is_remembered_none_is(tmp_path: Path) -> None:
    with closing(manifest_in(tmp_path, remembered=0)) as manifest:
        manifest.announced(SPAWN, 120.0)
        manifest.gone("s1", CloseReason.CLIENT, "")

        assert manifest.ended() == []
        assert manifest._db.execute("SELECT count(*) FROM ended").fetchone()[0] == 0


def test_the_secret_of_a_session_that_ended_is_gone_from_the_disk(tmp_path: Path) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
        manifest.gone("s1", CloseReason.CLIENT, "")

    assert FIRST not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_session_that_had_a_subscriber_is_known_to_have_had_one(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        manifest.announced(replace(SPAWN, session_id=name), 120.0)
    manifest.attached("s1")
    manifest.attached("s1")
    manifest.attached("another plugin's")

    assert [(o.session_id, o.had_subscriber) for o in seen(tmp_path)] == [("s1", True), ("s2", False)]


# directories


def test_a_copy_takes_a_new_instance_and_has_no_workers_but_ended_sessions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
        manifest.ready(PROVED)
        original = manifest.instance
    with closing(manifest_in(tmp_path, COPY)) as copy:
        instance = copy.instance

        assert instance != original
        assert list(copy.orphans(1.0)) == []
        (ended,) = copy.ended()

    assert (ended.info.session_id, ended.info.close_reason) == ("s1", CloseReason.GATEWAY_SHUTDOWN)
    assert "copy of the data directory" in ended.info.close_detail
    assert "leaves 1 workers of the original alone" in caplog.text
    assert FIRST not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    caplog.clear()
    with closing(manifest_in(tmp_path, COPY)) as again:
        assert again.instance == instance

    assert not caplog.records


@pytest.mark.parametrize("is_of_format_1", [False, True])
def test_a_backup_has_no_secret_and_is_a_gateway_of_its_own_even_where_it_was_made(
    tmp_path: Path, is_of_format_1: bool
) -> None:
    if is_of_format_1:
        _format_1(tmp_path, tmp_path / "run" / "x.sock")
    else:
        with closing(manifest_in(tmp_path)) as manifest:
            manifest.announced(SPAWN, 120.0)
            manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    (entry,) = files_to_back_up(tmp_path)

    assert (entry.path, entry.kind) == (tmp_path / FILE, BackupKind.DATABASE)
    assert entry.prepare is not None

    with closing(sqlite3.connect(entry.path)) as db:
        (original,) = db.execute("SELECT instance FROM gateway").fetchone()
        entry.prepare(db)
        db.commit()
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert not [secret for secret in (FIRST, SECOND) if secret in content]

    with closing(manifest_in(tmp_path)) as restored:
        assert restored.instance not in ("", original)
        assert list(restored.orphans(1.0)) == []
        assert [ended.info.session_id for ended in restored.ended()] == ["s1"]

        instance = restored.instance
    with closing(manifest_in(tmp_path)) as again:
        assert again.instance == instance


@pytest.mark.parametrize(
    ("data_dir_id", "is_same"),
    [
        ("fd00:1001:boot", True),
        ("fd01:1001:boot", False),  # another file system of the running machine, where inodes are few and alike
        ("fd00:1002:boot", False),
        ("fd01:1001:next boot", True),  # devices were numbered anew
        ("fd01:1002:next boot", False),
    ],
)
def test_the_same_directory_is_known_by_inode_and_device_and_over_a_boot_by_inode(
    tmp_path: Path, data_dir_id: str, is_same: bool
) -> None:
    with closing(manifest_in(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
        instance = manifest.instance
    with closing(manifest_in(tmp_path, data_dir_id)) as manifest:
        assert (manifest.instance == instance) == is_same
        assert len(manifest) == is_same
        assert all(orphan.spawn.data_dir_id == data_dir_id for orphan in manifest.orphans(1.0))


# files of earlier releases


def _format_1(directory: Path, endpoint: Path, **more: object) -> None:
    """Write a manifest as the first release did, with one worker."""
    row = {
        "session_id": "s1",
        "state": "ready",
        "backend": "line4",
        "endpoint": str(endpoint),
        "owner": "key-7",
        "owner_kind": "key",
        "owner_name": "",
        "tag": "",
        "client_name": "historian",
        "lease_s": 900.0,
        "opened_at": 1.0,
        "lifetime_s": 120.0,
        "secret": FIRST,
        "updated_at": 2.0,
        **more,
    }
    with closing(sqlite3.connect(directory / FILE)) as db, db:
        db.executescript(FORMAT_1)
        db.execute("INSERT INTO gateway VALUES ('0123456789abcdef')")
        db.execute(f"INSERT INTO worker ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        db.execute("PRAGMA user_version = 1")


def test_a_manifest_of_the_first_format_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    _format_1(tmp_path, tmp_path / "run" / "x.sock")
    with closing(manifest_in(tmp_path)) as manifest:
        (orphan,) = manifest.orphans(10.0)

        assert manifest.instance == "0123456789abcdef"
        assert (orphan.session_id, orphan.spawn.secret, orphan.spawn.data_dir_id) == ("s1", FIRST, HERE)
        assert (orphan.was_ready, orphan.had_subscriber) == (True, False)
        assert (orphan.spawn.request_key, orphan.spawn.request_digest) == (b"", b"")

        manifest.gone("s1", CloseReason.CLIENT, "")

        assert len(manifest.ended()) == 1

    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_copy_of_the_first_format_is_known_by_its_workers_sockets(tmp_path: Path) -> None:
    _format_1(tmp_path, Path("/var/lib/mxgw/run/x.sock"))
    with closing(manifest_in(tmp_path)) as manifest:
        assert manifest.instance != "0123456789abcdef"
        assert len(manifest) == 0
        assert [ended.info.session_id for ended in manifest.ended()] == ["s1"]


def test_a_close_reason_that_is_no_more_counts_as_the_gateway_s_doing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    _format_1(tmp_path, tmp_path / "run" / "x.sock", state="closing", close_reason="EVICTED")
    with closing(manifest_in(tmp_path)) as manifest:
        (orphan,) = manifest.orphans(10.0)

    assert orphan.closing is CloseReason.GATEWAY_SHUTDOWN


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be used: .*gateway\.data_dir"):
        manifest_in(tmp_path / "missing")


def test_no_repr_shows_a_secret(manifest: Manifest) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    shown = repr((list(manifest.orphans(1.0)), manifest))

    assert all(repr(secret) not in shown and secret.hex() not in shown for secret in (FIRST, SECOND))


_STEP_THEN_DIE = """
import sys
from pathlib import Path
from mxgw_core.api import WorkerSpawn
from mxgw_reattach.manifest import Manifest
from mxgw_worker.platform import kill_this_process
manifest = Manifest.open(Path(sys.argv[1]), "fd00:1001:boot", remembered=1)
manifest.announced(WorkerSpawn("s1", "sim", Path("/x"), bytes(32), "o", "", "", 1.0), 120.0)
kill_this_process()
"""


def test_a_step_outlives_the_process_that_dies_right_behind_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _STEP_THEN_DIE, str(tmp_path)], timeout=60)

    assert done.returncode in (-9, 137)
    assert [orphan.session_id for orphan in seen(tmp_path)] == ["s1"]
