"""`mxgw doctor --mxaccess`: what it makes of a process that answers, refuses, crashes, hangs or says nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mxgw_cli.doctor import mxaccess
from mxgw_cli.main import root

# What each process begins with: it knows its request, and tells of steps.
_PRELUDE = """
import json, os, sys, time
request = json.loads(sys.stdin.readline())
def say(**report):
    print(json.dumps(report), flush=True)
def begin(name, limit_s=60.0):
    say(begin=name, question=f"What of {name}?", see="docs/reference/mxaccess.md#methods", limit_s=limit_s)
def end(name, outcome="answered", **facts):
    say(end=name, outcome=outcome, answer=f"so it is with {name}", seconds=0.5, facts=facts)
say(plan=["one", "two", "three"])
"""


class Doctor:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch

    def __call__(self, program: str, *arguments: str) -> Result:
        """Run the command with this program in place of the one that asks MXAccess."""
        command = (sys.executable, "-c", _PRELUDE + program), dict[str, str]()
        self._monkeypatch.setattr(mxaccess, "python_command", lambda *_: command)
        self._monkeypatch.chdir(self.directory)
        return CliRunner().invoke(root, ["doctor", "--mxaccess", *arguments])

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.json"))

    @property
    def document(self) -> dict[str, Any]:
        (file,) = self.files
        document = json.loads(file.read_text("utf-8"))
        assert isinstance(document, dict)
        return document

    def outcomes(self) -> dict[str, str]:
        return {answer["step"]: answer["outcome"] for answer in self.document["answers"]}


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(tmp_path, monkeypatch)


_ALL = """
for name in ("one", "two", "three"):
    if name not in request["done"]:
        begin(name)
        end(name, given=[request["scratch"], request["tags"]], text="grüß Ж" * 20_000)
"""


def test_the_answers_are_shown_and_written_to_a_private_file(doctor: Doctor) -> None:
    done = doctor(_ALL, "--scratch", "Scratch_001", "--tag", "Tank_001.Level", "--tag", "Tank_002.Level")
    (file,) = doctor.files
    answer = doctor.document["answers"][1]

    assert done.exit_code == 0, done.output
    assert "What of two?  so it is with two" in done.output
    assert f"Written to {file.name}: 3 ok." in done.output
    assert (doctor.document["scratch"], doctor.document["tags"]) == (
        "Scratch_001",
        ["Tank_001.Level", "Tank_002.Level"],
    )
    assert doctor.outcomes() == dict.fromkeys(("one", "two", "three"), "answered")
    assert answer["facts"]["given"] == ["Scratch_001", ["Tank_001.Level", "Tank_002.Level"]]
    assert len(answer["facts"]["text"]) == 120_000  # longer than the usual limit of a line
    assert (answer["see"], answer["seconds"]) == ("docs/reference/mxaccess.md#methods", 0.5)
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o077 == 0


def test_the_answers_as_json_name_the_file(doctor: Doctor) -> None:
    done = doctor(_ALL, "--json", "--output", "facts.json")
    document = json.loads(done.output)

    assert document["file"] == "facts.json"
    assert [check["outcome"] for check in document["checks"]] == ["ok", "ok", "ok"]
    assert [file.name for file in doctor.files] == ["facts.json"]


def test_a_file_that_exists_is_left_alone(doctor: Doctor) -> None:
    (doctor.directory / "facts.json").write_text("{}")
    done = doctor(_ALL, "--output", "facts.json")

    assert (done.exit_code, doctor.document) == (1, {})
    assert "facts.json exists: name another file with --output" in done.output


def test_a_machine_that_cannot_have_mxaccess_is_told_and_no_file_is_left(doctor: Doctor) -> None:
    done = doctor("say(refused=\"backend 'mxaccess' needs Windows\")")

    assert (done.exit_code, doctor.files) == (1, [])
    assert done.output == "Error: backend 'mxaccess' needs Windows\n"


def test_a_crash_costs_one_question_and_the_rest_is_asked_by_another_process(doctor: Doctor) -> None:
    done = doctor(
        """
if not request["done"]:
    begin("one")
    end("one")
    begin("two")
    sys.stderr.write("no more memory")
    sys.stderr.flush()
    os._exit(5)
assert request["done"] == ["one", "two"]
begin("three")
end("three")
"""
    )

    assert done.exit_code == 1
    assert doctor.outcomes() == {"one": "answered", "two": "failed", "three": "answered"}
    assert "the process ended with exit code 5 in it: no more memory" in done.output


def test_a_call_that_hangs_costs_one_question_and_the_rest_is_asked_by_another_process(doctor: Doctor) -> None:
    done = doctor(
        """
if not request["done"]:
    begin("one")
    end("one", "hung", call="AddItem")
    os._exit(3)
for name in ("two", "three"):
    begin(name)
    end(name)
"""
    )

    assert done.exit_code == 1
    assert doctor.outcomes() == {"one": "hung", "two": "answered", "three": "answered"}
    assert "Look at the platform on this machine" in done.output


def test_a_process_that_says_nothing_any_more_is_ended(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxaccess, "_GRACE_S", 0.2)
    monkeypatch.setattr(mxaccess, "_LEAVE_S", 0.2)
    done = doctor(
        """
if not request["done"]:
    begin("one", limit_s=0.1)
    time.sleep(3600)
for name in ("two", "three"):
    begin(name)
    end(name)
"""
    )

    assert done.exit_code == 1
    assert doctor.outcomes() == {"one": "hung", "two": "answered", "three": "answered"}


def test_not_more_processes_are_started_than_five(doctor: Doctor) -> None:
    done = doctor(
        """
if not request["done"]:
    begin("one")
    end("one")
with open("starts", "a") as file:
    file.write("x")
"""
    )

    assert (doctor.directory / "starts").read_text() == "xxxxx"
    assert "5 processes have not got through" in done.output


def test_a_process_that_cannot_begin_is_told_with_what_it_wrote(doctor: Doctor) -> None:
    done = doctor('sys.exit("No module named nothing")')

    assert (done.exit_code, doctor.files) == (1, [])
    assert "ended with exit code 1: No module named nothing" in done.output


def test_the_process_learns_that_it_is_no_longer_wanted(doctor: Doctor) -> None:
    # It ends in order only when its standard input does.
    done = doctor(_ALL + 'sys.stdin.read()\nopen("left", "w").close()')

    assert done.exit_code == 0
    assert (doctor.directory / "left").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--scratch", "Scratch_001.Count", "--mxaccess"],
            "--scratch Scratch_001.Count is not the tag name of an object",
        ),
        (["--scratch", "Scratch_001"], "--scratch, --tag and --output go with --mxaccess"),
        (["--tag", "Tank_001.Level"], "--scratch, --tag and --output go with --mxaccess"),
        (["--mxaccess", "--no-backends"], "--no-backends does not go with --mxaccess"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(root, ["doctor", *arguments])

    assert (done.exit_code, sentence in done.output) == (2, True), done.output


@pytest.mark.skipif(sys.platform == "win32", reason="it is about other systems")
def test_on_another_system_than_windows_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(root, ["doctor", "--mxaccess"])

    assert done.exit_code == 1
    assert "needs Windows, because MXAccess is a Windows component" in done.output
    assert list(tmp_path.iterdir()) == []
