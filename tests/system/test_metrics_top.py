"""`mxgw top` as a process of its own, against a gateway that serves, one that does not, and what is none."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from support.clients import Client, client_of, read_events
from support.prometheus import free_port
from support.scraping import scraped_gateway

from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

LOAD = {"backends.sim.profile": "load", "backends.sim.items": 10, "backends.sim.rate": 2000.0}


async def top(*arguments: str, enabled: str = '["metrics"]') -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
    environment |= {"MXGW_PLUGINS__ENABLED": enabled, "http_proxy": "http://127.0.0.1:1"}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mxgw_cli", "top", "--interval", "0.3", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        cwd="/",
    )


async def busy(client: Client) -> None:
    session = await client.open()
    await client.subscribe(session.session_id, ["Load.Item00001"])
    await read_events(client.stream(session.session_id), 100)


async def test_one_screen_of_text_and_one_document_of_json_say_what_is_going_on() -> None:
    async with scraped_gateway("replay", **LOAD) as gateway, client_of(gateway.target) as client:
        await busy(client)
        text = await top("--once", "--at", str(gateway.address))
        piped = await top("--at", str(gateway.address))
        document = await top("--once", "--json", "--at", str(gateway.address))

    for shown in (text, piped):
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(f"mxgw 0.1.0 at {gateway.address}  up ")
        assert "  sessions    1 of 64  ready 1  detached 0\n" in shown.stdout
        assert "\x1b" not in shown.stdout
    figures = json.loads(document.stdout)
    assert figures["sessions"] == {"ready": 1}
    assert figures["events_in_per_s"] > 500
    assert figures["plugins_up"] == 2


async def test_where_nothing_answers_it_says_what_to_do() -> None:
    port = free_port()
    done = await top("--once", "--at", f"127.0.0.1:{port}")

    assert done.returncode == 3
    assert f"no metrics at http://127.0.0.1:{port}/metrics: Connection refused." in done.stderr
    assert "the plugin metrics in its plugins.enabled" in " ".join(done.stderr.split())
    assert not done.stdout


async def test_the_port_of_the_grpc_services_is_told_from_that_of_the_metrics() -> None:
    async with running_gateway({"gateway.listen": ["127.0.0.1:0"]}) as gateway:
        done = await top("--once", "--at", gateway.target)

    assert done.returncode == 1
    assert "which is not the port of its gRPC services" in done.stderr


async def test_an_address_that_is_none_is_wrong_usage() -> None:
    done = await top("--at", "here")

    assert done.returncode == 2
    assert "host:port or [ipv6]:port" in done.stderr


async def test_where_the_plugin_is_not_enabled_the_missing_command_says_which_plugin_has_it() -> None:
    done = await top("--once", enabled="[]")

    assert done.returncode == 2
    assert "'top' comes with the plugin metrics, which is not enabled" in " ".join(done.stderr.split())
