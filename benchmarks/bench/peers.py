"""The floors, and the peers, which are systems that people could use instead of mxgw.

Each server runs on loopback and has its own directory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from contextlib import ExitStack, suppress
from typing import Any, ClassVar

from bench.dialects import connected, nats_connected, nats_request
from bench.processes import (
    answer,
    first_line,
    free_port,
    module,
    running,
    started,
    wait_listening,
)
from bench.systems import Load, System, settle
from bench.window import Window


class Fed(System):
    """A system whose events come from a producer of the harness, `bench.source`."""

    protocol: ClassVar[str]
    dialect: ClassVar[str]
    options: ClassVar[dict[str, object]] = {}
    source_target: str = ""

    def prepare(self) -> None:
        """Bring the server into the state in which every turn begins."""

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
            for _ in range(2 if load.replay_events else 1):  # before events are replayed, a first run fills the store
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
    """A peer: a server with its own configuration file, on a port of loopback."""

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
        "memory storage, replay on, push consumers without acknowledgement; events are not acknowledged to the source; "
        "a reader may be 1 GB behind instead of 64 MiB, or a replay would be cut"
    )

    def extra(self) -> str:
        return f"""jetstream: {{store_dir: "{self.directory}/js", max_mem: 2G}}
max_pending: 1000000000
write_deadline: "60s"
"""

    def prepare(self) -> None:
        with nats_connected(self.target) as connection:
            with suppress(ConnectionError):  # before the first turn there is no stream to delete
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


class OpcUa(System):
    name = "asyncua server"
    note = (
        "one variable in subscriptions of 10 ms, queues of 100,000; its clients are asyncua's, so they parse every "
        "value, in a process of their own"
    )

    @classmethod
    def is_installed(cls) -> bool:
        return importlib.util.find_spec("asyncua") is not None

    def start(self, stack: ExitStack) -> None:
        described = json.dumps({"port": free_port()})
        server = stack.enter_context(running(module("opcua", described), self.directory))
        self.target = str(started(server, self.directory)["addresses"][0])  # type: ignore[index]
        self.server_pid = server.pid

    def turn(self, load: Load) -> dict[str, Any]:
        settle([self.server_pid])
        Window.named().reset()
        described = {
            "target": self.target,
            "subscribers": load.subscribers,
            "seconds": load.seconds,
            "pid": self.server_pid,
        }
        return answer("opcua", described, self.name)


FLOORS: tuple[type[System], ...] = (Raw, Relay)
PEERS: tuple[type[System], ...] = (Nats, JetStream, RedisPubSub, RedisStream, MosquittoQos0, MosquittoQos1, OpcUa)
