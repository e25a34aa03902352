"""Runs `mxgw` with another program as its worker: `python -m bench.launch WORKER ARGUMENTS...`.

WORKER is a module of this package, `premade_worker` or `real_worker`.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from mxgw_cli.main import main


def launch() -> None:
    """Run `mxgw` with the arguments that follow the name of the worker."""
    module = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory:
        # The backend `bench` is installed in the same way as that of any other package.
        offer = Path(directory) / "mxgw_bench-1.dist-info"
        offer.mkdir()
        (offer / "METADATA").write_text("Metadata-Version: 2.1\nName: mxgw-bench\nVersion: 1\n")
        (offer / "entry_points.txt").write_text("[mxgw.backends]\nbench = bench.real_worker:BenchBackend\n")
        program = Path(directory) / "worker"
        benchmarks = Path(__file__).resolve().parent.parent
        path = shlex.quote(f"{benchmarks}:{directory}")
        # `exec` keeps the process id, which the gateway checks. The gateway's first arguments are `-I -m mxgw_worker`.
        program.write_text(
            f'#!/bin/sh\nshift 3\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -m bench.{module} "$@"\n'
        )
        program.chmod(0o700)
        sys.executable = str(program)
        main()


if __name__ == "__main__":
    launch()
