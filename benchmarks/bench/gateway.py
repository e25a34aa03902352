"""mxgw as a system to measure, with real workers or with events that were made beforehand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from mxgw_client import Gateway, Session, connect

from bench import serving
from bench.dialects import STREAM_EVENTS, stream_request
from bench.processes import BenchmarkFailed, environment
from bench.systems import Load, System, settle
from bench.window import EVENTS, Window

# Limits of queues that no reader of the harness reaches. All other settings are the defaults.
ROOMY = """
[events]
queue_events = {queue}
queue_bytes = {queue_bytes}
[workers]
outbox_events = 250_000
outbox_bytes = 50_000_000
"""
ROOMY_SECTIONS = {
    "backpressure": "queue_events = {queue}\nqueue_bytes = {queue_bytes}\nmaximum_subscribers = 1000\n",
    "replay": "events = {retained}\nbytes = {retained_bytes}\n",
    "acl": 'directory = "{directory}/acl"\n',
}
RETAINED_EVENTS = 300_000
# More bytes than any event has.
_EVENT_BYTES = 400


class Mxgw(System):
    """The gateway with real workers, whose backend makes the events of the harness.

    `plugins` are enabled, and `settings` are appended to the settings file. With `roomy`, queues and logs are large
    enough for the `window_events` events that a producer can be ahead; otherwise all limits are the defaults.
    """

    name = "mxgw"
    worker = "real_worker"

    @property
    def launcher(self) -> tuple[str, ...]:
        """The arguments of Python that start `mxgw` with a worker of the harness."""
        return ("-m", "bench.launch", self.worker)

    def __init__(
        self,
        *,
        name: str = "",
        plugins: tuple[str, ...] = ("backpressure", "replay"),
        settings: str = "",
        roomy: bool = True,
        retained_events: int = RETAINED_EVENTS,
        window_events: int = EVENTS,
    ) -> None:
        self.name = name or type(self).name
        self.plugins = plugins
        self.more_settings = settings
        self.roomy = roomy
        self.retained_events = retained_events
        self.window_events = window_events
        # Sent with every call after a key was made; empty before.
        self.api_key = ""
        # Sent by subscribers that use another key; otherwise empty.
        self.stream_key = ""

    def settings(self) -> str:
        """Return the text of the settings file."""
        enabled = ", ".join(f'"{name}"' for name in self.plugins)
        queue = self.window_events * 3 // 2
        limits = {"queue": queue, "queue_bytes": queue * _EVENT_BYTES}
        text = ROOMY.format(**limits) if self.roomy else ""
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
                    directory=self.directory,
                    retained=self.retained_events,
                    retained_bytes=self.retained_events * _EVENT_BYTES,
                    **limits,
                )
                text += f"[plugins.{plugin}]\n{section}"
        return text + self.more_settings

    def start(self, stack: ExitStack) -> None:
        server = stack.enter_context(
            serving.gateway(self.directory, self.settings(), launcher=self.launcher, listen="127.0.0.1:0")
        )
        self.target, self.server_pid = server.target, server.pid
        if "acl" in self.plugins:
            self.api_key = self.make_key()

    def make_key(self, *limits: str) -> str:
        """Create an API key with the command line, as an administrator does, and return it."""
        done = subprocess.run(
            [sys.executable, "-m", "mxgw_cli", "keys", "create", "bench", "--json", *limits],
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
        """Return a connection of the client library to this gateway."""
        key = api_key or self.api_key
        return connect(self.target, api_key=key or None, insecure_api_key=bool(key))

    async def _turn(self, load: Load) -> dict[str, Any]:
        await asyncio.to_thread(settle, [self.server_pid])
        Window.named().reset(self.window_events, load.sessions)
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
            for _ in range(2 if load.replay_events else 1):  # before events are replayed, a first run fills the log
                result = await asyncio.to_thread(self.read, load, pids, dialect="grpc", **arguments)
            return result

    async def subscribe(self, session: Session) -> None:
        await session.subscribe(*(f"Bench.Item{number:03d}" for number in range(1, 101)))


class MxgwPremade(Mxgw):
    """The gateway with a worker that sends events made beforehand, so that only the gateway's own cost is measured."""

    name = "mxgw gateway"
    worker = "premade_worker"

    async def subscribe(self, session: Session) -> None:
        pass


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]
