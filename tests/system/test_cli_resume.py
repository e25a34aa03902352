"""`mxgw stream --resume-file`: killed, interrupted or done, the next run goes on behind the last line written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support.command_line import run_mxgw

from mxgw_client import read_position_file

MXGW = [sys.executable, "-m", "mxgw_cli"]
TAGS = [f"Load.Item{number:05d}" for number in range(1, 11)]
SETTINGS = """
[plugins]
enabled = ["replay"]
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
rate = 500
items = 10
"""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A gateway with replay under load."""
    with tempfile.TemporaryDirectory(prefix="mxgw-cli-", dir="/tmp") as name:
        Path(name, "settings.toml").write_text(SETTINGS)
        arguments = ["serve", "--json", "--listen", f"unix:{name}/g.sock", "--set", f"gateway.data_dir={name}/data"]
        with subprocess.Popen(
            [*MXGW, *arguments], cwd=name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                yield json.loads(process.stdout.readline())["addresses"][0]
            finally:
                process.terminate()


def environment(target: str) -> dict[str, str]:
    return {**os.environ, "MXGWCLI_GATEWAY": target, "COLUMNS": "200"}


def mxgw(target: str, *arguments: str) -> Result:
    return run_mxgw(*arguments, MXGWCLI_GATEWAY=target, COLUMNS="200")


def events_of(text: str) -> list[int]:
    documents: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    assert not [document for document in documents if document["type"] == "gap"]

    return [document["sequence"] for document in documents if document["type"] == "event"]


def test_one_run_goes_on_where_the_one_before_stopped_inside_a_batch_too(target: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    runs = [mxgw(target, "stream", *TAGS, "--json", "--count", "137", "--resume-file", str(place)) for _ in range(3)]
    sequences = [events_of(run.stdout) for run in runs]
    stored = read_position_file(place)

    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert sequences[0] + sequences[1] + sequences[2] == list(range(1, 3 * 137 + 1))
    assert stored is not None
    assert stored.position.sequence == 3 * 137
    assert f"mxgw sessions close {stored.session_id[:8]}" in runs[0].stderr

    # The tags of the first run are not subscribed again, so each value came once.
    detail = json.loads(mxgw(target, "sessions", "show", stored.session_id, "--json").stdout)

    assert len(detail["items"]) == len(TAGS)

    wrong = mxgw(target, "stream", "--session", "other", "--resume-file", str(place))

    assert wrong.exit_code == 1
    assert f"goes on in session {stored.session_id}, not in other" in wrong.stderr

    assert mxgw(target, "sessions", "close", "--yes", stored.session_id).exit_code == 0

    over = mxgw(target, "stream", "--resume-file", str(place))

    assert over.exit_code == 1
    assert "is over" in over.stderr
    assert f"Remove {place}" in over.stderr


def test_a_run_that_is_killed_repeats_at_most_what_it_had_not_noted_and_misses_nothing(
    target: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    command = [*MXGW, "stream", *TAGS, "--json", "--resume-file", str(place)]
    seen: list[int] = []
    with subprocess.Popen(command, env=environment(target), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            document = json.loads(line)
            if document["type"] == "event":
                seen.append(document["sequence"])
            if len(seen) > 400:
                break
        process.kill()
        seen += events_of(process.stdout.read())
    stored = read_position_file(place)
    again = mxgw(target, "stream", "--json", "--count", "100", "--resume-file", str(place))
    sequences = events_of(again.stdout)

    assert stored is not None
    assert 0 < stored.position.sequence <= seen[-1]
    assert seen == list(range(1, len(seen) + 1))
    assert sequences == list(range(stored.position.sequence + 1, stored.position.sequence + 101))

    mxgw(target, "sessions", "close", "--yes", stored.session_id)


def test_what_is_no_position_file_is_left_alone(target: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes")
    done = mxgw(target, "stream", *TAGS, "--resume-file", str(notes))

    assert done.exit_code == 1
    assert "is no position file" in done.stderr
    assert notes.read_text() == "my notes"


def test_a_run_that_comes_to_nothing_leaves_no_session(target: str, tmp_path: Path) -> None:
    before = json.loads(mxgw(target, "sessions", "--json").stdout)
    missing = mxgw(target, "stream", *TAGS, "--resume-file", str(tmp_path / "no" / "place"))
    nothing = mxgw(target, "stream", "--resume-file", str(tmp_path / "place"))

    assert missing.exit_code == 1
    assert "no file can be written" in missing.stderr
    assert nothing.exit_code == 2
    assert "Name at least one TAG" in nothing.stderr
    assert json.loads(mxgw(target, "sessions", "--json").stdout) == before
