"""`mxgw` with one thing changed: the program it starts as a worker is `premade_worker.py`."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from mxgw_core.cli.main import main

if __name__ == "__main__":
    worker = Path(__file__).resolve().with_name("premade_worker.py")
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory:
        program = Path(directory) / "worker"
        # `exec` keeps the process id, which the gateway checks.
        program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(os.fspath(worker))}\n")
        program.chmod(0o700)
        sys.executable = str(program)
        main()
