"""Damaged and forged archives: each is refused with a sentence, and the directory stays as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mxgw_cli.doctor.directories import check_data_directory
from mxgw_cli.doctor.report import Outcome
from mxgw_cli.options import SettingsChoice
from mxgw_cli.restore.run import restore_backup
from mxgw_cli.shell import CliFailure
from mxgw_core.api.errors import SettingsError
from mxgw_core.data_directory import DataDirectory

Restore = Callable[..., str]
CONTENTS = "mxgw-backup.json"


def member(name: str, content: bytes = b"x", **changes: Any) -> dict[str, Any]:
    said = {"name": name, "kind": "file", "plugin": "p", "was": "/old/x"}
    return {**said, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **changes}


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


def archive(
    path: Path,
    members: Sequence[dict[str, Any]],
    entries: Sequence[tuple[tarfile.TarInfo, bytes]],
    **changes: Any,
) -> Path:
    said = {"format": 1, "mxgw": "0.1.0", "created_at": "now", "data_dir": "/old", "left_out": [], "members": members}
    text = json.dumps({**said, **changes}).encode()
    with tarfile.open(path, "w") as tar:
        for info, content in [(header(CONTENTS, len(text)), text), *entries]:
            tar.addfile(info, io.BytesIO(content))
    return path


def of_one(path: Path, name: str, content: bytes = b"x") -> Path:
    return archive(path, [member(name, content)], [(header(name, len(content)), content)])


@pytest.fixture
def restore(tmp_path: Path) -> Restore:
    """Try to restore; return how it was refused, and make sure that nothing was written anywhere."""

    def tried(file: Path) -> str:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(CliFailure) as caught:
            restore_backup(SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")}), file, as_json=True)

        assert {path for path in tmp_path.rglob("*") if path.name not in ("new", "run", "logs", "lock")} <= before
        assert not (tmp_path / "new").exists(), "checked before anything is made"

        return caught.value.message

    return tried


def test_what_is_whole_is_restored(tmp_path: Path) -> None:
    file = of_one(tmp_path / "a.tar", "data/p/x", b"content")

    restore_backup(SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")}), file, as_json=True)

    assert (tmp_path / "new/p/x").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/x", "leads out"),
        ("data/../../x", "leads out"),
        ("data/./x", "leads out"),
        ("data//x", "leads out"),
        ("x", "leads out"),
        ("other/x", "neither below data/ nor below settings/"),
        ("data/lock", "the gateway makes"),
        ("data/run/x.sock", "the gateway makes"),
        ("data/restored-settings/x", "the gateway makes"),
        ("data/restore-unfinished/x", "the gateway makes"),
        ("data/c:\\x", "no plain name"),
        ("data/\x1b[2J", "no plain name"),
        ("data/" + "x" * 500, "no plain name"),
    ],
)
def test_a_name_that_is_no_place_for_a_file(tmp_path: Path, restore: Restore, name: str, why: str) -> None:
    assert why in restore(of_one(tmp_path / "a.tar", name))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file(tmp_path: Path, restore: Restore, kind: bytes) -> None:
    link = header("data/x", kind=kind, target="/etc/passwd")

    assert "no plain file" in restore(archive(tmp_path / "a.tar", [member("data/x", b"")], [(link, b"")]))


def test_a_name_that_differs_from_the_list_of_contents(tmp_path: Path, restore: Restore) -> None:
    outside = [(header("../../x", 1), b"x")]

    assert "which its list of contents does not" in restore(archive(tmp_path / "a", [member("data/x")], outside))
    assert "which its list of contents does not" in restore(archive(tmp_path / "b", [], outside))


def test_a_wrong_checksum(tmp_path: Path, restore: Restore) -> None:
    file = archive(tmp_path / "a.tar", [member("data/x", b"good")], [(header("data/x", 4), b"evil")])

    assert "its checksum is not" in restore(file)


def test_a_wrong_size(tmp_path: Path, restore: Restore) -> None:
    file = archive(tmp_path / "a.tar", [member("data/x", size_bytes=7)], [(header("data/x", 1), b"x")])

    assert "has 1 bytes, and its list of contents says 7" in restore(file)


def test_more_than_the_disk_holds(tmp_path: Path, restore: Restore) -> None:
    file = archive(tmp_path / "a.tar", [member("data/x", size_bytes=2**60)], [])

    assert "the disk of" in restore(file)


def test_the_same_name_twice_and_a_file_below_a_file(tmp_path: Path, restore: Restore) -> None:
    assert "twice" in restore(archive(tmp_path / "a", [member("data/x"), member("data/x")], []))
    assert "below the file 'data/x'" in restore(archive(tmp_path / "b", [member("data/x"), member("data/x/y")], []))


def test_a_newer_release(tmp_path: Path, restore: Restore) -> None:
    file = archive(tmp_path / "a.tar", [], [], format=2, something_new={})

    assert "a newer mxgw made it (format 2, this one knows 1)" in restore(file)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.75])
def test_one_that_was_cut_off(tmp_path: Path, restore: Restore, kept: float) -> None:
    content = b"x" * 100_000
    file = of_one(tmp_path / "a.tar", "data/x", content)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])

    assert "cut off" in restore(file) or "no whole tar file" in restore(file)


def test_members_that_never_come(tmp_path: Path, restore: Restore) -> None:
    assert "'data/x' is missing" in restore(archive(tmp_path / "a.tar", [member("data/x")], []))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 4096])
def test_no_archive_at_all(tmp_path: Path, restore: Restore, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)

    assert "cannot be restored" in restore(tmp_path / "a.tar")


def test_another_tar_file(tmp_path: Path, restore: Restore) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(header("data/x"), io.BytesIO())

    assert "it is no backup that mxgw made" in restore(tmp_path / "a.tar")


def test_a_header_that_would_fill_the_memory(tmp_path: Path, restore: Restore) -> None:
    # tarfile reads an extended header whole. In a sparse file, 8 GiB of it take almost no room on the attacker's disk.
    extended = header("data/x", 8 * 2**30, tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    good = of_one(tmp_path / "good", "data/x").read_bytes()
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(extended)
        file.truncate(9 * 2**30)
    with (tmp_path / "b.tar").open("wb") as file:
        file.write(good[:2048] + extended)
        file.truncate(9 * 2**30)

    assert "it has a header that no backup has" in restore(tmp_path / "a.tar")
    assert "it has a header that no backup has" in restore(tmp_path / "b.tar")


def test_a_list_of_contents_that_is_none(tmp_path: Path, restore: Restore) -> None:
    assert "members.0.sha256" in restore(archive(tmp_path / "a", [member("data/x", sha256="../x")], []))
    assert "members.0.size_bytes" in restore(archive(tmp_path / "b", [member("data/x", size_bytes=-1)], []))
    assert "format" in restore(archive(tmp_path / "c", [], [], format="x"))


def test_a_directory_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("precious")
    file = of_one(tmp_path / "a.tar", "data/x")

    with pytest.raises(CliFailure, match="is not empty"):
        restore_backup(SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")}), file, as_json=True)

    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_a_failure_while_it_writes_leaves_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mxgw_cli.archive import Archive

    file = archive(
        tmp_path / "a.tar",
        [member("data/p/x"), member("data/y", b"good")],
        [(header("data/p/x", 1), b"x"), (header("data/y", 4), b"evil")],
    )
    monkeypatch.setattr(Archive, "check", lambda *_: None)  # as if the file was changed after it was checked
    choice = SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")})

    with pytest.raises(CliFailure, match="checksum"):
        restore_backup(choice, file, as_json=True)

    assert list((tmp_path / "new").iterdir()) == []


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path, restore: Restore) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert "it is not a regular file" in restore(tmp_path / "pipe")


def test_what_a_killed_restore_left_is_replaced_by_the_next(tmp_path: Path) -> None:
    file = of_one(tmp_path / "a.tar", "data/p/x", b"content")
    (tmp_path / "new" / "restore-unfinished" / "p").mkdir(parents=True)
    (tmp_path / "new" / "restore-unfinished" / "p" / "x").write_bytes(b"con")

    restore_backup(SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")}), file, as_json=True)

    assert (tmp_path / "new/p/x").read_bytes() == b"content"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["lock", "logs", "p", "run"]


def test_what_stands_beside_a_cut_restore_is_named_and_kept(tmp_path: Path) -> None:
    file = of_one(tmp_path / "a.tar", "data/p/x", b"content")
    (tmp_path / "new" / "restore-unfinished").mkdir(parents=True)
    (tmp_path / "new" / "p").mkdir()

    with pytest.raises(CliFailure, match="was cut off at its end"):
        restore_backup(SettingsChoice(None, {"gateway.data_dir": str(tmp_path / "new")}), file, as_json=True)

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["p", "restore-unfinished"]


def test_no_gateway_starts_where_a_restore_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "restore-unfinished").mkdir()

    with pytest.raises(SettingsError, match="was cut off or still runs"), DataDirectory(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["restore-unfinished"]
    assert check_data_directory(tmp_path)[0].outcome is Outcome.FAILED
