"""Every way for a command to end has its exit code, and shows no traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import click
import pytest
from click.testing import CliRunner

from mxgw_cli.main import RootGroup, root
from mxgw_cli.serve import run as serve_module
from mxgw_cli.shell import CliFailure, ExitCode, SilentFailure, run
from mxgw_core.api.errors import PluginError, SettingsError
from mxgw_worker.platform import HeldProcess, quoted


def outcome_of(body: object) -> tuple[int, str]:
    group = RootGroup("mxgw")

    @group.command()
    def command() -> None:
        assert callable(body)
        body()

    group.get_command = lambda ctx, name: command  # type: ignore[method-assign]  # any name is the command of the test
    result = CliRunner().invoke(group, ["command"])
    return result.exit_code, result.stderr


def raising(error: BaseException) -> object:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliFailure("broken", hint="mend it"), 1),
        (CliFailure("away", exit_code=ExitCode.UNREACHABLE), 3),
        (click.UsageError("no"), 2),
        (SilentFailure(ExitCode.TERMINATED), 143),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_ending_has_its_exit_code(error: BaseException, code: int) -> None:
    assert outcome_of(raising(error))[0] == code


def test_a_failure_is_a_sentence_and_a_hint_on_stderr() -> None:
    _, stderr = outcome_of(raising(CliFailure("broken", hint="mend it\nor replace it")))

    assert stderr == "Error: broken\nHint:  mend it\n       or replace it\n"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (PluginError("plugin 'audit' is required and could not start: KeyError"), ""),
        (ExceptionGroup("tasks", [PluginError("plugin 'audit' has failed")]), ""),
        (SettingsError("gateway.listen: no address"), "`mxgw doctor` looks for the cause."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_gateway_that_cannot_start_leads_to_the_doctor_only_if_the_doctor_can_find_the_cause(
    error: Exception, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(serve_module, "loaded", MagicMock())
    monkeypatch.setattr(serve_module, "log_to_stderr", MagicMock())
    monkeypatch.setattr(serve_module, "end_in_time", MagicMock())
    monkeypatch.setattr(serve_module, "serve_until_stopped", fails)
    with pytest.raises(CliFailure) as failure:
        serve_module.serve_gateway(MagicMock(), [], use_uvloop=False, as_json=False)

    assert failure.value.hint == hint


def test_a_failure_inside_a_task_group_is_told_as_itself() -> None:
    async def fail() -> None:
        raise CliFailure("broken")

    async def body() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    with pytest.raises(CliFailure, match="broken"):
        run(body)


PROGRAM = """
import asyncio, sys
from mxgw_cli.shell import run
from mxgw_cli.main import RootGroup
from mxgw_cli.main import root
group = RootGroup("mxgw")
@group.command()
def wait():
    async def body():
        try:
            print("waiting", flush=True)
            await asyncio.Event().wait()
        finally:
            print("cleaned up", flush=True)
    run(body)
group.get_command = lambda ctx, name: wait
group.main(["wait"])
"""


def test_ctrl_c_lets_a_waiting_command_clean_up() -> None:
    assert _stopped(lambda process: process.send_signal(signal.SIGINT)) == 130


def test_a_request_to_stop_lets_a_waiting_command_clean_up() -> None:
    def stop(process: subprocess.Popen[str]) -> None:
        held = HeldProcess(process.pid)
        held.terminate()
        held.close()

    assert _stopped(stop) == 143


def _stopped(stop: Callable[[subprocess.Popen[str]], None]) -> int:
    """Run the program, stop it while it waits, and return its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        stop(process)
        rest, errors = process.communicate(timeout=300)

    assert rest.strip() == "cleaned up"
    assert "Traceback" not in errors

    return process.returncode


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_is_no_failure(unbuffered: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mxgw_cli", "config", "show"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait(timeout=300)

    assert (code, errors) == (0, b"")


def test_output_survives_an_encoding_that_lacks_its_characters(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mxgw_cli",
            "config",
            "show",
            "--set",
            "backends.sim.note=größe-Ж",
            "backends",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert b"gr??e-?" in done.stdout


def test_a_process_that_is_tied_to_its_parent_ends_when_the_parent_is_gone() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mxgw_cli.tied", "http.server", "--bind", "127.0.0.1", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "Serving HTTP" in process.stdout.readline()  # it got its arguments and runs as a main program
        process.stdin.close()
        code = process.wait(timeout=300)

    assert code == (143 if os.name == "nt" else -signal.SIGTERM)


def test_the_opcua_demo_says_what_to_install_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncua", None)
    result = CliRunner().invoke(root, ["demo", "--backend", "opcua"], prog_name="mxgw")

    assert result.exit_code == 1
    assert quoted(["pip", "install", "mxgw[opcua]"]) in result.stderr


def test_the_command_lines_own_environment_is_no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MXGWCLI_GATEWAY", "unix:/run/mxgw.sock")
    result = CliRunner().invoke(root, ["config", "check"], prog_name="mxgw")

    assert result.exit_code == 0
