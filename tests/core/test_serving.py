"""A gateway as a process, started by a program that is not the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from mxgw_core.config import load_settings
from mxgw_core.serving import serve_until_stopped
from mxgw_worker.platform import stop_this_process

def on_ready(addresses):
    print(len(addresses), *sorted({"mxgw_cli", "mxgw_client", "rich"} & sys.modules.keys()), flush=True)
    stop_this_process()

found = load_settings(overrides={"gateway.listen": ["127.0.0.1:0"], "gateway.data_dir": "data"})
serve_until_stopped(found, use_uvloop=False, on_ready=on_ready)
"""


def test_a_service_serves_and_stops_in_order_without_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
    name = "stop request" if sys.platform == "win32" else "SIGTERM"

    assert f"{name}: draining for up to" in done.stderr
    assert "everything is closed" in done.stderr


def test_a_process_without_a_stderr_stops_in_order_and_writes_into_none_of_its_files(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0
    assert done.stdout == "1\n"

    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"draining" in path.read_bytes()]

    assert not left


STUBBORN = """
import sys, threading
from mxgw_core.config import load_settings
from mxgw_core.logs import log_to_stderr
from mxgw_core.serving import serve_until_stopped
from mxgw_worker.platform import stop_this_process
import os

def on_ready(addresses):
    # The main thread is the one of the event loop: both requests arrive while it is blocked here.
    stop_this_process()
    stop_this_process()
    threading.Event().wait()

def leave(code, text):
    os.write(1, f"left with {code} {text!r}\\n".encode())
    os._exit(9)

log_to_stderr("INFO")
found = load_settings(overrides={"gateway.listen": ["127.0.0.1:0"], "gateway.data_dir": "data"})
serve_until_stopped(
    found, use_uvloop=False, on_ready=on_ready, on_stop=lambda: os.write(1, b"stopping\\n"), leave=leave
)
"""


def test_a_host_of_the_gateway_learns_of_each_stop_and_ends_the_process_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (9, "stopping\nleft with 143 ''\n"), done.stderr


def test_a_log_without_a_stderr_goes_nowhere() -> None:
    code = "from mxgw_core.logs import log_to_stderr; log_to_stderr('INFO'); import logging; logging.error('lost')"
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code], timeout=60, check=False)

    assert done.returncode == 0
