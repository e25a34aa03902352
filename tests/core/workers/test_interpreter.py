"""The Python of the workers: which ones the gateway takes, and the sentence with which it refuses each other one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.pythons import make_python

from mxgw_core.api.errors import SettingsError
from mxgw_core.workers.interpreter import PythonFacts, check_python, python_command


def _program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def _refusal(python: Path, timeout_s: float = 60.0) -> str:
    with pytest.raises(SettingsError) as refused:
        check_python(python, timeout_s)
    text = str(refused.value)

    assert text.startswith(f"workers.python {python} ")
    assert "\n" not in text

    return text


def test_an_environment_with_the_workers_part_of_mxgw_and_protobuf_is_enough(tmp_path: Path) -> None:
    """No grpcio is in it, nor anything else that only the gateway needs."""
    python = make_python(tmp_path / "venv")

    assert check_python(python) == PythonFacts(
        ".".join(map(str, sys.version_info[:3])), 64 if sys.maxsize > 2**32 else 32
    )


def test_the_process_that_is_started_is_the_python_and_in_its_environment(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv")
    command, environment = python_command(python, "-c", "import os, sys; print(os.getpid(), sys.prefix)")
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        output, _ = process.communicate()

    assert output.split(None, 1) == [str(process.pid), f"{tmp_path / 'venv'}\n"]


def test_a_relative_path_counts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_python(tmp_path / "venv")
    monkeypatch.chdir(tmp_path / "venv")
    (program,) = (path for path in Path().glob("*/python*") if path.parent.name in ("bin", "Scripts"))

    check_python(program)


def test_a_program_that_does_not_exist_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert "does not exist: name the program of a Python in which mxgw is installed" in _refusal(tmp_path / "python")
    assert "is a directory: name the program in it" in _refusal(tmp_path)


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python.exe").write_text("no program")

    assert "cannot be started: " in _refusal(tmp_path / "python.exe")


def test_a_python_without_mxgw_is_refused_with_the_command_that_installs_it(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", mxgw=None)

    wanted = r'is a Python without mxgw .*: .*-m pip install --no-deps "?mxgw==[^ "]+"? "?protobuf=='

    assert re.search(wanted, _refusal(python))


def test_a_python_without_protobuf_is_refused(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", protobuf=False)

    assert "cannot import mxgw_worker (ModuleNotFoundError: No module named 'google')" in _refusal(python)


def test_another_version_of_mxgw_is_refused(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", mxgw="0.0.9")

    assert "has mxgw 0.0.9, and this gateway is 0.1.0; workers need the same: " in _refusal(python)


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", startup="sys.version_info = (3, 9, 2, 'final', 0)")

    assert "is Python 3.9.2; workers need 3.11 or newer" in _refusal(python)


def test_what_an_imported_module_prints_is_no_answer(tmp_path: Path) -> None:
    python = make_python(tmp_path / "venv", startup="print('hello'); print('mxgw-python:{}'); print()")

    check_python(python)


def test_a_program_that_is_no_python_is_refused_with_what_it_said(tmp_path: Path) -> None:
    program = _program(tmp_path / "python", "echo first; echo 'no such option: -I' >&2; exit 4")

    assert "is no Python that works: it left with exit code 4 (no such option: -I)" in _refusal(program)


def test_a_program_that_only_starts_the_python_is_refused_with_the_name_of_the_other(tmp_path: Path) -> None:
    program = _program(tmp_path / "python", f'{sys.executable} "$@"; exit $?')

    assert f"only starts another program, {sys.executable}: name the program that it starts" in _refusal(program)


def test_a_program_that_never_answers_is_ended_in_time(tmp_path: Path) -> None:
    program = _program(tmp_path / "python", "exec sleep 1000")

    assert "did not answer within 0.1 s" in _refusal(program, 0.1)


def test_a_program_that_closes_its_output_and_stays_is_ended_in_time(tmp_path: Path) -> None:
    program = _program(tmp_path / "python", "exec sleep 1000 >/dev/null 2>&1")

    assert "did not answer within 0.1 s" in _refusal(program, 0.1)


def test_a_program_whose_child_keeps_the_output_open_is_left_in_time(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    held = os.open(fifo, os.O_RDWR)
    program = _program(tmp_path / "python", f"cat {fifo} &", "wait")

    assert "did not answer within 0.5 s" in _refusal(program, 0.5)

    os.close(held)  # ends the child, and with it the thread that reads
    for thread in threading.enumerate():
        if thread.name == "workers-python":
            thread.join(60)


def test_a_program_that_writes_for_ever_is_ended_at_once(tmp_path: Path) -> None:
    program = _program(tmp_path / "python", "exec yes")

    assert "is no Python that works: it left with exit code " in _refusal(program)
