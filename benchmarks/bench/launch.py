"""`mxgw` with one thing changed: the program it starts as a worker. `python -m bench.launch WORKER ARGUMENTS...`.

WORKER is a module of this package, `premade_worker` or `real_worker`.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from mxgw_core.cli.main import main

if __name__ == "__main__":
    module = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory:
        program = Path(directory) / "worker"
        benchmarks = Path(__file__).resolve().parent.parent
        # `exec` keeps the process id, which the gateway checks.
        program.write_text(
            f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(benchmarks))} exec {shlex.quote(sys.executable)} -m bench.{module}\n"
        )
        program.chmod(0o700)
        sys.executable = str(program)
        main()
