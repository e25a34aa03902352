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
