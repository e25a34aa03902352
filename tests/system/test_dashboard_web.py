"""`mxgw dashboard --serve`: a page and a socket on loopback, for the one who was given the address."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import psutil
import pytest
from support.clients import client_of

from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio


@dataclass(frozen=True)
class Served:
    """A running server: its address with and without the key."""

    process: asyncio.subprocess.Process
    address: str

    @property
    def base(self) -> str:
        return self.address.partition("/?")[0]


@asynccontextmanager
async def served(gateway: RunningGateway) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "mxgw_dashboard_tui", "--serve", "--port", "0"),
        *("--connect", gateway.target),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?key=\S+", line)

        assert found, line

        yield Served(process, found[0])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            code = await process.wait()

    assert code == 0


async def shown(socket: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """Read the socket until the app has drawn `text`; return everything it drew."""
    drawn = b""
    async with asyncio.timeout(30):
        while text.encode() not in drawn:
            message = await socket.receive()

            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, drawn[-400:])

            drawn += message.data if isinstance(message.data, bytes) else message.data.encode()
    return drawn.decode(errors="replace")


async def test_the_page_and_its_socket_show_the_dashboard_and_take_keys() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        client_of(gateway.target) as client,
        served(gateway) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        await client.open(name="in a browser")
        async with browser.get(server.address) as answer:
            page = await answer.text()
        socket_address = re.search(r'data-session-websocket-url="(ws://127\.0\.0\.1:\d+/ws)"', page)

        assert answer.status == 200
        assert "key=" not in str(answer.url)
        assert not re.findall(r"(?:src|href)=\"?https?://(?!127\.0\.0\.1)", page)
        assert socket_address

        async with browser.get(f"{server.base}/static/js/textual.js") as script:
            assert script.status == 200
        async with browser.ws_connect(socket_address[1] + "?width=100&height=30") as socket:
            await shown(socket, "in a browser")
            await socket.send_json(["stdin", "2"])
            await shown(socket, "Sessions")
            children = psutil.Process(server.process.pid).children(recursive=True)
            await socket.send_json(["stdin", "q"])
            async with asyncio.timeout(60):
                while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
                await asyncio.to_thread(psutil.wait_procs, children)

    assert children


async def test_only_the_one_who_was_given_the_address_gets_in_and_only_from_this_machine() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        served(gateway) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as stranger,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as known,
    ):
        listening = [c.laddr.ip for c in psutil.Process(server.process.pid).net_connections() if c.status == "LISTEN"]
        codes = []
        for path in ("/", "/?key=guess", "/static/js/textual.js", "/ws", "/download/x"):
            async with stranger.get(server.base + path) as answer:
                codes.append(answer.status)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await stranger.ws_connect(f"{server.base}/ws")
        async with known.get(server.address) as answer:
            mine = answer.status
        async with known.get(server.base, headers={"Host": "plant.example:80"}) as answer:
            other_name = answer.status
        command_lines = " ".join(json.dumps(p.cmdline()) for p in [psutil.Process(server.process.pid)])

    assert set(listening) == {"127.0.0.1"}
    assert set(codes) == {403}
    assert refusal.value.status == 403
    assert (mine, other_name) == (200, 403)
    assert server.address.partition("key=")[2] not in command_lines


async def test_ending_the_server_ends_the_apps_of_open_pages() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        async with served(gateway) as server:
            async with browser.get(server.address):
                pass
            socket = await browser.ws_connect(f"{server.base}/ws")
            await shown(socket, "No session is open")
            children = psutil.Process(server.process.pid).children(recursive=True)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass  # a browser answers when it is told that the page is over
        await socket.close()

    assert children
    assert not [child for child in children if child.is_running()]
