"""How long a list of all active alarms takes to arrive, and whether many clients follow a storm of alarms in order.

    python benchmarks/alarms.py --alarms 10000 --rate 1000 --clients 8 --seconds 10

In the first part all alarms of the simulator are active. A snapshot is timed from the call to its end, first for one
client alone, then for all clients at once. In the second part, the storm, the simulator has twice as many alarms, half
of them are active, and they change at the given rate. Each client checks that no sequence is missing, and at the end
all clients must have seen the same. The latency is the time from the moment when the gateway learns of a change to the
moment when the client has it. The output is one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import grpc.aio

from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1 import alarm_service_pb2_grpc
from mxgw.v1.alarms_pb2 import ALARM_PROVIDER_PRIMARY
from mxgw.v1.event_service_pb2 import StartPosition

from bench.serving import Server, gateway

READY_TIMEOUT_S = 30.0
_SETTINGS = """
[plugins]
enabled = ["alarms"]
[plugins.alarms]
queue_events = 50000
discover = false
[backends.sim]
alarms = {points}
alarm_rate = {rate}
alarm_share = {share}
"""


@dataclass
class Follower:
    """What one client of the storm received."""

    events: int = 0
    missing: int = 0
    gaps: int = 0
    last: int = 0
    first: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    digests: dict[int, bytes] = field(default_factory=dict)

    def take(self, message: pb.StreamAlarmsResponse) -> None:
        """Count the events of a frame and check their sequences."""
        self.gaps += message.HasField("gap")
        now = time.time()
        for event in message.events.events:
            if self.last and event.sequence != self.last + 1:
                self.missing += 1
            self.first = self.first or event.sequence
            self.last = event.sequence
            self.events += 1
            told = event.transition.gateway_time
            self.latencies_ms.append((now - told.seconds - told.nanos / 1e9) * 1000)
            self.digests[event.sequence] = blake2b(event.SerializeToString(), digest_size=8).digest()


def stub_of(channel: grpc.aio.Channel) -> Any:
    return alarm_service_pb2_grpc.AlarmServiceStub(channel)


def channel_of(server: Server) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server.target, options=(("grpc.use_local_subchannel_pool", 1),))


async def ready(stub: Any, alarms: int) -> None:
    """Wait until the gateway has this many alarms."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while True:
            answer = await stub.QueryActiveAlarms(pb.QueryActiveAlarmsRequest(page_size=1))
            if answer.provider.provider == ALARM_PROVIDER_PRIMARY and answer.position.sequence > alarms:
                return
            await asyncio.sleep(0.1)


async def snapshot_s(server: Server) -> tuple[float, int]:
    """Return how many seconds a complete snapshot took, and how many alarms it had."""
    async with channel_of(server) as channel:
        await channel.channel_ready()
        began = time.perf_counter()
        count = 0
        stream = stub_of(channel).StreamAlarms(pb.StreamAlarmsRequest())
        async for message in stream:
            count += len(message.snapshot.alarms)
            if message.HasField("snapshot_complete"):
                break
        took_s = time.perf_counter() - began
        stream.cancel()
    return took_s, count


async def snapshots(server: Server, alarms: int, clients: int) -> dict[str, float]:
    """Time snapshots: first one after another, then for all clients at once."""
    async with channel_of(server) as channel:
        await ready(stub_of(channel), alarms)
    alone = [await snapshot_s(server) for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        together = [tasks.create_task(snapshot_s(server)) for _ in range(clients)]
    return {
        "snapshot_alarms": alone[0][1],
        "snapshot_alone_s": round(statistics.median(took for took, _ in alone), 3),
        "snapshot_alone_max_s": round(max(took for took, _ in alone), 3),
        "snapshot_together_max_s": round(max(task.result()[0] for task in together), 3),
    }


async def follow(server: Server, seconds: float) -> Follower:
    """Follow the alarms that change from now on for so many seconds."""
    follower = Follower()
    async with channel_of(server) as channel:
        stream = stub_of(channel).StreamAlarms(pb.StreamAlarmsRequest(start=StartPosition(now={})))
        try:
            async with asyncio.timeout(seconds):
                async for message in stream:
                    follower.take(message)
        except TimeoutError:
            stream.cancel()
    return follower


async def storm(server: Server, clients: int, seconds: float) -> dict[str, float]:
    """Let several clients follow, and compare what they received."""
    async with channel_of(server) as channel:
        await ready(stub_of(channel), 0)
    cpu_s = server.cpu_s()
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(follow(server, seconds)) for _ in range(clients)]
    cpu_s = server.cpu_s() - cpu_s
    seen = [task.result() for task in following]
    first, last = max(one.first for one in seen), min(one.last for one in seen)
    same = all(one.digests[n] == seen[0].digests[n] for one in seen for n in range(first, last + 1))
    latencies = sorted(latency for one in seen for latency in one.latencies_ms)
    return {
        "clients": clients,
        "transitions_per_s": round(min(one.events for one in seen) / seconds),
        "missing": sum(one.missing + one.gaps for one in seen),
        "all_saw_the_same": int(same and last > first),
        "latency_p50_ms": round(latencies[len(latencies) // 2], 1),
        "latency_p99_ms": round(latencies[len(latencies) * 99 // 100], 1),
        "gateway_cpu_percent": round(cpu_s / seconds * 100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alarms", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    figures: dict[str, float] = {"rate": asked.rate}
    with tempfile.TemporaryDirectory(prefix="mxgw-") as directory:
        quiet = _SETTINGS.format(points=asked.alarms, rate=0.0, share=1.0)
        with gateway(Path(directory) / "quiet", quiet) as server:
            figures |= asyncio.run(snapshots(server, asked.alarms, asked.clients))
        busy = _SETTINGS.format(points=asked.alarms * 2, rate=asked.rate, share=0.5)
        with gateway(Path(directory) / "busy", busy) as server:
            figures |= asyncio.run(storm(server, asked.clients, asked.seconds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
