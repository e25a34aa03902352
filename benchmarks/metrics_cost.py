"""What the plugin metrics costs: the same stream from a gateway without it, and from one that is scraped every second.

    python benchmarks/metrics_cost.py --seconds 120

Both gateways are there all the time and take turns, in pairs whose order alternates, so that what disturbs the machine
disturbs both alike; each has a worker of its own (sim, profile load, unthrottled) and one counting client. Prints one
JSON line: the ratios with/without of each pair, in events/s and in the gateway's processor time per event, and how long
one collection kept the event loop busy, which is what the plugin itself can cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from full_path import LOAD_ITEMS, OVERHEAD_S, from_gateway, read
from processes import Server, gateway
from window import Window

PAIRS = 6
SETTINGS = f"""
[events]
queue_events = 20_000_000
queue_bytes = 1_500_000_000
unattached_events = 1_000_000
unattached_bytes = 200_000_000
[backends.load]
kind = "sim"
profile = "load"
burst = "max"
items = {LOAD_ITEMS}
[backends]
default = "load"
"""
ENABLED = """
[plugins]
enabled = ["metrics"]
[plugins.metrics]
listen = "127.0.0.1:{port}"
"""
# As Prometheus 2.42 asks.
_ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Scraper:
    """Asks once a second while it is on, as a scraper with the shortest sensible interval would."""

    def __init__(self, port: int) -> None:
        self._request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": _ACCEPT})
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._on = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.scrapes = 0

    def page(self) -> str:
        """Scrape once."""
        with self._opener.open(self._request, timeout=5) as answer:
            self.scrapes += 1
            text: str = answer.read().decode()
            return text

    def start(self) -> None:
        """Begin, switched off."""
        self._thread.start()

    def switch(self, on: bool) -> None:
        """Scrape from now on, or not."""
        (self._on.set if on else self._on.clear)()

    def _run(self) -> None:
        while True:
            self._on.wait()
            self.page()
            time.sleep(1.0)


def value(page: str, name: str) -> float:
    """Return a sample without labels."""
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def measure(seconds: float, pairs: int, port: int) -> dict[str, object]:
    """Run everything within about `seconds`."""
    window_s = max(0.5, seconds * 0.9 / (2 * pairs) - OVERHEAD_S)
    runs: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name:
        directory = Path(name)
        Window.create(directory / "window")
        with (
            gateway(directory / "with", SETTINGS + ENABLED.format(port=port)) as observed,
            gateway(directory / "without", SETTINGS) as plain,
        ):
            scraper = Scraper(port)
            scraper.start()
            servers: dict[str, Server] = {"with": observed, "without": plain}
            for number in range(pairs):
                for which in ("with", "without") if number % 2 == 0 else ("without", "with"):
                    scraper.switch(which == "with")
                    runs[which].append(read(servers[which], from_gateway("load", LOAD_ITEMS, window_s)))
            scraper.switch(False)
            page = scraper.page()
    busy = "mxgw_metrics_collect_duration_seconds"
    rates = [ratio(runs, number, lambda run: run["events"] / run["seconds"]) for number in range(pairs)]
    costs = [ratio(runs, number, lambda run: run["cpu_s"] / run["events"]) for number in range(pairs)]
    return {
        **spread("throughput_ratio", rates),
        **spread("cpu_ratio", costs),
        "collect_ms": round(value(page, f"{busy}_sum") / value(page, f"{busy}_count") * 1000, 2),
        "scrapes": scraper.scrapes,
        "page_bytes": len(page),
        "pairs": pairs,
        "window_s": round(window_s, 1),
        "without_events_per_s": round(statistics.median(r["events"] / r["seconds"] for r in runs["without"])),
    }


def ratio(runs: dict[str, list[dict[str, float]]], number: int, figure: object) -> float:
    """Return one pair's figure with the plugin, over that without."""
    assert callable(figure)
    return float(figure(runs["with"][number]) / figure(runs["without"][number]))


def spread(name: str, ratios: list[float]) -> dict[str, float]:
    """Return median and extremes."""
    return {
        f"{name}_median": round(statistics.median(ratios), 4),
        f"{name}_min": round(min(ratios), 4),
        f"{name}_max": round(max(ratios), 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="about how long all of it takes")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="turns of each, of which medians are taken")
    parser.add_argument("--port", type=int, default=19464, help="a free port for the endpoint")
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.pairs, options.port)))
