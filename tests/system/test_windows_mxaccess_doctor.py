"""What is for a machine with MXAccess, in Wine, on its double: `mxgw doctor --mxaccess`, as a 64-bit command with its
32-bit survey; the demo; the tests that are marked so; and the benchmark on it.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import wine
from support.mxaccess import sources
from support.windows_gateway import PATIENT_MXGW, WindowsRestarts, needs_windows

pytestmark = [*needs_windows, pytest.mark.timeout(600)]

_SURVEY = ("-I", "-m", "mxgw_worker.backends.mxaccess.survey")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsRestarts]:
    directory = tmp_path_factory.mktemp("doctor")
    with wine.Windows(directory) as system:
        windows = WindowsRestarts(directory, "", system)
        windows.install_mxaccess({"LMXDOUBLE_COMPLETE_MS": "1"})
        yield windows


def test_the_command_collects_the_facts_of_the_double_in_a_file(windows: WindowsRestarts) -> None:
    done = _mxgw(
        windows,
        "doctor",
        "--mxaccess",
        *("--scratch", "Bench_001", "--tag", "AppEngine_001.ScanCount", "--output", "Z:/shared/facts.json"),
    )
    document = json.loads((windows.directory / "facts.json").read_text("utf-8"))
    answers = {answer["step"]: answer for answer in document["answers"]}
    facts = {name: answer["facts"] for name, answer in answers.items()}
    outcomes = {name: answer["outcome"] for name, answer in answers.items() if answer["outcome"] != "answered"}

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Written to Z:" in done.stdout
    assert outcomes == {"elapsed times": "not seen"}  # nobody knows how they come, so the double has none
    assert facts["machine"]["bits"] == 32
    assert facts["registration"]["class"]["library"] == r"Z:\shared\LmxDouble.dll"
    assert facts["registration"]["registered_for_64_bit_programs"] is False
    assert facts["start"]["object"]["interfaces"] == [1, 2, 3, 4, 5]
    assert "13: Write(server, item, value, user) (0x60020006)" in facts["start"]["object"]["methods"]
    assert facts["start"]["object"]["methods_at_other_places"] == []
    assert facts["tags"]["AppEngine_001.ScanCount"]["events"][-1]["types"] == {
        "value": "VT_I4",
        "quality": "VT_I4",
        "time": "VT_DATE",
        "statuses": "VT_BYREF|VT_ARRAY|VT_RECORD",
    }
    assert not [event for event in facts["tags"]["AppEngine_001.ScanCount"]["events"] if "value" in event]
    assert {"Count", "Counts[]"} <= set(facts["attributes"]["names"])
    assert [facts["types"][name]["data_type"] for name in ("Flag", "Count", "Ratio", "Amount", "Text", "Moment")] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
    assert facts["early write"]["before_advise"]["text"]  # the words of COM, in the language of the machine
    assert all(entry["is_reported_as_written"] for tried in facts["writes"].values() for entry in tried)
    assert facts["buffered"]["events"][-1]["types"]["time"] == "VT_ARRAY|VT_DATE"


def test_a_call_that_hangs_is_told_and_ends_the_survey(windows: WindowsRestarts) -> None:
    said, code = _survey(windows, {"tags": ["Hang.Forever"], "call_limit_s": 10.0, "done": ["wrong names", "handles"]})
    (hung,) = [report for report in said if report.get("outcome") == "hung"]

    assert hung["end"] == "tags"
    assert hung["answer"].startswith("MXAccess has not returned from AddItem for ")
    assert code == 3


def test_a_licence_that_is_missing_is_told_in_the_words_of_com(windows: WindowsRestarts) -> None:
    said, code = _survey(windows, {"scratch": "Bench_001"}, LMXDOUBLE_NO_LICENCE="1")
    (start,) = [report for report in said if report.get("end") == "start"]
    left_out = {report["answer"] for report in said if report.get("outcome") == "left out"}

    assert (code, start["outcome"]) == (0, "failed")
    assert "run-time licence is missing" in start["answer"]
    assert start["facts"]["said"][0]["hresult"] == "0x80070005"
    assert start["facts"]["said"][0]["text"]
    assert left_out == {"there is no object to ask", "needs a tag to read: --tag Object.Attribute"}


def test_with_64_bits_only_the_command_says_what_it_needs(windows: WindowsRestarts) -> None:
    python = f"workers.python=Z:{wine.Interpreter.BITS_64.program}"
    done = _mxgw(windows, "doctor", "--mxaccess", "--set", python, "--output", "Z:/shared/none.json")

    assert done.returncode == 1
    assert "needs a 32-bit Python, because MXAccess is a 32-bit component" in done.stderr
    assert not (windows.directory / "none.json").exists()


def test_the_demo_shows_the_attributes_of_an_object_and_a_tag(windows: WindowsRestarts) -> None:
    (windows.directory / "tmp").mkdir()
    python = f"workers.python=Z:{wine.Interpreter.BITS_32.program}"
    shows = ("--object", "Bench_001", "--tag", "AppEngine_001.ScanCount", "--seconds", "3", "--json")
    command = ("-c", PATIENT_MXGW, "demo", "--backend", "mxaccess", "--set", python, *shows)
    done = subprocess.run(
        windows.windows.python(wine.Interpreter.BITS_64, *command, environment=windows.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = json.loads(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    # An initialising event and a value for each of 17 attributes and the tag, which goes on changing.
    assert shown["events"] > 36
    assert (shown["gaps"], shown["duplicates"], shown["out_of_order"]) == (0, 0, 0)


@pytest.mark.soak
def test_the_tests_for_a_galaxy_pass_on_the_double(windows: WindowsRestarts) -> None:
    environment = {
        **windows.environment,
        sources.SCRATCH_VARIABLE: "Bench_001",
        "HYPOTHESIS_STORAGE_DIRECTORY": "Z:/shared/hypothesis",
    }
    pytest_ = ("-m", "pytest", "-p", "no:cacheprovider", "-m", "mxaccess", "-q", "tests/worker/mxaccess")
    done = subprocess.run(
        windows.windows.python(wine.Interpreter.BITS_32, *pytest_, environment=environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)

    assert done.returncode == 0, done.stdout[-5000:]
    assert passed
    assert int(passed[1]) > 45, done.stdout[-5000:]


@pytest.mark.soak
def test_the_benchmark_measures_both_backends_in_turns() -> None:
    sizes = ("--pairs", "2", "--seconds", "1", "--commands", "200", "--writes", "20", "--items", "500")
    done = subprocess.run(
        [sys.executable, str(wine.ROOT / "benchmarks" / "mxaccess.py"), *sizes],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    for figure in ("events_per_s", "commands_per_s", "write_p50_ms", "write_p99_ms", "advised_s", "first_values_s"):
        values = found["figures"][figure]

        assert values["mxaccess"] > 0
        assert values["sim"] > 0
        assert values["ratio"][1] <= values["ratio"][0] <= values["ratio"][2]
    assert found["load_before"] >= 0


def _mxgw(windows: WindowsRestarts, *arguments: str) -> subprocess.CompletedProcess[str]:
    return asyncio.run(windows.mxgw(*arguments))


def _survey(
    windows: WindowsRestarts, request: dict[str, object], **environment: str
) -> tuple[list[dict[str, Any]], int]:
    """Run the survey as the command does, and return its reports and its exit code."""
    # It ends by itself, and its standard input does not end before.
    process = subprocess.Popen(
        windows.windows.python(wine.Interpreter.BITS_32, *_SURVEY, environment={**windows.environment, **environment}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        said = [json.loads(line) for line in process.stdout if line.startswith("{")]
        return said, process.wait()
