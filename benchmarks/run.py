"""Measure mxgw, floors and peers side by side. `make bench` runs all cases.

    python benchmarks/run.py                                    all cases
    python benchmarks/run.py --case latency --only N=8          a part of one case
    python benchmarks/run.py --case throughput --quick          a quick run; do not quote its figures

The program prints tables, and writes one JSON file per case into the output directory. With --only, the results of the
other parts stay in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.context import Context
from bench.measuring import PAIRS, environment, result_from_json
from bench.processes import BenchmarkFailed
from bench.registry import CASES
from bench.report import show
from bench.window import Window

OUTPUT = Path("var/benchmarks")


def main() -> int:
    """Run the cases that were asked for. Return exit status 1 when one of them is not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="may be given several times")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="parts of a case: N=8, 1000/s")
    parser.add_argument("--peer", action="append", default=[], help="only these peers, for example 'NATS core'")
    parser.add_argument("--quick", action="store_true", help="short turns and two pairs: a look, nothing to quote")
    parser.add_argument("--pairs", type=int, help=f"turns of each system; {PAIRS} unless --quick")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"where JSON files go; {OUTPUT} by default")
    options = parser.parse_args()
    console, progress = Console(width=None if sys.stdout.isatty() else 140), Console(stderr=True)
    facts, failed = environment(), 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.case or CASES:
        title, run = CASES[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as directory, progress.status(title) as status:
            Window.create(Path(directory) / "window")
            context = Context(
                Path(directory),
                quick=options.quick,
                pairs=options.pairs or (2 if options.quick else PAIRS),
                peers=options.peer,
                only=options.only,
                on_step=lambda step, title=title, status=status: status.update(f"{title}: {step}"),
            )
            try:
                result = run(context)
            except BenchmarkFailed as error:
                progress.print(f"{title}: no result: {error}", style="red", markup=False)
                failed = 1
                continue
        result.environment = facts
        show(result, console)
        path = options.output / f"{name}.json"
        if options.only and path.exists():
            result.merge(result_from_json(json.loads(path.read_text())))
        path.write_text(json.dumps(result.as_json(), indent=1) + "\n")
        console.print(f"{path}, {time.monotonic() - began:.0f} s", style="dim")
    return failed


if __name__ == "__main__":
    sys.exit(main())
