"""How much a dashboard costs, in its own process and in the gateway, and how soon it answers a key.

    python benchmarks/dashboard_cost.py --seconds 10

There are 64 sessions. Eight of them have 1,000 events/s and one reader each (in another process); the others have a few
slow items. The phases take turns: without a dashboard; with one dashboard that shows the table of sessions; with one
dashboard that shows the events of a session with 1,000 events/s; with several dashboards that show the table. Each
dashboard runs in its own terminal (tmux). Processor time is what the operating system counted for a process in the
phase. The cost of an operator in the gateway is its processor time in the phase, less its mean in the phases without a
dashboard before and after.

A key is timed from the moment when tmux types it until the screen shows its effect. The screen is read every 4 ms; this
and tmux are a part of the figure. `first` are the keys that show a view for the first time, and `open` is the key that
opens a session. The output is one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from mxgw.v1.event_service_pb2 import StreamEventsRequest
from mxgw_client import Session, connect

from bench.serving import Server, gateway

SESSIONS, FAST, RATE, ITEMS, SLOW_ITEMS, OPERATORS = 64, 8, 1_000, 50, 4, 4
SETTLE_S = 3.0
KEY_TIMEOUT_S = 5.0
LOOK_S = 0.004
MIB = 1024 * 1024
STREAM = "/mxgw.v1.EventService/StreamEvents"
SETTINGS = f"""
[plugins]
enabled = ["dashboard_tui"]
[plugins.dashboard_tui]
local_role = "administrator"
[limits]
sessions = {SESSIONS}
[backends]
default = "plant"
[backends.plant]
kind = "sim"
[backends.fast]
kind = "sim"
profile = "load"
rate = {RATE}
items = {ITEMS}
"""


# The load


async def read(target: str, session_ids: list[str]) -> None:
    """Read the streams until stdin ends, without processing what comes."""
    channel = grpc.aio.insecure_channel(target)

    async def one(session_id: str) -> None:
        call = channel.unary_stream(STREAM)(StreamEventsRequest(session_id=session_id).SerializeToString())
        while await call.read() is not grpc.aio.EOF:
            pass

    def until_told() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=until_told, daemon=True).start()
    async with asyncio.TaskGroup() as tasks:
        for session_id in session_ids:
            tasks.create_task(one(session_id))


@asynccontextmanager
async def loaded(target: str) -> AsyncIterator[list[Session]]:
    """Open the sessions, and start a process that reads the fast ones."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(target))
        sessions = []
        for number in range(SESSIONS):
            is_fast = number < FAST
            name = f"fast {number}" if is_fast else f"client {number:02}"
            opening = client.open_session(client_name=name, tag=f"line{number % 6}", backend="fast" if is_fast else "")
            sessions.append(await stack.enter_async_context(opening))
        ids = ",".join(session.session_id for session in sessions[:FAST])
        reader = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here meanwhile
            [sys.executable, __file__, "--role", "reader", "--target", target, "--ids", ids], stdin=subprocess.PIPE
        )
        stack.callback(reader.kill)
        for number, session in enumerate(sessions):
            names = (
                [f"Load.Item{item:05d}" for item in range(1, ITEMS + 1)]
                if number < FAST
                else [f"Tank_{item:03d}.Level" for item in range(1, SLOW_ITEMS + 1)]
            )
            await session.subscribe(*names)
        yield sessions


# The dashboards


class Terminal:
    """A dashboard in tmux. Its screen is read through one control client, so that reading it starts no process."""

    def __init__(self, directory: Path, number: int, target: str) -> None:
        self._tmux = ["tmux", "-S", str(directory / f"t{number}"), "-f", "/dev/null"]
        app = [sys.executable, "-m", "mxgw_dashboard_tui", "--connect", target]
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self._started = time.monotonic()
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", "120", "-y", "40", "-s", "t", f"exec {shlex.join(app)}"],
            env=environment,
            check=True,
        )
        self._client = subprocess.Popen(
            [*self._tmux, "-C", "attach", "-t", "t"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.do("refresh-client -f no-output")
        self.do("set -s escape-time 0")
        self.do("refresh-client -C 120,40")
        self.start_s = 0.0
        self.process = psutil.Process(int(self.do("display -p '#{pane_pid}'").strip()))

    def wait_for_the_table(self) -> None:
        self.until(lambda screen: "client 08" in screen, 20)
        self.start_s = time.monotonic() - self._started

    def do(self, command: str) -> str:
        """Run a tmux command, and return its output."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.write(command + "\n")
        self._client.stdin.flush()
        said: list[str] | None = None
        while True:
            line = self._client.stdout.readline()
            # The line that answers the attaching of the control client has the flags 0, the answer to a command has 1.
            if line.startswith("%begin") and line.rstrip().endswith(" 1"):
                said = []
            elif line.startswith(("%end", "%error")) and said is not None:
                return "".join(said)
            elif said is not None:
                said.append(line)
            elif not line:
                raise SystemExit("the terminal ended")

    @property
    def screen(self) -> str:
        return self.do("capture-pane -p -t t")

    def until(self, shows: Callable[[str], bool], timeout_s: float = KEY_TIMEOUT_S, doing: str = "") -> None:
        deadline = time.monotonic() + timeout_s
        while not shows(screen := self.screen):
            time.sleep(LOOK_S)  # without this pause the loop would use a core that the measured processes need
            if time.monotonic() > deadline:
                raise SystemExit(f"the screen never came{doing}:\n{screen}")

    def key_ms(self, key: str, shows: Callable[[str], bool]) -> float:
        """Press a key, and return how many milliseconds passed until its effect was on the screen."""
        began = time.monotonic()
        self.do(f"send-keys -t t {key}")
        self.until(shows, doing=f" after the key {key}")
        return (time.monotonic() - began) * 1000

    def open_session(self, name: str) -> None:
        """Open a session and show its events."""
        self.do("send-keys -t t /")
        self.do(f"send-keys -t t -l '{name}'")
        self.until(lambda screen: f"/{name}" in screen.splitlines()[0])
        self.do("send-keys -t t Enter")
        self.until(lambda screen: not input_is_open(screen))
        self.do("send-keys -t t Enter")
        self.until(lambda screen: screen.startswith(f"mxgw session {name}") and " good " in screen)
        self.do("send-keys -t t e")
        self.until(lambda screen: "[e events" in screen)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)
        self._client.wait()


@contextmanager
def dashboards(directory: Path, target: str, number: int) -> Iterator[list[Terminal]]:
    """Run this number of dashboards during the block."""
    made = []
    try:
        for each in range(number):
            made.append(Terminal(directory, each, target))
            made[-1].wait_for_the_table()
        yield made
    finally:
        for terminal in made:
            terminal.close()


# The phases


def used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def phase(server: Server, seconds: float, apps: list[Terminal]) -> dict[str, float]:
    """Return what was used in so many seconds: processor time in percent of a core, and the memory at the end."""
    await asyncio.sleep(SETTLE_S)
    began = time.monotonic()
    before = server.cpu_s(), sum(used_s(app.process) for app in apps)
    await asyncio.sleep(seconds)
    passed_s = time.monotonic() - began
    figures = {"gateway_cpu": (server.cpu_s() - before[0]) / passed_s * 100}
    if apps:
        figures["app_cpu"] = (sum(used_s(app.process) for app in apps) - before[1]) / passed_s * 100 / len(apps)
        figures["app_rss_mib"] = max(app.process.memory_info().rss for app in apps) / MIB
    return figures


def cursor(screen: str) -> str:
    """Return the name on the line with the cursor."""
    return next((line[12:30] for line in screen.splitlines() if line.startswith(">")), "")


def input_is_open(screen: str) -> bool:
    """Return True when the screen has the line for the text of a filter."""
    return input_shows(screen, "")


def input_shows(screen: str, text: str) -> bool:
    # Leave out the title and the line with the keys.
    return any(line.replace(" ", "").startswith(f"/{text}") for line in screen.splitlines()[1:-1])


def keys_ms(app: Terminal) -> dict[str, list[float]]:
    """Type what an operator types. Return how long each key took, sorted by what the keys do."""
    took: dict[str, list[float]] = {"move": [], "first": [], "switch": [], "input": [], "open": []}

    def press(what: str, key: str, shows: Callable[[str], bool]) -> None:
        took[what].append(app.key_ms(key, shows))
        time.sleep(0.13)  # so that the keys fall on all moments between two repaints

    for number in range(6):
        for key in ("j", "j", "k", "G", "g"):
            here = cursor(app.screen)
            press("move", key, lambda screen, here=here: cursor(screen) not in ("", here))  # type: ignore[misc]
        for key, title in (("2", "overview"), ("3", "journal"), ("4", "plugins"), ("1", "sessions")):
            press(
                "switch" if number or key == "1" else "first",
                key,
                lambda screen, title=title: screen.startswith(f"mxgw {title}"),
            )  # type: ignore[misc]
        press("input", "/", input_is_open)
        rows = app.screen.count(" ready ")
        press("input", "f", lambda screen, rows=rows: screen.count(" ready ") < rows)  # type: ignore[misc]
        app.do("send-keys -t t a s t")
        app.until(lambda screen: input_shows(screen, "fast"))
        press("input", "Enter", lambda screen: not input_is_open(screen))
        press("open", "Enter", lambda screen: screen.startswith("mxgw session fast"))
        press("switch", "e", lambda screen: "[e events" in screen)
        press("switch", "Escape", lambda screen: screen.startswith("mxgw sessions /fast"))
        app.do("send-keys -t t Escape")
        app.until(lambda screen: screen.startswith("mxgw sessions ") and "client" in screen)
    return took


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-", dir="/tmp") as name:
        directory = Path(name)
        with gateway(directory / "g", SETTINGS) as server:
            async with loaded(server.target) as sessions:
                del sessions
                figures = await measured(server, directory, seconds)
    print(json.dumps({"sessions": SESSIONS, "fast": FAST, "events_per_s": RATE, "seconds": seconds, **figures}))


async def measured(server: Server, directory: Path, seconds: float) -> dict[str, Any]:
    quiet = [await phase(server, seconds, [])]
    with dashboards(directory, server.target, 1) as (app,):
        start_s = app.start_s
        table = await phase(server, seconds, [app])
        keys = keys_ms(app)
    quiet.append(await phase(server, seconds, []))
    with dashboards(directory, server.target, 1) as (app,):
        app.open_session("fast 0")
        detail = await phase(server, seconds, [app])
        detail_keys = [
            app.key_ms(key, lambda screen, mark=mark: mark in screen)
            for _ in range(10)
            for key, mark in (("i", "[i items"), ("e", "[e events"), ("t", "[t timeline"), ("e", "[e events"))
        ]  # type: ignore[misc]
    quiet.append(await phase(server, seconds, []))
    with dashboards(directory, server.target, OPERATORS) as apps:
        several = await phase(server, seconds, apps)
    quiet.append(await phase(server, seconds, []))

    def cost(shown: dict[str, float], index: int, operators: int = 1) -> float:
        beside = statistics.mean(each["gateway_cpu"] for each in quiet[index : index + 2])
        return round((shown["gateway_cpu"] - beside) / operators, 2)

    return {
        "gateway_cpu_quiet": [round(each["gateway_cpu"], 2) for each in quiet],
        "gateway_cpu_per_operator": {
            "table": cost(table, 0),
            "fast session": cost(detail, 1),
            f"table, mean of {OPERATORS}": cost(several, 2, OPERATORS),
        },
        "app_cpu": {"table": round(table["app_cpu"], 2), "fast session": round(detail["app_cpu"], 2)},
        "app_rss_mib": {"table": round(table["app_rss_mib"], 1), "fast session": round(detail["app_rss_mib"], 1)},
        "app_start_s": round(start_s, 2),
        "key_ms": {**{what: spread(took) for what, took in keys.items()}, "fast session": spread(detail_keys)},
    }


def spread(took: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the maximum."""
    ordered = sorted(took)
    return {
        "keys": len(took),
        "p50": round(statistics.median(took), 1),
        "p95": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 1),
        "max": round(ordered[-1], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a phase")
    parser.add_argument("--role", choices=("reader",), help=argparse.SUPPRESS)
    parser.add_argument("--target", default="", help=argparse.SUPPRESS)
    parser.add_argument("--ids", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "reader":
        asyncio.run(read(options.target, options.ids.split(",")))
    else:
        asyncio.run(main(options.seconds))
