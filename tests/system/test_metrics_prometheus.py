"""A real Prometheus reads a loaded gateway, and each alert that is shipped fires when its fault is injected."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.clients import Client, refused
from support.keys import EVERYTHING, client_with, opened_store
from support.prometheus import Prometheus, free_port, impatient, needs_prometheus, prometheus
from support.repository import ROOT
from support.restarts import Restarts, restarts

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.event_service_pb2 import StartPosition
from mxgw.v1.events_pb2 import Position
from mxgw_acl.keys import Constraints
from mxgw_acl.store import KeyWishes

pytestmark = [pytest.mark.asyncio, needs_prometheus]

MONITORING = ROOT / "docs" / "monitoring"
RULES = (MONITORING / "alerts.yml").read_text()
ALERTS = set(re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE))
# A stalled reader's transport takes little, so that its lag shows at once.
BOUNDED = (("grpc.http2.bdp_probe", 0),)
# Decides about access, and fails at a signal.
TOKENS = """
import asyncio, contextlib, signal
from mxgw_core.api import hookimpl

class Plugin:
    @hookimpl
    def mxgw_authorize(self, request):
        return None

    @hookimpl
    @contextlib.asynccontextmanager
    async def mxgw_gateway_context(self, gateway):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.fail())
            yield

    async def fail(self):
        failing = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, failing.set)
        await failing.wait()
        raise ConnectionError("the file of tokens is gone")
"""


def settings_of(port: int) -> str:
    return f"""
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
items = 100
rate = 4000.0
[events]
overflow_drain_s = 0.2
[plugins]
enabled = ["backpressure", "replay", "reattach", "acl", "metrics", "tokens"]
[plugins.acl]
directory = "acl"
environment = "test"
[plugins.metrics]
listen = "127.0.0.1:{port}"
[plugins.replay]
events = 1024
detach_grace_seconds = 30.0
[plugins.backpressure]
queue_events = 500
client_policies = ["disconnect", "block", "sample"]
block_with_many = true
block_timeout_s = 30.0
"""


@pytest.fixture(autouse=True)
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the plugin `tokens` for the processes of the test."""
    (tmp_path / "tokens.dist-info").mkdir()
    (tmp_path / "tokens.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tokens\nVersion: 1.0\n")
    entries = "".join(f"[mxgw.{group}]\ntokens = tokens_of_test:Plugin\n" for group in ("plugins", "access"))
    (tmp_path / "tokens.dist-info" / "entry_points.txt").write_text(entries)
    (tmp_path / "tokens_of_test.py").write_text(TOKENS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@asynccontextmanager
async def monitored(rules: str = "") -> AsyncIterator[tuple[Restarts, Client, Prometheus]]:
    port = free_port()
    async with restarts(settings_of(port)) as gateway:
        with opened_store(gateway.data / "acl") as store:
            _, key = store.create(KeyWishes("monitored", EVERYTHING, Constraints(), None, ()), "test")
        await gateway.start()
        async with (
            client_with(gateway.target, key.text(), options=BOUNDED) as client,
            prometheus(f"127.0.0.1:{port}", rules) as server,
        ):
            yield gateway, client, server


async def loaded(client: Client) -> ss.Session:
    session = await client.open()
    await client.subscribe(session.session_id, [f"Load.Item{number:05d}" for number in range(1, 101)])
    return session


def dashboard_expressions() -> list[str]:
    """Return what the panels of the dashboard ask for, as Grafana would send it."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    variables = {"$job": "mxgw", "$instance": ".*", "$__rate_interval": "1m"}
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    for name, value in variables.items():
        found = [expression.replace(name, value) for expression in found]

    assert "$" not in "".join(found)

    return found


async def until_seen(server: Prometheus, expression: str) -> list[Any]:
    """Wait until a query has an answer, and return it."""
    async with asyncio.timeout(60):
        while not (found := await server.query(expression)):  # noqa: ASYNC110  another process
            await asyncio.sleep(0.1)
    return found


async def test_each_alert_fires_when_its_fault_is_injected() -> None:
    async with (
        monitored(impatient(RULES)) as (gateway, client, server),
        client_with(gateway.target) as nobody,
    ):
        sessions = [await loaded(client) for _ in range(3)]
        reader = client.stream(sessions[0].session_id)
        await reader.read()
        # Counters are seen before anything is counted.
        await until_seen(server, 'mxgw_sessions{state="ready"} == 3')
        await until_seen(server, "rate(mxgw_events_received_total[10s]) > 5000")
        answers = [await server.query(expression) for expression in dashboard_expressions()]
        quiet = await server.firing()
        stalled = client.stream(sessions[1].session_id, policy=es.OverflowPolicyChoice(name="block"))
        await stalled.read()
        # The other faults take place while that one grows.
        ahead = StartPosition(after=Position(epoch=sessions[2].epoch, sequence=10**9))
        await client.stream(sessions[2].session_id, ahead).read()
        for _ in range(8):
            await refused(nobody.sessions.ListSessions(ss.ListSessionsRequest()))
        # Not an orderly end: what is measured is an event loop that does not get its turn.
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.3)
        gateway.process.send_signal(signal.SIGCONT)
        os.kill(sessions[2].worker_pid, signal.SIGKILL)
        faulty = await server.until(
            "MxgwGaps",
            "MxgwLag",
            "MxgwAuthenticationFailures",
            "MxgwReplayHorizonShort",
            "MxgwPumpStall",
            "MxgwEventLoopDelay",
            "MxgwWorkerFaults",
        )
        os.kill(gateway.process.pid, signal.SIGUSR1)
        failed = await server.until("MxgwPluginFailure", "MxgwAccessControlFailed")
        await gateway.kill()
        os.kill(sessions[0].worker_pid, signal.SIGKILL)
        down = await server.until("MxgwDown")
        await gateway.start()
        adopted = await server.until("MxgwAdoptionFailed")

    # Each is an expression that Prometheus understands, and most have something to show.
    assert sum(map(bool, answers)) > 0.7 * len(answers)
    assert quiet <= {"MxgwReplayHorizonShort"}
    assert faulty | failed | down | adopted == ALERTS - {"MxgwSourceLost"}
