"""Does a healthy subscriber notice that seven others on its session have stopped reading?

    python benchmarks/stalled_subscribers.py --seconds 20

One gateway, one session with a load of 10,000 events/s. A healthy subscriber in a process of its own measures the
delay of every event from the worker's clock to its own, without a pause. Phases take turns: alone, then with stalled
subscribers (another process; each with a connection of its own and gRPC's default options, which take megabytes before
a write blocks), then alone again, and so on. So what disturbs the machine disturbs both. This is done for each
overflow policy: with `disconnect` the stalled are cut, with others they stay for all of the time.

Prints one JSON line. `rss_growth_mib` is per stalled subscriber: the gateway's most in a phase, less what it had
before; `held_mib` is what the gateway itself says it holds for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from mxgw.convert import timestamp_to_ns
from mxgw.v1.event_service_pb2 import OverflowPolicyChoice, StreamEventsRequest, StreamEventsResponse
from mxgw_client import Gateway, Session, connect

from processes import Server, gateway

ITEMS, RATE, STALLED, ROUNDS = 1_000, 10_000, 7, 2
POLICIES = ("disconnect", "drop_oldest", "conflate")
ALONE_PART = 0.5
SETTLE_S = 1.0
LOOK_S = 0.2
MIB = 1024 * 1024
STREAM = "/mxgw.v1.EventService/StreamEvents"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
SETTINGS = f"""
[plugins]
enabled = ["backpressure"]
[backends.sim]
profile = "load"
rate = {RATE}
items = {ITEMS}
"""


# the children


def stream(target: str, session_id: str, policy: str = "") -> Any:
    request = StreamEventsRequest(session_id=session_id, policy=OverflowPolicyChoice(name=policy))
    channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    call = channel.unary_stream(STREAM)(request.SerializeToString())
    call.channel = channel  # lives as long as the call
    return call


async def healthy(target: str, session_id: str) -> None:
    """Measure; at every line of stdin print what was measured since the last one."""
    call = stream(target, session_id, "disconnect")
    delays: list[int] = []
    sequence = missed = gaps = 0
    loop = asyncio.get_running_loop()

    def report() -> None:
        nonlocal delays
        taken, delays = sorted(delays), []
        figures: dict[str, float] = {"events": len(taken), "missed": missed, "gaps": gaps}
        if taken:
            figures |= {f"p{p}_ms": taken[min(len(taken) - 1, len(taken) * p // 100)] / 1e6 for p in (50, 99)}
            figures["max_ms"] = taken[-1] / 1e6
        print(json.dumps(figures), flush=True)

    def follow_stdin() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(report)
        loop.call_soon_threadsafe(call.cancel)

    threading.Thread(target=follow_stdin, daemon=True).start()
    try:
        while (frame := await call.read()) is not grpc.aio.EOF:
            arrived_ns = time.time_ns()
            message = StreamEventsResponse.FromString(frame)
            gaps += message.HasField("gap")
            for event in message.events.events:
                missed += event.sequence - sequence - 1
                sequence = event.sequence
                delays.append(arrived_ns - timestamp_to_ns(event.worker_time))
    except asyncio.CancelledError:
        return


async def stalled(target: str, session_id: str, policy: str) -> None:
    """Read two frames of each stream, and then nothing until stdin ends."""
    calls = [stream(target, session_id, policy) for _ in range(STALLED)]
    for call in calls:
        await call.read()
        await call.read()
    print(json.dumps("stalled"), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # a client that is gone, not one that says good-bye


class Child:
    """A child that answers each line with a JSON line."""

    def __init__(self, role: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.to_thread(self._process.stdout.readline))

    async def ask(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return await self.line()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# the phases


@asynccontextmanager
async def loaded_session(server: Server) -> AsyncIterator[tuple[Gateway, Session, Child]]:
    """A session with its healthy reader, under load."""
    async with connect(server.target) as client, client.open_session() as session:
        reader = Child("healthy", "--target", server.target, "--session", session.session_id)
        try:
            while not (await session.subscribers()).subscribers:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.05)
            await session.subscribe(*(f"Load.Item{number:05d}" for number in range(1, ITEMS + 1)))
            await asyncio.sleep(SETTLE_S)
            yield client, session, reader
        finally:
            reader.end()


async def measured(policy: str, seconds: float) -> dict[str, object]:
    """Return the figures of one policy."""
    alone: list[dict[str, float]] = []
    beside: list[dict[str, float]] = []
    growth_mib, left, cut_after_s, held_mib = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name, gateway(Path(name) / "g", SETTINGS) as server:
        async with loaded_session(server) as (_, session, reader):
            for _ in range(ROUNDS):
                await reader.ask()
                await asyncio.sleep(seconds * ALONE_PART)
                alone.append(await reader.ask())
                before = server.rss_bytes()
                child = Child("stalled", "--target", server.target, "--session", session.session_id, "--policy", policy)
                try:
                    await child.line()
                    await reader.ask()
                    peak, began, gone_s, held = before, time.monotonic(), 0.0, 0
                    while time.monotonic() - began < seconds:
                        await asyncio.sleep(LOOK_S)
                        peak = max(peak, server.rss_bytes())
                        others = (await session.subscribers()).subscribers[1:]
                        held = max(held, sum(subscriber.backlog_bytes for subscriber in others))
                        if not others and not gone_s:
                            gone_s = time.monotonic() - began
                    beside.append(await reader.ask())
                    growth_mib.append((peak - before) / MIB / STALLED)
                    held_mib.append(held / MIB / STALLED)
                    left.append(len(others))
                    cut_after_s.append(gone_s)
                finally:
                    child.end()
                await asyncio.sleep(SETTLE_S)
    p99_alone, p99_beside = ([run["p99_ms"] for run in runs] for runs in (alone, beside))
    return {
        "p50_ms_alone": rounded(run["p50_ms"] for run in alone),
        "p50_ms_beside_stalled": rounded(run["p50_ms"] for run in beside),
        "p99_ms_alone": rounded(p99_alone),
        "p99_ms_beside_stalled": rounded(p99_beside),
        "p99_ms_difference": round(statistics.median(p99_beside) - statistics.median(p99_alone), 2),
        "events": int(sum(run["events"] for run in (*alone, *beside))),
        "missed": int(beside[-1]["missed"]),
        "gaps": int(beside[-1]["gaps"]),
        "stalled_left": left,
        "cut_after_s": rounded(cut_after_s),
        "rss_growth_mib": rounded(growth_mib),
        "held_mib": rounded(held_mib),
    }


def rounded(figures: Any) -> list[float]:
    return [round(figure, 2) for figure in figures]


async def main(seconds: float, policies: list[str]) -> None:
    began = time.monotonic()
    result = {policy: await measured(policy, seconds) for policy in policies}
    figures = {"events_per_s": RATE, "stalled": STALLED, "seconds": seconds, "rounds": ROUNDS, **result}
    print(json.dumps({**figures, "elapsed_s": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the stalled ones stand still, each time")
    parser.add_argument("--policy", action="append", default=[], help="one policy; may be given several times")
    parser.add_argument("--role", choices=("healthy", "stalled"), help=argparse.SUPPRESS)
    parser.add_argument("--target", default="", help=argparse.SUPPRESS)
    parser.add_argument("--session", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.role:
        case "healthy":
            uvloop.run(healthy(options.target, options.session))
        case "stalled":
            uvloop.run(stalled(options.target, options.session, options.policy[0]))
        case _:
            asyncio.run(main(options.seconds, options.policy or list(POLICIES)))
