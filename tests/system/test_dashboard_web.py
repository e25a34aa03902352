"""`mxgw dashboard --serve`: a page and a socket on loopback, for the one who was given the address."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

import aiohttp
import psutil
import pytest
from aiohttp import web
from support.clients import client_of

from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_dashboard_tui.web import WebServer

pytestmark = pytest.mark.asyncio


@dataclass(frozen=True)
class Served:
    """A running server: its address with and without the key, and the headers of its own page's socket."""

    process: asyncio.subprocess.Process
    address: str

    @property
    def base(self) -> str:
        return self.address.partition("/#")[0]

    @property
    def key(self) -> str:
        return self.address.partition("#key=")[2]

    @property
    def socket_headers(self) -> dict[str, str]:
        return {"Origin": self.base, "Sec-WebSocket-Protocol": f"mxgw.dashboard, mxgw.key.{self.key}"}


@asynccontextmanager
async def served(gateway: RunningGateway) -> AsyncIterator[Served]:
    with tempfile.TemporaryFile() as logged:
        async with _serving(gateway, logged) as server:
            yield server
        logged.seek(0)
        told = logged.read().decode()

    # Neither the key, nor an error that a visitor could cause.
    assert server.key not in told
    assert "Traceback" not in told


@asynccontextmanager
async def _serving(gateway: RunningGateway, logged: IO[bytes]) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "mxgw_dashboard_tui", "--serve", "--port", "0"),
        *("--connect", gateway.target),
        stdout=asyncio.subprocess.PIPE,
        stderr=logged,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/#key=\S+", line)

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
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
    ):
        await client.open(name="in a browser")
        async with browser.get(server.address) as answer:
            page = await answer.text()
        socket_address = re.search(r'data-session-websocket-url="(ws://127\.0\.0\.1:\d+/ws)"', page)

        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
        assert server.key not in page
        assert page.index("window.WebSocket = ") < page.index("textual.js")
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert not re.findall(r"(?:src|href)=\"?https?://(?!127\.0\.0\.1)", page)
        assert socket_address

        async with browser.get(f"{server.base}/static/js/textual.js") as script:
            assert script.status == 200
        async with browser.ws_connect(
            socket_address[1] + "?width=100&height=30", headers=server.socket_headers
        ) as socket:
            # What a browser wants to see of what it offered.
            assert socket._response.headers["Sec-WebSocket-Protocol"] == "mxgw.dashboard"

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


async def test_only_a_page_of_its_own_with_the_key_opens_the_socket_and_only_on_this_machine() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        served(gateway) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
    ):
        listening = [c.laddr.ip for c in psutil.Process(server.process.pid).net_connections() if c.status == "LISTEN"]
        origin, port = {"Origin": server.base}, server.base.rpartition(":")[2]
        key = {"Sec-WebSocket-Protocol": f"mxgw.dashboard, mxgw.key.{server.key}"}
        wrong = {"Sec-WebSocket-Protocol": "mxgw.dashboard, mxgw.key.guess"}
        # The key of the address in every place where a browser would send it to other ports as well.
        cookie = {"Cookie": f"mxgw_dashboard_{port}={server.key}; mxgw-key={server.key}"}

        async def opens(headers: dict[str, str], query: str = "") -> int:
            try:
                async with browser.ws_connect(f"{server.base}/ws{query}", headers=headers) as socket:
                    await shown(socket, "No session is open")
                    return 101
            except aiohttp.WSServerHandshakeError as refusal:
                return refusal.status

        refused = {
            "nothing": await opens({}),
            "no origin": await opens(key),
            "another port": await opens({**key, "Origin": "http://127.0.0.1:51541"}),
            "another name": await opens({**key, "Origin": f"http://localhost:{port}"}),
            "no page": await opens({**key, "Origin": "null"}),
            "no key": await opens(origin),
            "a wrong key": await opens({**origin, **wrong}),
            "a cookie alone": await opens({**origin, **cookie}),
            "a query": await opens(origin, f"?key={server.key}"),
            "a name that leads here": await opens({**origin, **key, "Host": "plant.example:80"}),
        }
        pages = {
            "to anybody": {},
            "to another origin": {"Origin": "http://127.0.0.1:51541"},
            "to another name": {"Host": f"localhost:{port}"},
        }
        codes = {}
        for whom, headers in pages.items():
            async with browser.get(server.base, headers=headers) as answer:
                codes[whom] = answer.status
        children = psutil.Process(server.process.pid).children(recursive=True)
        accepted = await opens({**origin, **key})
        command_line = json.dumps(psutil.Process(server.process.pid).cmdline())

    assert set(listening) == {"127.0.0.1"}
    assert refused == dict.fromkeys(refused, 403)
    assert not children  # nobody of them had an app
    assert accepted == 101
    assert codes == {"to anybody": 200, "to another origin": 403, "to another name": 403}
    assert server.key not in command_line


async def test_ending_the_server_ends_the_apps_of_open_pages() -> None:
    async with (
        running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser,
    ):
        async with served(gateway) as server:
            async with browser.get(server.address):
                pass
            socket = await browser.ws_connect(f"{server.base}/ws", headers=server.socket_headers)
            await shown(socket, "No session is open")
            children = psutil.Process(server.process.pid).children(recursive=True)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass  # a browser answers when it is told that the page is over
        await socket.close()

    assert children
    assert not [child for child in children if child.is_running()]


async def test_a_key_of_bytes_that_are_no_text_is_refused_like_any_other() -> None:
    async with running_gateway({"plugins.enabled": ["dashboard_tui"]}) as gateway, served(gateway) as server:
        host = server.base.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        headers = f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: {server.base}\r\nConnection: Upgrade\r\n"
        writer.write(headers.encode() + b"Upgrade: websocket\r\nSec-WebSocket-Protocol: mxgw.key.\xff\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert answer.split()[1] == b"403"


async def test_on_port_80_hosts_and_origins_have_the_port_or_leave_it_out() -> None:
    server = WebServer("true", 80, "dashboard")
    runner = web.AppRunner(await server._make_app())
    await runner.setup()
    try:
        # The port that the server believes to have; the one of the socket is whatever is free.
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        codes = {}
        async with aiohttp.ClientSession() as browser:
            for host in ("127.0.0.1", "127.0.0.1:80", "127.0.0.1:81", "localhost"):
                for origin in ("http://127.0.0.1", "http://127.0.0.1:80", "http://127.0.0.1:81", "https://127.0.0.1"):
                    async with browser.get(address, headers={"Host": host, "Origin": origin}) as answer:
                        codes[host, origin] = answer.status
    finally:
        await runner.cleanup()

    ours = ("127.0.0.1", "127.0.0.1:80")
    assert {pair for pair, code in codes.items() if code == 200} == {(h, f"http://{o}") for h in ours for o in ours}
    assert set(codes.values()) == {200, 403}
