"""Every example runs as a reader would run it, against a real gateway in another process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_read_and_write(gateway_process: str) -> None:
    out = run("read_and_write.py", gateway_process)

    assert "Tank_001.Level = " in out
    assert "setpoint is now 40.0" in out
    assert "bulk write: {'Bench_001.Count': True, 'Bench_001.Text': True}" in out
    assert "refused as expected: write" in out


def test_follow_events(gateway_process: str) -> None:
    out = run("follow_events.py", gateway_process, "12")

    assert len(out.splitlines()) == 12
    assert "Tank_001.Temperature" in out


def test_bulk_subscribe(gateway_process: str) -> None:
    out = run("bulk_subscribe.py", gateway_process, "Tank_001", "1")
    done, wanted = (int(word) for word in out.split(" references")[0].split(" of "))

    assert done == wanted > 10
    assert "events of" in out


def test_record_to_sqlite_stores_each_change_once_over_two_runs(gateway_process: str, tmp_path: Path) -> None:
    path = str(tmp_path / "changes.sqlite")
    first = run("record_to_sqlite.py", gateway_process, path, "10")
    second = run("record_to_sqlite.py", gateway_process, path, "10")
    with sqlite3.connect(path) as database:
        sequences = [row[0] for row in database.execute("SELECT sequence FROM changes ORDER BY sequence")]
        (lost,) = database.execute("SELECT coalesce(sum(last_lost - first_lost + 1), 0) FROM gaps").fetchone()
        names = {row[0] for row in database.execute("SELECT reference FROM changes")}
    database.close()

    assert "opened session" in first
    assert len(sequences) >= 10
    assert len(sequences) == len(set(sequences))
    assert "Tank_001.Level" in names
    assert "attached to session" in second
    assert sequences[-1] - sequences[0] + 1 == len(sequences) + lost


def test_notebook_sync(gateway_process: str) -> None:
    out = run("notebook_sync.py", gateway_process)

    assert "setpoint 55.0" in out
    assert "No_Such.Thing failed" in out
    assert out.splitlines()[-1].startswith("levels [")


def test_every_example_script_is_run_here() -> None:
    here = Path(__file__).read_text()

    assert [script.name for script in EXAMPLES.glob("*.py") if f'run("{script.name}"' not in here] == []


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.name)
def test_an_example_says_how_to_run_it(script: Path) -> None:
    assert f"python examples/{script.name}" in script.read_text()
