"""Events through the whole gateway to one subscriber, beside the same bytes through gRPC alone.

    python benchmarks/full_path.py --seconds 40

Four systems take turns, so that what disturbs the machine disturbs all, and medians are compared:

full      a real worker (sim, profile load, unthrottled) -> gateway -> client: what a site gets from one session
gateway   events made beforehand -> gateway -> client: what the gateway itself can move
relay     the same events -> a bare gRPC relay -> the same client: the gateway without what makes it one
raw       one message written again and again -> the same client: the most gRPC can do

Then delays from the worker's clock to the client's, at steady rates. Prints one JSON line. Ratios are what counts: the
absolute figures are this machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from premade import Premade
from processes import HERE, Server, gateway, json_lines, served
from window import Window

ROUNDS = 3
RATES = (1_000, 5_000)
LOAD_ITEMS = 1_000
PACED_ITEMS = 100
# Starting a reader and a session, beside the window itself.
OVERHEAD_S = 1.3
READER_TIMEOUT_S = 30.0

# The reader must never be cut off for being slow: what is measured is how fast it can be served.
SETTINGS = f"""
[events]
queue_events = 20_000_000
queue_bytes = 1_500_000_000
unattached_events = 1_000_000
unattached_bytes = 200_000_000
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
burst = "max"
items = {LOAD_ITEMS}
""" + "".join(
    f'[backends.paced{rate}]\nkind = "sim"\nprofile = "load"\nrate = {rate}\nitems = {PACED_ITEMS}\n' for rate in RATES
)


def read(server: Server, arguments: dict[str, object]) -> dict[str, float]:
    """Run one reader and return its figures, with the processor seconds of the server in its window."""
    reader = subprocess.Popen(
        [sys.executable, str(HERE / "reader.py"), json.dumps({**arguments, "target": server.target})],
        stdout=subprocess.PIPE,
    )
    try:
        assert reader.stdout is not None
        lines = json_lines(reader.stdout)
        next(lines)
        began_cpu_s = server.cpu_s()
        result = next(lines)
        result["cpu_s"] = server.cpu_s() - began_cpu_s
        reader.wait(READER_TIMEOUT_S)
    except StopIteration:
        raise SystemExit("the reader failed; its message stands above") from None
    finally:
        reader.kill()
        reader.wait()
    return result


def from_gateway(backend: str, items: int, seconds: float, *, measure_latency: bool = False) -> dict[str, object]:
    return {
        "kind": "gateway",
        "backend": backend,
        "items": items,
        "seconds": seconds,
        "measure_latency": measure_latency,
    }


def from_bytes(method: str, seconds: float, message_bytes: int = 0) -> dict[str, object]:
    return {"kind": "bytes", "method": method, "seconds": seconds, "message_bytes": message_bytes}


def measure(seconds: float, rounds: int) -> dict[str, object]:
    """Run everything within about `seconds`."""
    began = time.monotonic()
    record_bytes = Premade().record_bytes
    latency_s = max(1.0, seconds * 0.07)
    window_s = max(0.4, seconds * 0.8 / (4 * rounds) - OVERHEAD_S)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ("full", "gateway", "relay", "raw")}
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name:
        directory = Path(name)
        Window.create(directory / "window")
        (directory / "bytes").mkdir()
        byte_command = [sys.executable, str(HERE / "byte_server.py"), "serve", str(directory / "bytes")]
        with (
            gateway(directory / "real", SETTINGS) as real,
            gateway(directory / "premade", SETTINGS, launcher="premade_gateway.py") as premade,
            served(byte_command, directory / "bytes") as byte_server,
        ):
            systems: dict[str, Callable[[], dict[str, float]]] = {
                "full": lambda: read(real, from_gateway("load", LOAD_ITEMS, window_s)),
                "gateway": lambda: read(premade, from_gateway("load", 0, window_s)),
                "relay": lambda: read(byte_server, from_bytes("relay", window_s)),
                "raw": lambda: read(byte_server, from_bytes("raw", window_s, message_bytes_of(runs["gateway"]))),
            }
            for number in range(rounds):
                for system in list(systems)[:: 1 if number % 2 == 0 else -1]:
                    runs[system].append(systems[system]())
            delays = {
                rate: read(real, from_gateway(f"paced{rate}", PACED_ITEMS, latency_s, measure_latency=True))
                for rate in RATES
            }
    for result in runs["raw"]:
        result["events"] = result["bytes"] / record_bytes
    return {**figures(runs, record_bytes), **delay_figures(delays), "elapsed_s": round(time.monotonic() - began, 1)}


def message_bytes_of(runs: list[dict[str, float]]) -> int:
    return round(median(runs, lambda run: run["bytes"] / run["messages"]))


def median(runs: list[dict[str, float]], figure: Callable[[dict[str, float]], float]) -> float:
    return statistics.median(map(figure, runs))


def figures(runs: dict[str, list[dict[str, float]]], record_bytes: int) -> dict[str, object]:
    rates = {name: median(of, lambda run: run["events"] / run["seconds"]) for name, of in runs.items()}
    cpu = {name: median(of, lambda run: run["cpu_s"] / run["events"] * 1e6) for name, of in runs.items()}
    return {
        "events_per_s": round(rates["full"]),
        "gateway_events_per_s": round(rates["gateway"]),
        "relay_events_per_s": round(rates["relay"]),
        "raw_events_per_s": round(rates["raw"]),
        "ratio": round(rates["full"] / rates["raw"], 3),
        "ratio_to_relay": round(rates["full"] / rates["relay"], 3),
        "gateway_ratio": round(rates["gateway"] / rates["raw"], 3),
        "gateway_ratio_to_relay": round(rates["gateway"] / rates["relay"], 3),
        "cpu_s_per_million": round(cpu["full"], 4),
        "gateway_cpu_s_per_million": round(cpu["gateway"], 4),
        "relay_cpu_s_per_million": round(cpu["relay"], 4),
        "relay_cpu_to_gateway_cpu": round(cpu["relay"] / cpu["gateway"], 3),
        "gaps": sum(int(run["gaps"]) for name in ("full", "gateway") for run in runs[name]),
        "event_bytes": record_bytes,
        "events_per_message": round(median(runs["full"], lambda run: run["events"] / run["messages"])),
        "gateway_message_bytes": message_bytes_of(runs["gateway"]),
        "rounds": len(runs["full"]),
    }


def delay_figures(delays: dict[int, dict[str, float]]) -> dict[str, object]:
    return {
        f"{percentile}_us_at_{rate}_per_s": round(result[f"{percentile}_us"])
        for rate, result in delays.items()
        for percentile in ("p50", "p99")
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="about how long all of it takes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each system, of which medians are taken")
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.rounds)))
