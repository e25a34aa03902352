"""`mxgw demo` as a newcomer runs it: it works, it is honest, and it leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

MXGW = [sys.executable, "-m", "mxgw_cli"]
FIELDS = ["backend", "seconds", "events", "gaps", "duplicates", "out_of_order", "p50_ms", "p99_ms"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """An environment whose temporary directory is empty afterwards, or the demo left something behind."""
    with tempfile.TemporaryDirectory(prefix="mxd-", dir="/tmp") as name:
        yield {**os.environ, "TMPDIR": name, "MXGW_LIMITS__NONSENSE": "a broken setting that must not matter"}

        assert list(Path(name).iterdir()) == []


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes below it: gateway, worker, and what else it started."""
    return psutil.Process(process.pid).children(recursive=True)


def started(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MXGW, "demo", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until_events(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait for the first line with figures; return the processes that run then."""
    assert process.stdout is not None
    for line in process.stdout:
        if "events" in line:
            return family(process)
    raise AssertionError("the demo ended before it showed anything")


def gone(processes: list[psutil.Process], within_s: float = 10.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return not alive


@pytest.mark.parametrize("arguments", [(), ("--backend", "load", "--items", "50", "--rate", "2000")], ids=" ".join)
def test_a_timed_demo_prints_one_json_line_and_nothing_else(
    environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [*MXGW, "demo", "--seconds", "1", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
    )
    document = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(document) == FIELDS
    assert document["backend"] == (arguments[1] if arguments else "sim")
    assert document["events"] > 10
    assert document["seconds"] == pytest.approx(1, abs=0.5)
    assert (document["gaps"], document["duplicates"], document["out_of_order"]) == (0, 0, 0)
    assert 0 < document["p50_ms"] <= document["p99_ms"]


def test_the_opcua_demo_goes_through_a_real_server(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*MXGW, "demo", "--backend", "opcua", "--seconds", "1", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    document = json.loads(done.stdout)

    assert (done.returncode, document["backend"]) == (0, "opcua")
    assert document["events"] > 10


def test_ctrl_c_is_its_normal_end_with_a_summary_and_no_process_left(environment: dict[str, str]) -> None:
    with started(environment) as process:
        processes = read_until_events(process)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        rest, errors = process.stdout.read(), process.stderr.read()
        code = process.wait(timeout=60)

    assert (code, errors) == (0, "")
    assert "Every event came once and in order" in rest
    assert "mxgw serve" in rest
    assert len(processes) >= 2
    assert gone(processes)


def test_ctrl_c_in_a_timed_demo_still_prints_its_line_and_says_it_was_cut_short(environment: dict[str, str]) -> None:
    with started(environment, "--seconds", "60", "--json") as process:
        deadline = time.monotonic() + 60
        while len(family(process)) < 2 and time.monotonic() < deadline:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        code = process.wait(timeout=60)

    assert code == 130
    assert "Traceback" not in errors
    assert output == "" or list(json.loads(output)) == FIELDS  # it may have been cut before it began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_no_process_outlives_it_however_it_is_ended(number: signal.Signals) -> None:
    # A demo that is killed cannot tidy up its directory.
    with (
        tempfile.TemporaryDirectory(prefix="mxd-", dir="/tmp", ignore_cleanup_errors=True) as directory,
        started({**os.environ, "TMPDIR": directory}) as process,
    ):
        processes = read_until_events(process)
        process.send_signal(number)
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait(timeout=60)

    assert code == (143 if number is signal.SIGTERM else -9)
    assert "Traceback" not in errors
    assert gone(processes)


def test_a_gateway_that_dies_is_told_with_the_end_of_its_log(environment: dict[str, str]) -> None:
    with started(environment) as process:
        processes = read_until_events(process)
        gateway = next(each for each in processes if "serve" in each.cmdline())
        gateway.kill()
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait(timeout=60)

    assert code == 1
    assert "ended by itself with signal 9" in errors
    assert "serving on unix:" in errors  # the gateway's own last lines
    assert "Traceback" not in errors
    assert gone(processes)


@pytest.mark.parametrize(("columns", "rows", "no_color"), [(80, 24, "1"), (120, 40, "")])
def test_a_terminal_gets_a_live_screen_that_fits_and_is_given_back(
    environment: dict[str, str], columns: int, rows: int, no_color: str
) -> None:
    text, code = on_a_terminal({**environment, "NO_COLOR": no_color}, columns, rows, "demo", "--seconds", "1")
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    assert code == 0
    assert "SteelWorks.Usage_kWh" in screen
    assert "events/s" in screen
    assert "Try next:" in screen
    assert max(len(part.rstrip("\r")) for line in screen.split("\n") for part in line.split("\r")) <= columns
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-7]m", text)) == (not no_color)


def on_a_terminal(environment: dict[str, str], columns: int, rows: int, *arguments: str) -> tuple[str, int]:
    """Run on a pseudo-terminal of this size; return everything it wrote, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    clean = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [*MXGW, *arguments],
        env={**clean, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        received = b""
        try:
            while chunk := os.read(ours, 65_536):
                received += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        finally:
            os.close(ours)
        return received.decode("utf-8"), process.wait(timeout=60)


def test_options_that_do_not_go_together_are_wrong_usage() -> None:
    for arguments in (["--items", "5"], ["--backend", "plant", "--speed", "9"]):
        done = subprocess.run([*MXGW, "demo", *arguments], capture_output=True, text=True, timeout=60)

        assert done.returncode == 2
        assert "--backend" in done.stderr


def test_mxaccess_is_refused_where_it_cannot_be_and_the_sentence_says_what_it_needs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # This demo reads settings, for the Python of the workers.
    clean = {name: value for name, value in environment.items() if not name.startswith("MXGW")}
    done = subprocess.run(
        [*MXGW, "demo", "--backend", "mxaccess", "--json"],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "backend 'mxaccess' needs Windows, because MXAccess is a Windows component" in done.stderr
    assert "docs/backends/mxaccess.md says what it needs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--object", "Tank_001"), ("--tag", "Tank_001.Level")], ids=" ".join)
def test_what_is_to_be_shown_is_named_for_mxaccess_only(arguments: tuple[str, str]) -> None:
    done = subprocess.run([*MXGW, "demo", *arguments], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "--object and --tag are for --backend mxaccess" in done.stderr
