"""All subscribers are cut at the same moment: how soon all are back, and whether another stream is disturbed.

    python benchmarks/resume_storm.py --rounds 3

Eight sessions have eight subscribers each. Each subscriber has its own connection, which passes through a relay in this
process. The relay resets all connections at once, several times, and the clients resume by themselves. A ninth session
has a subscriber in a separate process, without the relay, which measures the delay from the worker's clock to its own.
Calm and stormy phases take turns, and their medians are compared. Every stream is checked
(docs/reference/streams.md#the-promises). The output is one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from mxgw_client import EventBatch, EventStream, Gap, Heartbeat, Session, StreamCut, StreamOpened, connect
from mxgw_client.frames import Frame
from mxgw_core.api.types import Position
from mxgw_core.testing.checker import Lost, Observation, Opened, Passed, StreamChecker, seen

from bench.listener import Child
from bench.serving import gateway

SESSIONS = SUBSCRIBERS = 8
RATE = 20
HEALTHY_RATE = 1_000
ITEMS, HEALTHY_ITEMS = 20, 100
STORM_EVERY_S, SETTLE_S = 1.5, 2.0
SETTINGS = f"""
[plugins]
enabled = ["backpressure", "replay"]
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
rate = {RATE}
items = {ITEMS}
[backends.paced{HEALTHY_RATE}]
kind = "sim"
profile = "load"
rate = {HEALTHY_RATE}
items = {HEALTHY_ITEMS}
"""


class Relay:
    """Passes bytes between clients and the gateway, and can reset all connections."""

    def __init__(self, path: str, tasks: asyncio.TaskGroup) -> None:
        self._path = path
        self._tasks = tasks
        self._writers: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Start the relay, and return the address for clients."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._path)
        self._writers.append((writer, up_writer))
        self._tasks.create_task(self._pass(reader, up_writer))
        self._tasks.create_task(self._pass(up_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def reset(self) -> int:
        """Reset all connections, and return their number."""
        writers, self._writers = self._writers, []
        for client, up in writers:
            if not client.transport.is_closing():
                raw: socket.socket = client.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
            up.transport.abort()
        return len(writers)

    def stop(self) -> None:
        self.reset()
        if self._server is not None:
            self._server.close()


class Subscriber:
    """One stream with its checker, and the time at which it was open again after its last cut."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self.checker = StreamChecker(may_lose=lambda _: False)
        self.cuts = 0
        self.back_at = 0.0

    async def follow(self, stop: asyncio.Event) -> None:
        self.checker.attach()
        async for frame in self.stream.batches():
            if isinstance(frame, StreamCut):
                self.cuts += 1
                self.checker.end(frame.error.reason or type(frame.error).__name__)
                at = frame.position
                self.checker.attach(None if at is None else Position(at.epoch, at.sequence))
                continue
            if isinstance(frame, StreamOpened):
                self.back_at = time.perf_counter()
            for observation in observations(frame):
                self.checker.observe(observation)
            if stop.is_set():
                break
        self.checker.end("CLIENT")
        self.checker.finish()
        await self.stream.close()


def observations(frame: Frame) -> Iterator[Observation]:
    match frame:
        case EventBatch():
            yield from seen(frame.raw, lambda event: event.data_change.value.double)
        case StreamOpened(position=at):
            yield Opened(
                at.epoch, at.sequence, frame.head_sequence, frame.oldest_sequence, frame.was_resuming, frame.recovered
            )
        case Gap():
            yield Lost(frame.epoch, frame.first_lost, frame.last_lost, frame.reason.name, frame.count, frame.runs)
        case Heartbeat(position=at):
            yield Passed(at.epoch, at.sequence)


async def storms(relay: Relay, subscribers: list[Subscriber], calm: asyncio.Event, took: list[float]) -> None:
    """Cut all subscribers again and again until `calm` is set.

    Add to `took` how many seconds each needed to be back.
    """
    while not calm.is_set():
        before = [one.cuts for one in subscribers]
        began = time.perf_counter()
        relay.reset()
        missing = list(zip(subscribers, before, strict=True))
        while missing := [(one, cuts) for one, cuts in missing if one.cuts <= cuts or one.back_at <= began]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        took += [one.back_at - began for one in subscribers]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, began + STORM_EVERY_S - time.perf_counter())):
                await calm.wait()


async def subscribe(session: Session, items: int) -> None:
    outcomes = await session.subscribe_bulk([f"Load.Item{number:05d}" for number in range(1, items + 1)])
    for outcome in outcomes:
        outcome.raise_if_failed()


async def measure(target: str, rounds: int, seconds: float) -> dict[str, object]:
    delays: dict[str, list[float]] = {"calm": [], "storm": []}
    took: list[float] = []
    async with asyncio.TaskGroup() as relaying, AsyncExitStack() as stack:
        relay = Relay(target.removeprefix("unix:"), relaying)
        address = await relay.start()
        stack.callback(relay.stop)
        direct = await stack.enter_async_context(connect(target))
        subscribers: list[Subscriber] = []
        for _ in range(SESSIONS):
            session = await stack.enter_async_context(direct.open_session(client_name="storm"))
            await subscribe(session, ITEMS)
            for _ in range(SUBSCRIBERS):
                client = await stack.enter_async_context(connect(address))
                far = await stack.enter_async_context(client.attach_session(session.session_id))
                subscribers.append(Subscriber(far.events()))
        session = await stack.enter_async_context(direct.open_session(backend=f"paced{HEALTHY_RATE}"))
        listener = Child.listener(target, session.session_id)
        stack.callback(listener.end)
        await subscribe(session, HEALTHY_ITEMS)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as following:
            for one in subscribers:
                following.create_task(one.follow(stop))
            await asyncio.sleep(SETTLE_S)
            for number in range(2 * rounds):
                kind = ("calm", "storm", "storm", "calm")[number % 4]
                calm = asyncio.Event()
                async with asyncio.TaskGroup() as storming:
                    if kind == "storm":
                        storming.create_task(storms(relay, subscribers, calm, took))
                    await listener.ask()
                    await asyncio.sleep(seconds)
                    result = await listener.ask()
                    calm.set()
                delays[kind].append(result["p99_ms"])
            stop.set()
    took.sort()
    calm_ms, storm_ms = statistics.median(delays["calm"]), statistics.median(delays["storm"])
    return {
        "sessions": SESSIONS,
        "subscribers": len(subscribers),
        "events_per_s": RATE * len(subscribers) + HEALTHY_RATE,
        "cuts": sum(one.cuts for one in subscribers),
        "back_p50_s": round(took[len(took) // 2], 3),
        "back_p99_s": round(took[len(took) * 99 // 100], 3),
        "back_max_s": round(took[-1], 3),
        "healthy_p99_ms_calm": round(calm_ms, 2),
        "healthy_p99_ms_storm": round(storm_ms, 2),
        "healthy_p99_rise_ms": round(storm_ms - calm_ms, 2),
        "events": sum(one.checker.events for one in subscribers),
        "gaps": sum(one.checker.gaps for one in subscribers),
        "violations": sum(one.checker.counts.total() for one in subscribers),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often calm and storm take turns")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one turn")
    arguments = parser.parse_args()
    random.seed(1)  # so that the random delays of the clients are the same in each run
    with tempfile.TemporaryDirectory(prefix="mxgw-bench-") as name, gateway(Path(name) / "g", SETTINGS) as server:
        print(json.dumps(asyncio.run(measure(server.target, arguments.rounds, arguments.seconds))))


if __name__ == "__main__":
    main()
