"""How fast the backend `mxaccess` is under Wine, on the double of its COM object, beside `sim` in the same Python.

    python benchmarks/mxaccess.py --pairs 5

Both run in one 32-bit Windows Python and take turns (`bench/backend_rates.py`); a ratio compares neighbouring turns. A
table goes to standard error, and one JSON line, with the load of this machine, to standard output. MXAccess itself is
not in it: the figures say what the apartment and the conversion of values cost, not what a Galaxy can do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import wine
from support.mxaccess import com_double

_PROGRAM = "benchmarks/bench/backend_rates.py"
# Key: figure. Value: its name for people, and how many digits it has.
_FIGURES = {
    "events_per_s": ("data changes per second, of 1,000 items", 0),
    "dropped": ("of them dropped, because more waited than allowed", 0),
    "commands_per_s": ("AddItem and RemoveItem per second, one by one", 0),
    "commands_per_s_in_flight": ("the same, 50 in flight", 0),
    "write_p50_ms": ("ms from Write to OnWriteComplete, median", 2),
    "write_p99_ms": ("the same, of 99 in 100", 2),
    "advised_s": ("seconds to add and advise {items:,} items", 2),
    "first_values_s": ("until each has its first value", 2),
}


def main() -> int:
    """Run the benchmark, print a table and a JSON line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pairs", 5), ("commands", 2000), ("writes", 300), ("items", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=3.0, help="for which events are counted, each turn")
    options = parser.parse_args()
    if why := wine.missing():
        sys.stderr.write(f"{why}\n")
        return 1
    before = os.getloadavg()
    turns = _turns([f"--{name}={value}" for name, value in vars(options).items()])
    if len(turns) != 2 * options.pairs:
        sys.stderr.write("it has not measured everything; what went wrong stands above\n")
        return 1
    figures = _figures(turns)
    _show(figures, options.items)
    loads = {"load_before": round(before[0], 1), "load_after": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    print(json.dumps({"figures": figures, **vars(options), **loads}))
    return 0


def _turns(arguments: list[str]) -> list[dict[str, Any]]:
    """Run the program in Windows, and return what each turn measured."""
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as shared, wine.Windows(Path(shared)) as windows:
        command = (_PROGRAM, com_double.install(Path(shared)), *arguments)
        process = subprocess.Popen(
            windows.python(wine.Interpreter.BITS_32, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        turns = []
        with process:
            for line in process.stdout:
                if line.startswith("{"):
                    turns.append(json.loads(line))
                    sys.stderr.write(f"turn {len(turns)}: {turns[-1]['backend']}\n")
    return turns


def _figures(turns: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the median of each figure for each backend, and the ratio of neighbours: median, lowest, highest."""
    of = {name: [turn for turn in turns if turn["backend"] == name] for name in ("mxaccess", "sim")}
    figures: dict[str, dict[str, Any]] = {}
    for figure in _FIGURES:
        values = {name: [turn[figure] for turn in each] for name, each in of.items()}
        medians = {name: round(statistics.median(each), 3) for name, each in values.items()}
        pairs = zip(values["mxaccess"], values["sim"], strict=True)
        ratios = [mxaccess / sim for mxaccess, sim in pairs if sim > 0]
        found = [round(one(ratios), 3) for one in (statistics.median, min, max)] if ratios else []
        figures[figure] = {**medians, "ratio": found}
    return figures


def _show(figures: dict[str, dict[str, Any]], items: int) -> None:
    table = Table("", "mxaccess", "sim", "ratio (lowest, highest)")
    for figure, (title, digits) in _FIGURES.items():
        values = figures[figure]
        ratio = "{:.3f} ({:.3f}, {:.3f})".format(*values["ratio"]) if values["ratio"] else ""
        table.add_row(
            title.format(items=items), *(f"{values[name]:,.{digits}f}" for name in ("mxaccess", "sim")), ratio
        )
    Console(stderr=True, width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
