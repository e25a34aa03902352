"""The gateway's private directory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mxgw_core.api.errors import SettingsError
from mxgw_core.data_directory import DataDirectory
from mxgw_worker.platform import holder_of


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with DataDirectory(tmp_path / "a" / "data") as data:
            modes = [_mode(path) for path in (data.path, data.run, data.logs, data.path / "lock")]
    finally:
        os.umask(before)

    assert modes == [0o700, 0o700, 0o700, 0o600]


def test_directories_that_were_open_to_others_are_closed(tmp_path: Path) -> None:
    for name in ("data", "data/run", "data/logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    with DataDirectory(tmp_path / "data") as data:
        assert [_mode(path) for path in (data.path, data.run, data.logs)] == [0o700] * 3


@pytest.mark.parametrize("place", ["a directory of others", "one with directories of the same names"])
def test_a_directory_that_others_use_is_refused_and_stays_as_it_is(tmp_path: Path, place: str) -> None:
    shared = tmp_path / "lib"
    shared.mkdir()
    shared.chmod(0o755)
    if place == "a directory of others":
        (shared / "dpkg").mkdir()
        (shared / "run").mkdir()
    else:  # as in /var
        (shared / "lock").symlink_to("/run/lock")
        (shared / "run").symlink_to("/run")
    with pytest.raises(SettingsError, match=r"not of a gateway, and other users may enter it \(mode 0755\)"):
        DataDirectory(shared).__enter__()

    assert _mode(shared) == 0o755
    assert len(list(shared.iterdir())) == 2


@pytest.mark.parametrize("name", ["", "lost+found", "acl", "logs"])
def test_an_open_directory_with_nothing_of_others_is_closed(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).mkdir(exist_ok=True)
    (tmp_path / "data").chmod(0o755)
    with DataDirectory(tmp_path / "data") as data:
        assert _mode(data.path) == 0o700


def test_a_private_directory_may_have_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "notes").touch()
    with DataDirectory(tmp_path / "data"):
        pass


def test_a_second_gateway_on_the_same_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data"), pytest.raises(SettingsError, match=f"pid {os.getpid()}"):
        DataDirectory(tmp_path / "data").__enter__()
    with DataDirectory(tmp_path / "data"):
        pass


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mxgw_core.data_directory import DataDirectory\n"
        "DataDirectory(Path(sys.argv[1])).__enter__(); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(SettingsError, match=f"pid {process.pid}"):
            DataDirectory(tmp_path / "data").__enter__()
        process.kill()
    with DataDirectory(tmp_path / "data"):
        pass


def _without_its_lock_file(data: Path) -> Path:
    (data / "lock").unlink()
    return data


def _with_another_lock_file(data: Path) -> Path:
    (data / "lock").unlink()
    (data / "lock").write_text("1\n")
    return data


def _without_its_sockets(data: Path) -> Path:
    (data / "lock").unlink()
    shutil.rmtree(data / "run")
    return data


def _moved_into_another(data: Path) -> Path:
    other = data.with_name("other")
    other.mkdir()
    for path in data.iterdir():
        path.rename(other / path.name)
    (other / "lock").unlink()
    return other


@pytest.mark.parametrize(
    "tamper", [_without_its_lock_file, _with_another_lock_file, _without_its_sockets, _moved_into_another]
)
def test_no_second_gateway_gets_in_whatever_was_removed_below_the_directory(
    tmp_path: Path, tamper: Callable[[Path], Path]
) -> None:
    with DataDirectory(tmp_path / "data"):
        there = tamper(tmp_path / "data")
        with pytest.raises(SettingsError, match=r"in use by another gateway \(pid unknown\)"):
            DataDirectory(there).__enter__()

        assert holder_of(there) == 0, "a pid in a file that the gateway does not hold is nobody's"

    assert holder_of(there) is None
    with DataDirectory(there):
        assert holder_of(there) == os.getpid()


def test_a_gateway_of_an_earlier_release_that_holds_the_file_alone_is_respected(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data"):
        pass
    with (tmp_path / "data" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert holder_of(tmp_path / "data") == os.getpid()
        with pytest.raises(SettingsError, match=f"pid {os.getpid()}"):
            DataDirectory(tmp_path / "data").__enter__()
    with DataDirectory(tmp_path / "data"):
        pass


def _lock_no(monkeypatch: pytest.MonkeyPatch, refuses: Callable[[int], bool]) -> None:
    flock = fcntl.flock

    def refusing(fd: int, operation: int) -> None:
        if refuses(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", refusing)


def test_where_no_directory_can_be_locked_the_file_keeps_others_out_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _lock_no(monkeypatch, stat.S_ISDIR)
    with DataDirectory(tmp_path / "data"):
        assert holder_of(tmp_path / "data") == os.getpid()
        with pytest.raises(SettingsError, match=f"pid {os.getpid()}"):
            DataDirectory(tmp_path / "data").__enter__()

    assert [r.levelno for r in caplog.records if "locks no directories" in r.message] == [logging.WARNING]


def test_where_nothing_can_be_locked_the_gateway_refuses_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lock_no(monkeypatch, lambda mode: True)

    with pytest.raises(SettingsError, match="without locks, so that a second gateway could not be kept out"):
        DataDirectory(tmp_path / "data").__enter__()


def test_sockets_of_an_earlier_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        left_over = data.socket_of("old")
        log = data.log_of("old")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left_over))
    log.write_text("what happened")
    with DataDirectory(tmp_path / "d"):
        assert not left_over.exists()
        assert log.exists()


def test_a_gateway_that_is_refused_removes_no_socket_of_the_running_one(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as data:
        live = data.socket_of("live")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(live))
        with pytest.raises(SettingsError):
            DataDirectory(tmp_path / "d").__enter__()

        assert live.exists()


def test_a_path_too_long_for_sockets_is_refused_and_the_longest_works(tmp_path: Path) -> None:
    base = Path("/tmp") / f"mxgw-{os.getpid()}-"
    longest = 107 - len("/run/0123456789abcdef.sock")
    path = Path(str(base) + "x" * (longest - len(str(base))))
    with pytest.raises(SettingsError, match=f"{longest} bytes at most"):
        DataDirectory(Path(f"{path}x")).__enter__()
    with DataDirectory(path) as data, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(data.socket_of("session")))
        data.socket_of("session").unlink()
    for name in ("lock", "run", "logs"):
        target = path / name
        target.rmdir() if target.is_dir() else target.unlink()
    path.rmdir()


@pytest.mark.parametrize("place", ["data/run", "data/logs"])
def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / place
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="not a directory"):
        DataDirectory(tmp_path / "data").__enter__()
    target.unlink()
    target.write_text("")
    with pytest.raises(SettingsError, match="choose a directory"):
        DataDirectory(tmp_path / "data").__enter__()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises(SettingsError, match="is not a directory: choose another"):
        DataDirectory(tmp_path / "data").__enter__()


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(SettingsError, match="choose a directory this user can write"):
        DataDirectory(Path("/proc/mxgw")).__enter__()


def test_a_session_id_never_becomes_a_path(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)

    assert data.socket_of("../../etc/passwd").parent == data.run
    assert data.log_of("../../etc/passwd").parent == data.logs
    assert data.socket_of("a") != data.socket_of("b")


def test_only_the_newest_hundred_worker_logs_are_kept(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data") as data:
        for number in range(103):
            log = data.log_of(f"session {number}")
            log.touch()
            os.utime(log, (1000 + number, 1000 + number))
        (data.logs / "gateway.log").touch()
        data.prune_logs()

        assert [data.log_of(f"session {n}").exists() for n in (0, 1, 2, 3, 102)] == [False, False, False, True, True]
        assert (data.logs / "gateway.log").exists()


def _id_of(path: Path) -> str:
    with DataDirectory(path) as data:
        return data.id


def test_a_directory_is_the_same_through_a_link_and_after_a_move_and_a_copy_is_another(tmp_path: Path) -> None:
    first = _id_of(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")

    assert _id_of(tmp_path / "link") == first != _id_of(tmp_path / "copy")

    (tmp_path / "data").rename(tmp_path / "moved")

    assert _id_of(tmp_path / "moved") == first


def test_through_a_link_all_paths_are_those_of_the_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with DataDirectory(tmp_path / "link") as data:
        assert data.socket_of("s").parent == tmp_path / "data" / "run"
        with pytest.raises(SettingsError, match="in use by another gateway"):
            DataDirectory(tmp_path / "data").__enter__()


def test_no_directory_that_is_made_while_the_gateway_runs_gets_its_id(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data") as data:
        for number in range(20):
            shutil.rmtree(tmp_path / "data")
            for path in (tmp_path / "data", tmp_path / "data" / "run"):
                path.mkdir()
                status = path.stat()

                assert f"{status.st_dev:x}:{status.st_ino:x}:" != data.id[: data.id.rindex(":") + 1], number


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a link of another user")
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    os.lchown(tmp_path / "link", 65534, 65534)

    with pytest.raises(SettingsError, match="link of another user"):
        DataDirectory(tmp_path / "link").__enter__()
