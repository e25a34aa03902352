"""What is measured: mxgw, the floors and the peers, all behind one method, `turn`.

A system is started once and takes turns; each turn starts a producer and one process with all subscribers, and returns
what they found. Every system gets the same events, the same window and the same way of counting.

More than 400 lines: each system is a short class, and only side by side can it be seen that they are treated alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mxgw_client import Gateway, Session, connect

from bench.dialects import nats_connected, nats_request, stream_request
from bench.processes import (
    BenchmarkFailed,
    cpu_s,
    environment,
    first_line,
    free_port,
    module,
    running,
    started,
    wait_listening,
)
from bench.window import EVENTS, Window

STREAM_EVENTS = "/mxgw.v1.EventService/StreamEvents"
# What each of many sessions may be ahead.
LEAST_WINDOW_EVENTS = 20_000
READER_TIMEOUT_S = 120.0
WARM_UP_S = 0.4
SETTLE_S, SETTLE_LOOK_S, IDLE_SHARE = 5.0, 0.04, 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """One turn: how many subscribers, for how long, at which rate (0: as fast as goes), and who makes the events."""

    subscribers: int
    seconds: float
    rate: float = 0
    # Events are encoded one by one, as a real source must; else they are made beforehand.
    encode: bool = False
    # mxgw: sessions, each with so many subscribers.
    sessions: int = 1
    # mxgw: subscribers see only some of the events, so numbers have holes.
    is_filtered: bool = False
    # Read so many retained events instead of live ones, from the oldest on.
    replay_events: int = 0


class System(ABC):
    """A system under test. Use as `with system.running(directory): system.turn(load)`."""

    name: str
    # What a reader of the figures has to know.
    note: ClassVar[str] = ""
    program: ClassVar[str] = ""

    @classmethod
    def is_installed(cls) -> bool:
        return not cls.program or shutil.which(cls.program) is not None

    @contextmanager
    def running(self, directory: Path) -> Iterator[System]:
        """Run the server in a directory of its own, below `directory`."""
        self.directory = directory / re.sub(r"\W+", "-", self.name)
        # A Unix socket's path has little room.
        self.directory = Path(tempfile.mkdtemp(prefix=self.directory.name[:12], dir=directory))
        with ExitStack() as stack:
            self.start(stack)
            yield self

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Start the server, to be ended by `stack`; sets `target` and `server_pid`."""

    @abstractmethod
    def turn(self, load: Load) -> dict[str, Any]:
        """Measure once.

        Raises:
            BenchmarkFailed: a process failed, or an event was lost, repeated or out of order.
        """

    target: str
    server_pid: int

    def read(self, load: Load, pids: list[list[int]], **arguments: object) -> dict[str, Any]:
        """Run the subscribers and return what they found."""
        described = {
            "target": self.target,
            "subscribers": load.subscribers * load.sessions,
            "seconds": load.seconds,
            "warm_up_s": 0 if load.replay_events else WARM_UP_S,
            "stamps": bool(load.rate),
            "is_filtered": load.is_filtered,
            "target_events": load.replay_events,
            "pids": pids,
            **arguments,
        }
        done = subprocess.run(
            module("reader", json.dumps(described)),
            check=False,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=READER_TIMEOUT_S,
        )
        if done.returncode:
            raise BenchmarkFailed(f"{self.name}: {done.stderr.strip()[-2000:]}")
        result: dict[str, Any] = json.loads(done.stdout)
        result["events_per_s"] = result["events"] / result["seconds"]
        if result["events"]:
            result["cpu_s_per_million"] = result["cpu_s"][0] / result["events"] * 1e6
        return result


def settle(pids: list[int]) -> None:
    """Wait until a server is idle: it may still be busy with what an earlier turn left."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        before = cpu_s(pids)
        time.sleep(SETTLE_LOOK_S)
        if cpu_s(pids) - before < SETTLE_LOOK_S * IDLE_SHARE:
            return


# Limits that no reader of the harness reaches; everything else is as it comes.
ROOMY = """
[events]
queue_events = 150_000
queue_bytes = 40_000_000
[workers]
outbox_events = 250_000
outbox_bytes = 50_000_000
"""
ROOMY_SECTIONS = {
    "backpressure": "queue_events = 150_000\nqueue_bytes = 40_000_000\nmaximum_subscribers = 1000\n",
    "replay": "events = {retained}\nbytes = {retained_bytes}\n",
    "acl": 'directory = "{directory}/acl"\n',
}
RETAINED_EVENTS = 300_000


class Mxgw(System):
    """The gateway, with real workers whose backend makes the harness's events.

    `plugins` are enabled; `settings` are appended to the file. `roomy`: queues and logs hold what the window lets run
    ahead; otherwise every limit is as it comes.
    """

    name = "mxgw"
    worker = "real_worker"

    @property
    def launcher(self) -> tuple[str, ...]:
        """What Python runs as `mxgw`: here with a worker of the harness."""
        return ("-m", "bench.launch", self.worker)

    def __init__(
        self,
        *,
        name: str = "",
        plugins: tuple[str, ...] = ("backpressure", "replay"),
        settings: str = "",
        roomy: bool = True,
        retained_events: int = RETAINED_EVENTS,
    ) -> None:
        self.name = name or type(self).name
        self.plugins = plugins
        self.more_settings = settings
        self.roomy = roomy
        self.retained_events = retained_events
        # Presented by every call once a key was made.
        self.api_key = ""
        # Presented by subscribers, when it is another one.
        self.stream_key = ""

    def settings(self) -> str:
        """Return the settings file."""
        enabled = ", ".join(f'"{name}"' for name in self.plugins)
        text = ROOMY if self.roomy else ""
        text += f"""
[plugins]
enabled = [{enabled}]
[backends]
default = "bench"
[backends.bench]
kind = "bench"
[backends.bench1000]
kind = "bench"
rate = 1000
[backends.bench1]
kind = "bench"
rate = 1
[backends.bench5000]
kind = "bench"
rate = 5000
[backends.sim]
kind = "sim"
profile = "load"
items = 10_000
rate = 0
"""
        for plugin in self.plugins:
            if plugin in ROOMY_SECTIONS and (self.roomy or plugin == "acl"):
                section = ROOMY_SECTIONS[plugin].format(
                    directory=self.directory, retained=self.retained_events, retained_bytes=self.retained_events * 400
                )
                text += f"[plugins.{plugin}]\n{section}"
        return text + self.more_settings

    def start(self, stack: ExitStack) -> None:
        (self.directory / "settings.toml").write_text(self.settings())
        arguments = ["serve", "--json", "--listen", "127.0.0.1:0", "--set", f"gateway.data_dir={self.directory}/d"]
        command = [sys.executable, *self.launcher, *arguments]
        server = stack.enter_context(running(command, self.directory))
        self.target = str(started(server, self.directory)["addresses"][0])  # type: ignore[index]
        self.server_pid = server.pid
        if "acl" in self.plugins:
            self.api_key = self.make_key()

    def make_key(self, *limits: str) -> str:
        """Return a new API key, made as an administrator makes one."""
        done = subprocess.run(
            [sys.executable, "-m", "mxgw_core.cli.main", "keys", "create", "bench", "--json", *limits],
            check=False,
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BenchmarkFailed(f"no key could be made: {done.stderr}")
        return str(json.loads(done.stdout)["key"])

    def turn(self, load: Load) -> dict[str, Any]:
        return asyncio.run(self._turn(load))

    def connect(self, api_key: str = "") -> Gateway:
        """Return the gateway for the client library."""
        key = api_key or self.api_key
        return connect(self.target, api_key=key or None, insecure_api_key=bool(key))

    async def _turn(self, load: Load) -> dict[str, Any]:
        await asyncio.to_thread(settle, [self.server_pid])
        Window.named().reset(max(EVENTS // load.sessions, LEAST_WINDOW_EVENTS))
        backend = f"bench{load.rate:.0f}" if load.rate else "bench"
        async with self.connect() as gateway, AsyncExitStack() as stack:
            requests: list[str] = []
            for _ in range(load.sessions):
                session = await stack.enter_async_context(gateway.open_session(backend=backend))
                await self.subscribe(session)
                requests.append(stream_request(session.session_id).hex())
            arguments = {"path": STREAM_EVENTS, "requests": requests, "stride": self.worker == "premade_worker"}
            if key := self.stream_key or self.api_key:
                arguments["metadata"] = {"authorization": f"Bearer {key}"}
            pids = [[self.server_pid], children_of(self.server_pid)]
            for _ in range(2 if load.replay_events else 1):  # the first one fills the log
                result = await asyncio.to_thread(self.read, load, pids, dialect="grpc", **arguments)
            return result

    async def subscribe(self, session: Session) -> None:
        await session.subscribe(*(f"Bench.Item{number:03d}" for number in range(1, 101)))


class MxgwPremade(Mxgw):
    """The gateway alone: its worker sends events that were made beforehand."""

    name = "mxgw gateway"
    worker = "premade_worker"

    async def subscribe(self, session: Session) -> None:
        pass


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


class Fed(System):
    """A system with a producer of its own, `bench.source`."""

    protocol: ClassVar[str]
    dialect: ClassVar[str]
    options: ClassVar[dict[str, object]] = {}
    source_target: str = ""

    def prepare(self) -> None:
        """Bring the server to the state in which every turn begins."""

    def turn(self, load: Load) -> dict[str, Any]:
        settle([self.server_pid])
        Window.named().reset()
        self.prepare()
        described = {
            "protocol": self.protocol,
            "target": self.source_target or self.target,
            "rate": load.rate,
            "encode": load.encode,
        }
        with running(module("source", json.dumps(described)), self.directory, log="source.log") as source:
            first_line(source, self.directory, "source.log")
            pids = [[self.server_pid], [source.pid]]
            for _ in range(2 if load.replay_events else 1):  # the first one fills the store
                result = self.read(load, pids, dialect=self.dialect, **self.options)
            return result


class Floor(Fed):
    """A server of `bench.floors`."""

    def start(self, stack: ExitStack) -> None:
        server = stack.enter_context(running(module("floors", self.name, str(self.directory)), self.directory))
        ready = started(server, self.directory)
        self.target = str(ready["addresses"][0])  # type: ignore[index]
        self.source_target = str(ready["source"])
        self.server_pid = server.pid


class Raw(Floor):
    name = "raw"
    protocol = dialect = "raw"
    note = "bytes copied from one socket to N with asyncio and uvloop; no protocol at all"


class Relay(Floor):
    name = "relay"
    protocol = "relay"
    dialect = "grpc"
    options: ClassVar[dict[str, object]] = {"path": "/bench/relay", "requests": [""], "stride": True}
    note = "grpc.aio moving bytes, nothing else"


class Daemon(Fed):
    """A peer: a server with a configuration of its own, on a loopback port."""

    def command(self, port: int) -> list[str]:
        raise NotImplementedError

    def start(self, stack: ExitStack) -> None:
        port = free_port()
        server = stack.enter_context(running(self.command(port), self.directory))
        wait_listening(port, server, self.directory)
        self.target = f"127.0.0.1:{port}"
        self.server_pid = server.pid

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)


class Nats(Daemon):
    name = "NATS core"
    program = "nats-server"
    protocol = dialect = "nats"
    note = "no replay, no order of commands and events, a slow reader is cut at 64 MiB"

    def command(self, port: int) -> list[str]:
        text = f'listen: "127.0.0.1:{port}"\nping_interval: "10m"\n{self.extra()}'
        return [self.program, "-c", self.write("nats.conf", text)]

    def extra(self) -> str:
        return ""


class JetStream(Nats):
    name = "NATS JetStream"
    dialect = "jetstream"
    note = (
        "memory storage, replay on, push consumers without acknowledgement; events are not acknowledged to the source"
    )

    def extra(self) -> str:
        return f'jetstream: {{store_dir: "{self.directory}/js", max_mem: 2G}}\n'

    def prepare(self) -> None:
        with nats_connected(self.target) as connection:
            with suppress(ConnectionError):  # there is none before the first turn
                nats_request(connection, "$JS.API.STREAM.DELETE.events", {})
            config = {
                "name": "events",
                "subjects": ["mxgw"],
                "storage": "memory",
                "retention": "limits",
                "discard": "old",
                "max_msgs": 1_000_000,
                "max_bytes": -1,
                "max_consumers": -1,
                "num_replicas": 1,
            }
            nats_request(connection, "$JS.API.STREAM.CREATE.events", config)


class RedisPubSub(Daemon):
    name = "Redis pub/sub"
    program = "redis-server"
    protocol = dialect = "redis_pubsub"
    note = "no replay, a slow reader is cut"

    def command(self, port: int) -> list[str]:
        text = f"""bind 127.0.0.1
port {port}
dir {self.directory}
save ""
appendonly no
client-output-buffer-limit pubsub 0 0 0
"""
        return [self.program, self.write("redis.conf", text)]


class RedisStream(RedisPubSub):
    name = "Redis Streams"
    protocol = dialect = "redis_stream"
    note = "replay on, in memory; a reader asks for each batch of up to 4,000"

    def prepare(self) -> None:
        from bench.dialects import connected

        with connected(self.target) as connection:
            connection.sendall(b"DEL mxgw\r\n")
            connection.recv(64)


class MosquittoQos0(Daemon):
    name = "Mosquitto QoS 0"
    program = "mosquitto"
    dialect = "mqtt"
    protocol = "mqtt0"
    options: ClassVar[dict[str, object]] = {"qos": 0}
    note = "no replay; queues unlimited"

    @classmethod
    def is_installed(cls) -> bool:
        return cls._program() is not None

    @staticmethod
    def _program() -> str | None:
        return shutil.which("mosquitto", path=f"/usr/sbin:{os.environ.get('PATH', '')}")

    def command(self, port: int) -> list[str]:
        text = f"""listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
"""
        return [str(self._program()), "-c", self.write("mosquitto.conf", text)]


class MosquittoQos1(MosquittoQos0):
    name = "Mosquitto QoS 1"
    protocol = "mqtt1"
    options: ClassVar[dict[str, object]] = {"qos": 1}
    note = "every event is acknowledged by every reader; sessions are not kept"


FLOORS: tuple[type[System], ...] = (Raw, Relay)
PEERS: tuple[type[System], ...] = (Nats, JetStream, RedisPubSub, RedisStream, MosquittoQos0, MosquittoQos1)
