"""`mxgw` with one thing changed: the program it starts as a worker. `python -m bench.launch WORKER ARGUMENTS...`.

WORKER is a module of this package, `premade_worker` or `real_worker`.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from mxgw_cli.main import main


def launch() -> None:
    """Run `mxgw` with the arguments behind the worker's name."""
    module = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory:
        # The backend `bench` is offered as any installed package would offer one.
        offer = Path(directory) / "mxgw_bench-1.dist-info"
        offer.mkdir()
        (offer / "METADATA").write_text("Metadata-Version: 2.1\nName: mxgw-bench\nVersion: 1\n")
        (offer / "entry_points.txt").write_text("[mxgw.backends]\nbench = bench.real_worker:BenchBackend\n")
        program = Path(directory) / "worker"
        benchmarks = Path(__file__).resolve().parent.parent
        path = shlex.quote(f"{benchmarks}:{directory}")
        # `exec` keeps the process id, which the gateway checks. The gateway passes `-I -m mxgw_worker` first.
        program.write_text(
            f'#!/bin/sh\nshift 3\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -m bench.{module} "$@"\n'
        )
        program.chmod(0o700)
        sys.executable = str(program)
        main()


if __name__ == "__main__":
    launch()
