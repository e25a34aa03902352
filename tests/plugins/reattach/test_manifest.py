"""The manifest: each step is on the disk when its call returns, secrets are replaced, a bad file is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mxgw_core.api import CloseReason, Orphan, WorkerIdentity, WorkerProof, WorkerSpawn
from mxgw_core.api.errors import SettingsError
from mxgw_reattach.manifest import FILE, SCHEMA_VERSION, Manifest

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
    request_key=bytes([7]) * 32,
    request_digest=bytes([8]) * 32,
)
STARTED = WorkerIdentity("s1", 4711, 123_456, b"", 0, "boot")
PROVED = replace(STARTED, epoch=bytes(range(16)), protocol_version=1)


# What the first format was made with.
FORMAT_1 = """
CREATE TABLE gateway (instance TEXT NOT NULL);
CREATE TABLE worker (
    session_id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'closing')),
    backend TEXT NOT NULL, endpoint TEXT NOT NULL, owner TEXT NOT NULL, owner_kind TEXT NOT NULL,
    owner_name TEXT NOT NULL, tag TEXT NOT NULL, client_name TEXT NOT NULL, lease_s REAL NOT NULL,
    opened_at REAL NOT NULL, lifetime_s REAL NOT NULL, secret BLOB NOT NULL, former_secret BLOB,
    pid INTEGER NOT NULL DEFAULT 0, start_ticks INTEGER NOT NULL DEFAULT 0, boot_id TEXT NOT NULL DEFAULT '',
    epoch BLOB NOT NULL DEFAULT x'', protocol_version INTEGER NOT NULL DEFAULT 0,
    close_reason TEXT NOT NULL DEFAULT '', updated_at REAL NOT NULL
) STRICT;
INSERT INTO gateway VALUES ('feedfeedfeedfeed');
INSERT INTO worker VALUES ('s1', 'ready', 'line4', '/run/a.sock', 'key-7', 'key', 'Historian of the north', 'north',
    'historian', 900.0, 1700000000.25, 120.0, x'02', NULL, 4711, 123456, 'boot', x'00', 1, '', 1700000001.0);
PRAGMA user_version = 1;
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with closing(Manifest.open(tmp_path)) as opened:
        yield opened


def seen(directory: Path) -> list[Orphan]:
    """Return what a process would find that opens the manifest now, although it is open here."""
    with closing(Manifest.open(directory)) as other:
        return list(other.orphans(10.0))


def test_before_the_spawn_everything_is_known_but_the_process(manifest: Manifest, tmp_path: Path) -> None:
    manifest.announced(SPAWN, 120.0)
    (orphan,) = seen(tmp_path)

    assert orphan.spawn == SPAWN
    assert orphan.worker == WorkerIdentity("s1", 0, 0, b"", 0, "")
    assert (orphan.was_ready, orphan.closing, orphan.former_secret) == (False, None, None)
    assert (orphan.lifetime_s, orphan.adopt_within_s) == (120.0, 10.0)


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
    with closing(Manifest.open(tmp_path)) as manifest:
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
    manifest.gone("s1")
    manifest.gone("s1")  # an end that is told twice is no error

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
        with closing(Manifest.open(directory)) as manifest:
            names.append(manifest.instance)

    assert names[0] == names[1] != names[2]


def test_all_its_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Manifest.open(tmp_path)) as manifest:
            manifest.announced(SPAWN, 120.0)
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert set(modes) == {FILE, f"{FILE}-wal", f"{FILE}-shm"}
    assert set(modes.values()) == {0o600}


def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    Manifest.open(tmp_path).close()
    (tmp_path / FILE).chmod(0o644)
    Manifest.open(tmp_path).close()

    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SettingsError, match="cannot be used"):
        Manifest.open(tmp_path)


def test_a_file_of_a_later_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(Manifest.open(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

    with pytest.raises(SettingsError, match="written by a later release"):
        Manifest.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT count(*) FROM worker").fetchone() == (1,)


def test_a_file_that_is_no_manifest_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database, and long enough to be sure of that" * 100)
    with closing(Manifest.open(tmp_path)) as manifest:
        manifest.announced(SPAWN, 120.0)

        assert len(manifest) == 1

    assert (tmp_path / f"{FILE}.unreadable").exists()
    assert "cannot be taken back" in caplog.text


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be used: .*gateway\.data_dir"):
        Manifest.open(tmp_path / "missing")


def test_no_repr_shows_a_secret(manifest: Manifest) -> None:
    manifest.announced(SPAWN, 120.0)
    manifest.proved(WorkerProof(PROVED, SECOND, FIRST))
    shown = repr((list(manifest.orphans(1.0)), manifest))

    assert all(repr(secret) not in shown and secret.hex() not in shown for secret in (FIRST, SECOND))


_STEP_THEN_DIE = """
import os, signal, sys
from pathlib import Path
from mxgw_core.api import WorkerSpawn
from mxgw_reattach.manifest import Manifest
manifest = Manifest.open(Path(sys.argv[1]))
manifest.announced(WorkerSpawn("s1", "sim", Path("/x"), bytes(32), "o", "", "", 1.0), 120.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_step_outlives_the_process_that_dies_right_behind_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _STEP_THEN_DIE, str(tmp_path)], timeout=30)

    assert done.returncode == -9
    assert [orphan.session_id for orphan in seen(tmp_path)] == ["s1"]


def test_a_file_of_the_first_format_opens_with_its_workers(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.executescript(FORMAT_1)
    with closing(Manifest.open(tmp_path)) as manifest:
        (orphan,) = manifest.orphans(10.0)
        manifest.announced(replace(SPAWN, session_id="s2"), 120.0)

    assert manifest.instance == "feedfeedfeedfeed"
    assert orphan.was_ready
    assert (orphan.spawn.session_id, orphan.spawn.owner, orphan.spawn.secret) == ("s1", "key-7", bytes([2]))
    assert (orphan.spawn.request_key, orphan.spawn.request_digest) == (b"", b"")
    assert seen(tmp_path)[-1].spawn.request_key == SPAWN.request_key
