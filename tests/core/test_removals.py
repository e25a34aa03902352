"""A file that cannot be removed is tried again, is reported once, and ends nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mxgw_core.data_directory import DataDirectory, end_sessions_marker
from mxgw_core.removals import Removals


def _stuck(path: Path) -> Path:
    """Put a directory in the place of a file: nobody can unlink it, not even root."""
    path.mkdir()
    return path


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_file_that_can_be_removed_is_gone_and_one_that_does_not_exist_is_no_failure(tmp_path: Path) -> None:
    removals = Removals()
    (tmp_path / "file").touch()
    removals.remove(tmp_path / "file")
    removals.remove(tmp_path / "nothing")

    assert not list(tmp_path.iterdir())
    assert removals.waiting == ()


def test_only_the_first_failure_is_a_warning_and_the_next_comes_after_all_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    removals = Removals()
    first, second, third = (_stuck(tmp_path / name) for name in ("first", "second", "third"))
    removals.remove(first)
    removals.remove(second)

    assert removals.waiting == (first, second)
    assert len(_warnings(caplog)) == 1
    assert str(first) in _warnings(caplog)[0]

    for path in (first, second):
        path.rmdir()
        path.touch()
    removals.sweep()

    assert not first.exists()
    assert not second.exists()
    assert removals.waiting == ()

    removals.remove(third)

    assert len(_warnings(caplog)) == 2


def test_a_file_that_another_program_has_open_is_removed_at_once_or_when_it_is_closed(tmp_path: Path) -> None:
    removals = Removals()
    with (tmp_path / "file").open("w"):
        removals.remove(tmp_path / "file")  # Windows refuses this
    removals.sweep()

    assert not list(tmp_path.iterdir())
    assert removals.waiting == ()


def test_every_removal_tries_some_of_the_others_again(tmp_path: Path) -> None:
    removals = Removals()
    stuck = _stuck(tmp_path / "stuck")
    removals.remove(stuck)
    stuck.rmdir()
    stuck.touch()
    removals.remove(tmp_path / "another")

    assert not stuck.exists()


def test_only_so_many_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_core.removals._REMEMBERED", 2)
    removals = Removals()
    for name in "abc":
        removals.remove(_stuck(tmp_path / name))

    assert len(removals.waiting) == 2


def test_nothing_that_an_earlier_gateway_left_behind_can_prevent_a_start_or_an_end(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as data:
        left = [data.run / "old.sock", data.log_of_spare("s"), *(data.log_of(f"{number}") for number in range(101))]
    for path in (*left, end_sessions_marker(tmp_path)):
        _stuck(path)
    with DataDirectory(tmp_path) as data:
        assert not data.takes_end_of_sessions(), "the request was for the gateway before"

        data.prune_logs()
    assert all(path.is_dir() for path in left)


def test_a_request_to_end_the_sessions_that_cannot_be_removed_is_obeyed_once(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as data:
        _stuck(end_sessions_marker(tmp_path))

        assert data.takes_end_of_sessions()
    with DataDirectory(tmp_path) as data:
        assert not data.takes_end_of_sessions()

        end_sessions_marker(tmp_path).touch()

        assert data.takes_end_of_sessions()
