"""What access control costs a stream: without the plugin, with a key that may see everything, with one that may not.

    python benchmarks/acl_cost.py --seconds 120 --rounds 9

off         no plugin
on          acl, a key without --read and --write
limited     acl, a key whose globs permit every item that it subscribes to: each event is looked at, none is left out

All three read one unthrottled session of 1,000 items through a gateway of its own, by turns, in changing order. Prints
one JSON line: the ratios of each round to the `off` of the same round (median, least, greatest), and the processor time
of the gateway per event.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from full_path import LOAD_ITEMS, OVERHEAD_S, SETTINGS, from_gateway, read
from processes import Server, gateway
from window import Window

# A gateway without the plugin at all: `off`.
_ACL = (
    SETTINGS
    + """
[plugins]
enabled = ["acl"]
"""
)
_LIMITS = {"on": (), "limited": ("--read", "Load.*", "--read-below", "Tank_001")}


def new_key(directory: Path, name: str) -> str:
    """Return the file of a new key for the gateway in `directory`."""
    file = directory / f"{name}.key"
    command = ["keys", "create", name, "--scopes", "open,read,events", *_LIMITS[name], "--out", str(file)]
    subprocess.run([sys.executable, "-m", "mxgw_core.cli.main", *command], cwd=directory, check=True, stdout=sys.stderr)
    return str(file)


def measure(seconds: float, rounds: int) -> dict[str, object]:
    """Run everything within about `seconds`."""
    began = time.monotonic()
    window_s = max(0.4, seconds / (3 * rounds) - OVERHEAD_S)
    runs: dict[str, list[dict[str, float]]] = {"off": [], "on": [], "limited": []}
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        Window.create(directory / "window")
        servers: dict[str, tuple[Server, str]] = {}
        for system in runs:
            settings = SETTINGS if system == "off" else _ACL
            server = stack.enter_context(gateway(directory / system, settings))
            servers[system] = server, "" if system == "off" else new_key(directory / system, system)
        for number in range(rounds):
            for system in list(runs)[:: 1 if number % 2 == 0 else -1]:
                server, key_file = servers[system]
                arguments = {**from_gateway("load", LOAD_ITEMS, window_s), "key_file": key_file}
                runs[system].append(read(server, arguments))
    figures: dict[str, object] = {}
    for system in ("on", "limited"):
        figures[f"{system}_to_off"] = spread(
            [rate(run) / rate(off) for run, off in zip(runs[system], runs["off"], strict=True)]
        )
    for system, results in runs.items():
        figures[f"{system}_events_per_s"] = round(statistics.median(map(rate, results)))
        figures[f"{system}_cpu_us_per_event"] = spread([run["cpu_s"] / run["events"] * 1e6 for run in results])
    return {**figures, "rounds": rounds, "elapsed_s": round(time.monotonic() - began, 1)}


def rate(run: dict[str, float]) -> float:
    return run["events"] / run["seconds"]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "greatest": round(max(values), 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of everything together")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each of the three")
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.rounds)))
